"""The client's side: start the worker when it is needed, ask it, and survive whatever it does.

Made for a program with an event loop: nothing here blocks but ``Worker.wait``, and callbacks are
called only from ``Worker.poll``, which Slicer's side calls from a timer in its main thread.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from BrainLandmarksLib import __version__
from BrainLandmarksLib.worker.last_words import Ending
from BrainLandmarksLib.worker.messages import (
    FINAL,
    LONGEST_LINE,
    REPLIES,
    VERSION,
    Message,
    MessageError,
    decode,
    encode,
)
from BrainLandmarksLib.worker.process_tree import LINE_BY_LINE, ProcessTree

CANCEL_S = 0.6
"""A job that has not ended this long after its cancellation is ended with its process."""

SILENCE_S = 30.0
"""A worker that has not even said "alive" for this long does not answer any more."""

LOG_LINES = 200
"""Lines of the worker's standard error that are kept for a diagnosis."""

OnMessage = Callable[[Message], None]


@dataclass
class _Request:
    message: Message
    on_message: OnMessage
    sent: bool = False
    cancelled_at: float | None = None


@dataclass
class _Run:
    """One life of the worker process."""

    tree: ProcessTree
    lines: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    heard_at: float = field(default_factory=time.monotonic)
    greeted: bool = False
    reader: threading.Thread | None = None
    log_reader: threading.Thread | None = None


