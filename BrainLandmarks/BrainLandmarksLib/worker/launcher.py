"""The launcher between us and whoever started us: what befalls it alone should reach us.

`Slicer` and `PythonSlicer` are launchers (CTK's AppLauncher): they start the program proper and
wait for it. SIGTERM, as `kill`, `timeout` and batch systems send it, and Ctrl-C end a launcher at
once and are not passed on. Of SIGTERM the program proper learns nothing; it can only see that its
parent is gone. (Windows has no such signals, and no sign of a parent that is gone.)
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from BrainLandmarksLib.worker import last_words

PYTHON = "PythonSlicer"

WATCH_S = 0.5

_SHOWN = 15
"""Linux reports this many letters of a program's name."""

GRACE_S = 2.0
"""Ctrl-C reaches the program proper as well; it is asked to stop only if it did not by itself."""


class Launcher:
    """The parent of this process, if it is a launcher of one of these names.

    Whoever else the parent is, a shell that is closed, say, its end means nothing.
    """

    def __init__(self, *names: str) -> None:
        self._pid: int | None = None
        if sys.platform != "win32":
            parent = os.getppid()
            known = {name[:_SHOWN] for name in names}
            self._pid = parent if _program(parent)[:_SHOWN] in known else None

    @property
    def there(self) -> bool:
        """Whether a launcher started this process."""
        return self._pid is not None

    @property
    def gone(self) -> bool:
        """Whether there was a launcher and it has ended."""
        return self._pid is not None and os.getppid() != self._pid


def run(main: Callable[[], int]) -> int:
    """Run a command so that SIGTERM stops it as Ctrl-C does, also if PythonSlicer alone gets it.

    Returns:
        Its exit code.
    """
    launcher = Launcher(PYTHON)
    if not launcher.there or last_words.VARIABLE in os.environ:  # whose parent cares for it itself
        return main()
    asked = stop_once()

    def watch() -> None:
        while not launcher.gone:
            time.sleep(WATCH_S)
        if not asked.wait(GRACE_S):
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return main()


def stop_once() -> threading.Event:
    """Let the first SIGTERM or Ctrl-C raise KeyboardInterrupt, and ignore what follows.

    One wish to stop may arrive in several ways, and what the command puts in order meanwhile is
    not to be disturbed. (A process that was started in the background may have got "ignore Ctrl-C"
    with it; that ends here.)

    Returns:
        Set by the first.
    """
    asked = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not asked.is_set():
            asked.set()
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return asked


def interrupt_main() -> None:
    """Do to this process what Ctrl-C does, also while its main thread waits for something."""
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _program(pid: int) -> str:
    """Name of the program that a process runs; "" where the system does not report it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["ps", "-o", "comm=", "-p", str(pid)],
            capture_output=True, text=True, timeout=5.0, check=True,
        )  # fmt: skip
        return Path(listed.stdout.strip()).name
    return ""
