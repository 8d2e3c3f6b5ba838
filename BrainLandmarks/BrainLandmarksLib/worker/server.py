"""The worker's side: read requests from standard input, do one after another, answer.

The main thread reads; one thread works; one thread says "alive" every second. When standard input
ends, Slicer is gone, and the process leaves at once, in the middle of a job if need be.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any, BinaryIO

from BrainLandmarksLib import __version__
from BrainLandmarksLib.errors import ImplausibleError, UserError, of_system
from BrainLandmarksLib.worker import last_words
from BrainLandmarksLib.worker.jobs import Jobs
from BrainLandmarksLib.worker.messages import (
    LONGEST_LINE,
    REQUESTS,
    VERSION,
    Message,
    MessageError,
    decode,
    encode,
)

ALIVE_EVERY_S = 1.0


class Cancelled(Exception):
    """Raised inside a job that the client no longer wants."""


class Server:
    """Serves requests from one stream and answers on another until the first one ends.

    Args:
        requests: Binary stream of lines.
        replies: Binary stream of lines; nothing else may write to it.
        jobs: What can be done; by default the library's detection.
    """

    def __init__(self, requests: BinaryIO, replies: BinaryIO, jobs: Jobs | None = None) -> None:
        self._requests = requests
        self._replies = replies
        self._write_lock = threading.Lock()
        self._jobs = jobs or Jobs()
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._running: str | None = None
        self._cancelled: set[str] = set()

    def run(self) -> None:
        """Serve until the requests end."""
        self._reply({"type": "hello", "library": __version__, "pid": os.getpid()})
        for work in (self._work, self._stay_alive):
            threading.Thread(target=work, daemon=True).start()
        while line := self._requests.readline(LONGEST_LINE + 2):
            if line.strip():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = decode(line, REQUESTS)
        except MessageError as error:
            self._fail(None, "bad_message", f"the worker got {error}.")
            return
        if message["type"] == "ping":
            self._reply({"type": "result", "id": message["id"], "library": __version__})
        elif message["type"] == "cancel":
            self._cancel(message)
        else:
            with self._changed:
                self._waiting.append(message)
                self._changed.notify()

    def _cancel(self, message: Message) -> None:
        target = message["target"]
        with self._changed:
            waiting = next((m for m in self._waiting if m["id"] == target), None)
            if waiting is not None:
                self._waiting.remove(waiting)
            elif target == self._running:
                self._cancelled.add(target)
        if waiting is not None:
            self._reply({"type": "cancelled", "id": target})
        self._reply({"type": "result", "id": message["id"]})

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                message = self._waiting.popleft()
                self._running = message["id"]
            self._do(message)
            with self._changed:
                self._cancelled.discard(message["id"])
                self._running = None

    def _do(self, message: Message) -> None:
        identity = message["id"]

        def progress(stage: str, fraction: float, eta_s: float | None) -> None:
            if identity in self._cancelled:
                raise Cancelled
            self._reply(
                {"type": "progress", "id": identity, "stage": stage,
                 "fraction": round(fraction, 3), "eta_s": eta_s}
            )  # fmt: skip

        try:
            result = self._jobs.do(message, progress)
            # A result that is no message is a bug of this job, not the end of all others.
            self._reply({"type": "result", "id": identity, **result})
        except Cancelled:
            self._reply({"type": "cancelled", "id": identity})
        except ImplausibleError as error:
            self._fail(identity, "implausible", str(error))
        except UserError as error:
            self._fail(identity, "user", str(error))
        except Exception as error:
            refused = of_system(error)
            if refused is not None:
                self._fail(identity, "user", str(refused))
                return
            out_of_memory = is_out_of_memory(error)
            sentence = (
                "the memory of this computer does not suffice; close other programs, or crop or "
                "resample the volume."
                if out_of_memory
                else f"the worker met an error of its own ({type(error).__name__})."
            )
            self._fail(
                identity,
                "out_of_memory" if out_of_memory else "bug",
                sentence,
                traceback.format_exc(),
            )

    def _fail(self, identity: str | None, code: str, sentence: str, detail: str = "") -> None:
        self._reply(
            {"type": "error", "id": identity, "code": code, "message": sentence, "detail": detail}
        )

    def _reply(self, message: dict[str, Any]) -> None:
        line = encode({"v": VERSION, **message})
        # A client that went away: the reading side notices, too, and ends the process.
        with self._write_lock, contextlib.suppress(OSError, ValueError):
            self._replies.write(line)
            self._replies.flush()

    def _stay_alive(self) -> None:
        while True:
            time.sleep(ALIVE_EVERY_S)
            self._reply({"type": "alive"})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: Python's, PyTorch's on a CPU or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text
    )


def serve() -> None:
    """Run a server on this process' standard streams; does not return.

    Whatever a library prints goes to standard error: standard output carries messages alone.
    """
    words = last_words.begin()
    if words is not None:
        words.record_sigterm()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    code = 1
    try:
        Server(requests, replies).run()
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception:
        traceback.print_exc()
    if words is not None:
        words.end(code)
        if code == 0:
            words.forget()  # the client is gone, or wants to hear no more
    # Not sys.exit: a job's thread may be deep in a convolution, and there is nobody to wait for it.
    os._exit(code)
