"""The worker of a Slicer session: one for all modules, polled by a timer in the main thread."""

from __future__ import annotations

import qt

from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.process_tree import environment, interpreter

POLL_MS = 20


class WorkerHost:
    """Holds the worker and the timer that polls it.

    The timer runs while there is something to wait for, so an idle module costs nothing.
    """

    def __init__(self) -> None:
        self.worker = Worker(command(), environment("BrainLandmarksLib"))
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)

    def watch(self) -> None:
        """Poll until all requests have ended; call it after making one."""
        self._timer.start()

    def stop(self) -> None:
        """End the process and the timer."""
        self._timer.stop()
        self.worker.stop()

    def _poll(self) -> None:
        self.worker.poll()
        if not self.worker.busy:
            self._timer.stop()


_hosts: list[WorkerHost] = []


def shared_host() -> WorkerHost:
    """The one host of this Slicer session, made when it is first asked for."""
    if not _hosts:
        _hosts.append(WorkerHost())
    return _hosts[0]


def stop_shared_host() -> None:
    """End the session's worker, if there is one; the next request of any module starts it again.

    The host stays: a second one, made for a module that is loaded anew, would be a second process.
    """
    for host in _hosts:
        host.stop()


def command() -> list[str]:
    """What starts the worker: Slicer's own Python running this library."""
    return [interpreter(), "-m", "BrainLandmarksLib", "serve"]