class Worker:
    """A worker process, started with the first request and again after it has ended.

    >>> worker = Worker([sys.executable, "-m", "BrainLandmarksLib", "serve"])
    >>> identity = worker.request("detect", print, image="head.nii.gz", output="out.mrk.json",
    ...                           model="brain88", device="auto", quality="standard")
    >>> worker.wait(identity, timeout_s=60)
    >>> worker.stop()

    Every request ends with exactly one message of type "result", "cancelled" or "error"; the last
    names one of `messages.ERROR_CODES` and says in one sentence what happened.

    Args:
        command: Program and arguments that serve.
        environment: Its environment; None is this process' own.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._environment = environment
        self._run: _Run | None = None
        self._requests: dict[str, _Request] = {}
        self._count = 0
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._last_end = ""

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._run is not None and self._run.tree.poll() is None

    @property
    def pid(self) -> int | None:
        """Process number, or None."""
        return self._run.tree.pid if self._run is not None else None

    @property
    def busy(self) -> bool:
        """Whether a request has not ended yet."""
        return bool(self._requests)

    def start(self) -> None:
        """Start the process now, so that it is ready when it is needed."""
        if self._run is None:
            self._start()

    def request(self, kind: str, on_message: OnMessage, **fields: Any) -> str:
        """Ask for something; ``on_message`` gets the replies. Returns the request's id."""
        self._count += 1
        identity = f"{os.getpid()}-{self._count}"
        message = {"v": VERSION, "id": identity, "type": kind, **fields}
        self._requests[identity] = _Request(message, on_message)
        self.start()
        self._send_waiting()
        return identity

    def cancel(self, identity: str) -> None:
        """End a request: within a second, its process with it if it does not listen."""
        request = self._requests.get(identity)
        if request is None or request.cancelled_at is not None:
            return
        request.cancelled_at = time.monotonic()
        if request.sent:
            self._count += 1
            self._send(
                {
                    "v": VERSION,
                    "id": f"{os.getpid()}-{self._count}",
                    "type": "cancel",
                    "target": identity,
                }
            )

    def poll(self) -> None:
        """Deliver what has come in, and notice what should have; call it every 50 ms or so."""
        run = self._run
        if run is None:
            self._send_waiting()
            return
        ending = run.tree.ending()
        if ending is not None:
            for thread in (run.reader, run.log_reader):  # the last lines
                if thread is not None:
                    thread.join(1.0)
        while self._run is run:
            try:
                line = run.lines.get_nowait()
            except queue.Empty:
                break
            run.heard_at = time.monotonic()
            self._receive(line)
        if self._run is not run:
            return
        if ending is not None:
            self._ended(ending)
        elif time.monotonic() - run.heard_at > SILENCE_S:
            self._end("silent", f"The worker has not answered for {SILENCE_S:.0f} s and was ended.")
        else:
            self._end_if_deaf()
            self._send_waiting()

    def wait(self, identity: str, timeout_s: float) -> None:
        """Poll until a request has ended.

        Raises:
            TimeoutError: it has not.
        """
        end = time.monotonic() + timeout_s
        while identity in self._requests:
            if time.monotonic() > end:
                raise TimeoutError(f"no answer within {timeout_s:g} s")
            self.poll()
            time.sleep(0.01)

    def stop(self) -> None:
        """End the process; requests that have not ended are cancelled."""
        self._drop()
        for identity in list(self._requests):
            self._finish({"v": VERSION, "id": identity, "type": "cancelled"})

    def diagnostics(self) -> str:
        """What someone who helps needs to know, free of any detail of scans and people."""
        lines = [
            f"BrainLandmarks {__version__}, messages {VERSION}",
            f"Python {platform.python_version()} on {platform.platform()}",
            f"worker: {'running' if self.running else 'not running'}",
        ]
        if self._last_end:
            lines.append(f"last end: {self._last_end}")
        # What the worker wrote when it ended badly; it never gets the name of a scan.
        return "\n".join([*lines, "last lines:", *(self._log or ["(none)"])])

    # The process ----------------------------------------------------------------------------------

    def _start(self) -> None:
        self._log.clear()
        environment = dict(os.environ if self._environment is None else self._environment)
        environment |= {**LINE_BY_LINE, "PYTHONFAULTHANDLER": "1"}
        try:
            tree = ProcessTree(self._command, environment)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._last_end = reason
            self._fail_all("not_started", f"The worker cannot be started: {reason}.")
            return
        run = _Run(tree)
        run.reader = threading.Thread(
            target=_read_lines, args=(tree.stdout, run.lines.put), daemon=True
        )
        run.log_reader = threading.Thread(
            target=_read_lines, args=(tree.stderr, self._keep), daemon=True
        )
        run.reader.start()
        run.log_reader.start()
        self._run = run
        for request in self._requests.values():
            request.sent = False

    def _keep(self, line: bytes) -> None:
        self._log.append(line.decode("utf-8", "replace").rstrip())

    def _drop(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        run.tree.kill()
        for thread in (run.reader, run.log_reader):
            if thread is not None:
                thread.join(1.0)
        run.tree.close()

    def _ended(self, ending: Ending) -> None:
        """The process has left by itself, or was ended by somebody else."""
        if self._run is not None and not self._run.greeted:
            self._drop()
            said = f": {self._log[-1]}" if self._log else ""
            self._last_end = f"The worker does not start ({ending.name}){said}"
            self._fail_all("not_started", f"{self._last_end}.")
            return
        self._log.extend(ending.crash.splitlines())
        # One that ends by itself while it is needed has crashed, whatever it says.
        cause = ending.cause("worker") or f"the worker crashed ({ending.name})"
        advice = "the next click starts it."
        if ending.killed:
            advice = "close other programs, or crop or resample the volume."
        code = "killed" if ending.killed or ending.terminated else "crashed"
        self._end(code, f"{cause[0].upper()}{cause[1:]}; {advice}")

    def _end(self, code: str, sentence: str) -> None:
        """End the process, whatever is left of it, and with an error every request sent to it."""
        self._last_end = sentence
        # One that never said hello would do the same again: nothing waits for its successor.
        hopeless = self._run is None or not self._run.greeted
        self._drop()
        detail = "\n".join(self._log)
        for identity, request in list(self._requests.items()):
            if request.cancelled_at is not None:
                self._finish({"v": VERSION, "id": identity, "type": "cancelled"})
            elif request.sent or hopeless:
                self._finish(_error(identity, code, sentence, detail))
        if self._requests:
            self._start()

    def _end_if_deaf(self) -> None:
        now = time.monotonic()
        for identity, request in list(self._requests.items()):
            if request.cancelled_at is None:
                continue
            if not request.sent:
                self._finish({"v": VERSION, "id": identity, "type": "cancelled"})
            elif now - request.cancelled_at > CANCEL_S:
                self._last_end = "ended to cancel a request"
                self._drop()
                self._finish({"v": VERSION, "id": identity, "type": "cancelled"})
                # A new one at once: what else was asked goes to it, and the next click finds it
                # warm.
                self._start()
                return

    # Messages -------------------------------------------------------------------------------------

    def _receive(self, line: bytes) -> None:
        try:
            message = decode(line, REPLIES)
        except MessageError as error:
            if b'"hello"' in line:
                self._end(
                    "version",
                    "The worker belongs to another version of BrainLandmarks; install it again.",
                )
            else:
                self._log.append(f"(the worker said something else: {error})")
            return
        if message["type"] == "hello":
            assert self._run is not None
            self._run.greeted = True
            self._send_waiting()
        elif message.get("id") in self._requests:
            if message["type"] in FINAL:
                self._finish(message)
            elif self._requests[message["id"]].cancelled_at is None:
                self._requests[message["id"]].on_message(message)
        elif message["type"] == "error":
            self._log.append(message["message"])

    def _send_waiting(self) -> None:
        if self._run is None or not self._run.greeted:
            return
        for request in self._requests.values():
            if not request.sent and request.cancelled_at is None:
                request.sent = True
                self._send(request.message)

    def _send(self, message: Message) -> None:
        if self._run is None:
            return
        # A broken pipe: the process has ended, which the next poll finds.
        with contextlib.suppress(OSError, ValueError):
            self._run.tree.stdin.write(encode(message))
            self._run.tree.stdin.flush()

    def _finish(self, message: Message) -> None:
        request = self._requests.pop(message["id"])
        if request.cancelled_at is not None:
            message = {"v": VERSION, "id": message["id"], "type": "cancelled"}
        request.on_message(message)

    def _fail_all(self, code: str, sentence: str) -> None:
        for identity in list(self._requests):
            self._finish(_error(identity, code, sentence, ""))


def _error(identity: str, code: str, sentence: str, detail: str) -> Message:
    return {
        "v": VERSION,
        "id": identity,
        "type": "error",
        "code": code,
        "message": sentence,
        "detail": detail,
    }


def _read_lines(stream: BinaryIO, take: Callable[[bytes], Any]) -> None:
    """Give every line of a stream on until it ends."""
    with contextlib.suppress(OSError, ValueError):
        while line := stream.readline(LONGEST_LINE + 2):
            take(line)
