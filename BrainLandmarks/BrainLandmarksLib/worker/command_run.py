"""A `brainlandmarks` command that ends with this program, watched without waiting for it."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from BrainLandmarksLib.worker.last_words import Ending
from BrainLandmarksLib.worker.process_tree import (
    CHILD,
    ProcessTree,
    command_environment,
    interpreter,
)


class CommandRun:
    """A command that is under way; call `poll` until it returns an exit code.

    >>> run = CommandRun(["train", "recipe.json"])
    >>> while (code := run.poll(print_line)) is None:
    ...     time.sleep(0.05)

    Args:
        arguments: As for `brainlandmarks`.

    Attributes:
        ending: How it ended, once `poll` has returned an exit code.

    Raises:
        OSError: Python cannot be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._tree = ProcessTree([interpreter(), "-m", CHILD, *arguments], command_environment())
        self._lines: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, error), daemon=True)
            for stream, error in ((self._tree.stdout, False), (self._tree.stderr, True))
        ]
        for reader in self._readers:
            reader.start()
        self._end: float | None = None
        self.ending: Ending | None = None

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._end is not None

    def poll(self, on_line: Callable[[str, bool], None]) -> int | None:
        """Pass on what was printed since the last call.

        Args:
            on_line: Gets a line without its end, and whether it is from standard error.

        Returns:
            The exit code, 128 + n if signal n ended the process; None while it runs.
        """
        if self._end is not None and time.monotonic() > self._end:
            self._tree.kill()
        ending = self._tree.ending()
        if ending is not None:
            for reader in self._readers:
                reader.join(1.0)
        while not self._lines.empty():
            on_line(*self._lines.get())
        if ending is None or ending.code is None:
            return None
        self._tree.close()
        self.ending = ending
        for line in ending.crash.splitlines():
            on_line(line, True)
        return 128 - ending.code if ending.code < 0 else ending.code

    def stop(self, grace_s: float | None = None) -> None:
        """Stop it as Ctrl-C does, and wait for a checkpoint, or the image at hand.

        Args:
            grace_s: It is ended if that takes longer; by default it may take what it takes.
        """
        if self._end is None:
            self._tree.stdin.close()
        self._end = math.inf if grace_s is None else time.monotonic() + grace_s

    def kill(self) -> None:
        """End it and all it started, at once."""
        self._tree.kill()

    def _read(self, stream: BinaryIO, error: bool) -> None:
        for line in stream:
            self._lines.put((line.decode("utf-8", "replace").rstrip("\r\n"), error))
