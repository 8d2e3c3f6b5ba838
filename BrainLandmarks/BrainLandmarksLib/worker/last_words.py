"""How a process ended, in its own words: the exit code that its parent sees may be another's.

PythonSlicer and Slicer are launchers: the program proper is their child. A launcher ends with the
exit code of its child, but with 1 where a signal ended it, and a signal that reaches the launcher
ends the launcher alone. So the program proper keeps a file:

* it locks the file while it lives, and the system lets go of the lock however it dies;
* it writes there what it ends with: its exit code, or, by the hand of `faulthandler`, the error
  that crashed it;
* it touches the file now and then (`LastWords.beat`), for where locks do not work.

A process that has begun its file, lives no more and left no last word was killed: nothing can be
said after SIGKILL, which is what the system sends when memory runs out.

The file holds numbers and lines of code, nothing of scans and people.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "BRAINLANDMARKS_LAST_WORDS"
"""Environment variable with the file's path, for a process that gets no other."""

BEAT_S = 2.0
"""How often a process that beats touches its file."""

SILENT_S = 30.0
"""Where locks do not work, a process that has not touched its file for this long is gone."""

KILLED = -9
"""Exit code of a process that was killed, as `subprocess` has it; Windows' too."""

STOPPED = 130
"""Exit code of a command that was asked to stop."""

BUG = 1
"""Exit code of a command that ended with an error nobody expected."""

_LOCK_TRIES, _LOCK_WAIT_S = 20, 0.05
_LOCKED_BYTE = 1 << 30
"""Windows keeps others from reading what is locked, so a byte that nobody reads is."""

_EXIT = re.compile(r"^exit (\d+)$", re.MULTILINE)
_FATAL = re.compile(r"^(?:Fatal Python error|Windows fatal exception): (.*)$", re.MULTILINE)
_STACK = re.compile(r"^(Stack|Thread|Current thread) .*most recent call first", re.MULTILINE)
"""What `faulthandler` writes on a signal that is no error."""
_SIGNALS = {
    "segmentation fault": "SIGSEGV",
    "aborted": "SIGABRT",
    "bus error": "SIGBUS",
    "floating-point exception": "SIGFPE",
    "illegal instruction": "SIGILL",
}
"""What `faulthandler` calls the signals it knows."""


class LastWords:
    """The file of the process that runs, from here to its end.

    Args:
        path: The file; made or emptied. One that cannot be written is done without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        with contextlib.suppress(OSError):
            self._file = path.open("wb", buffering=0)
            header = {
                "pid": os.getpid(),
                "locked": _lock(self._file.fileno()),
                "oom_kills": oom_kills(),
            }
            self._write(json.dumps(header))
            faulthandler.enable(self._file)

    def beat(self) -> None:
        """Show that the process lives."""
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def record_sigterm(self) -> None:
        """Say so when SIGTERM ends the process; at once, whatever its threads are busy with."""
        if self._file is not None and hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGTERM, self._file, all_threads=False, chain=True)

    def end(self, code: int) -> None:
        """Say what the process will end with."""
        self._write(f"exit {code}")

    def forget(self) -> None:
        """Remove the file: nobody is left to read it."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self, line: str) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write(f"{line}\n".encode())


def begin() -> LastWords | None:
    """Begin the file that whoever started this process asked for; None if nobody did."""
    # What this process starts must not write there.
    path = os.environ.pop(VARIABLE, "")
    return LastWords(Path(path)) if path else None


def exit_code(work: Callable[[], int]) -> int:
    """Do a command's work and return its exit code, however it says so; a bug is raised."""
    try:
        return work()
    except SystemExit as error:  # the parser has said why
        if error.code is None:
            return 0
        return error.code if isinstance(error.code, int) else BUG
    except KeyboardInterrupt:  # before the command had begun, or after it had ended
        return STOPPED


def spoken(words: LastWords | None, work: Callable[[], int]) -> int:
    """Do a process' work and say what it ends with; returns the exit code."""
    code = BUG
    try:
        code = exit_code(work)
    finally:
        if words is not None:
            words.end(code)
    return code


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        code: Its exit code, minus the signal's number if one ended it; None if nobody knows.
        out_of_memory: Whether the system ended a process for its memory meanwhile.
        crash: What `faulthandler` wrote, "" if it did not crash.
    """

    code: int | None
    out_of_memory: bool = False
    crash: str = ""

    @property
    def killed(self) -> bool:
        """Whether it was ended from outside without a chance to say so."""
        return self.code == KILLED

    @property
    def terminated(self) -> bool:
        """Whether it was asked to end from outside, by SIGTERM, Ctrl-C or a closed terminal."""
        names = ("SIGTERM", "SIGINT", "SIGHUP")
        return self.code in [-n for n in (getattr(signal, s, None) for s in names) if n]

    @property
    def name(self) -> str:
        """The signal's name, or "exit code 3"."""
        if self.code is not None and self.code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-self.code).name
            if self.killed:
                return "killed"
        if self.crash and self.code is not None and self.code >= 0:
            return self.crash.splitlines()[0].partition(": ")[2]
        return f"exit code {self.code}"

    def cause(self, what: str) -> str:
        """Why it ended, without a full stop; "" if it ended by itself, with an exit code.

        >>> Ending(-9).cause("training")
        'the training was killed from outside, most likely because memory ran out'

        Args:
            what: What the process did, such as "training".
        """
        if self.out_of_memory:
            return f"memory ran out, and the system ended the {what}"
        if self.killed:
            return f"the {what} was killed from outside, most likely because memory ran out"
        if self.terminated:
            return f"the {what} was ended from outside ({self.name})"
        if self.crash or (self.code is not None and self.code < 0):
            return f"the {what} crashed ({self.name})"
        return ""


def began(path: Path) -> bool:
    """Whether a process has begun the file."""
    return bool(_read(path)[0])


def alive(path: Path) -> bool:
    """Whether the process that has begun the file lives."""
    header, _ = _read(path)
    if not header:
        return False
    if header.get("locked"):
        return _is_locked(path)
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime < SILENT_S
    return False


def ending(path: Path | None, exit_code: int | None) -> Ending:
    """How the process that kept the file ended; it must have.

    Args:
        path: The file; None if there is none.
        exit_code: What its parent saw, which counts where the file says nothing; None if
            this program is not its parent.
    """
    header, words = _read(path) if path is not None else ({}, "")
    if not header:
        return Ending(exit_code)
    said = _EXIT.findall(words)
    if said:
        return Ending(int(said[-1]))
    fatal = _FATAL.search(words)
    if fatal:
        name = _SIGNALS.get(fatal[1].strip().lower(), "")
        number = getattr(signal, name, None)
        return Ending(exit_code if number is None else -number, crash=words[fatal.start() :])
    if _STACK.search(words):
        return Ending(-signal.SIGTERM)
    before, now = header.get("oom_kills"), oom_kills()
    more = isinstance(before, int) and now is not None and now > before
    # Minus a signal's number says of what the process itself died, or its launcher before it.
    code = exit_code if exit_code is not None and exit_code < 0 else KILLED
    return Ending(code, out_of_memory=more and code == KILLED)


def oom_kills() -> int | None:
    """How many processes Linux has ended for their memory: of our control group, or else of all.

    None where that cannot be known.
    """
    for file in (*_control_group_files(), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            for line in file.read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return None


def _control_group_files() -> list[Path]:
    """Where both versions of control groups count them."""
    root, files = Path("/sys/fs/cgroup"), []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                files.append(root / group.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                files.append(root / "memory" / group.lstrip("/") / "memory.oom_control")
    return files


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """First line and what follows; ({}, "") if no process has begun the file."""
    try:
        first, _, words = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        header = json.loads(first)
    except (OSError, ValueError):
        return {}, ""
    return (header, words) if isinstance(header, dict) else ({}, "")


# `fcntl.lockf` and not `flock`: a fork, such as a data loader, would hold on to the latter.
# `io.lock.file_lock` waits for a lock and lets go of it; this one is held to the end, or looked at.
def _lock(descriptor: int) -> bool:
    """Lock an open file until this process ends; False where locks do not work."""
    for _ in range(_LOCK_TRIES):
        try:
            _try_lock(descriptor)
            return True
        except OSError:
            time.sleep(_LOCK_WAIT_S if sys.platform != "win32" else 0)
    return False


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _try_lock(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _try_lock(descriptor: int) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)
