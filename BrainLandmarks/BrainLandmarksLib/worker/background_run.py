"""Starting a command that outlives this program, and finding it again.

>>> run = BackgroundRun.start(Path("runs/tuned"), ["train", "runs/tuned/recipe.json"])
>>> run.state(), run.new_lines()
('running', ['checking the dataset'])

and from another program, or after a crash of this one:

>>> run = BackgroundRun.attach(Path("runs/tuned"))
>>> run.stop()                                   # as Ctrl-C: a checkpoint first

What is needed lies in the run's folder: ``run.json`` (which process, since when, which command, how
it ended), ``run.log`` (what it printed), ``run.words`` (whether it lives, and what it died of) and,
for a moment, ``run.stop`` (a wish to end). Standard library only, so that a training is found
before its packages are installed; where `psutil` is there, it tells a process from another one that
got its number.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from BrainLandmarksLib import PROGRAM
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.json_file import json_object
from BrainLandmarksLib.worker import last_words
from BrainLandmarksLib.worker.process_tree import (
    BACKGROUND,
    CHILD,
    END_S,
    command_environment,
    interpreter,
    kill_family,
    own_group,
)

RUN_FILE, LOG_FILE, STOP_FILE, WORDS_FILE = "run.json", "run.log", "run.stop", "run.words"

SAME_START_S = 2.0
"""Two processes of one number that started farther apart than this are not the same; clocks are
corrected now and then."""

STOPPED = last_words.STOPPED
"""Exit code of a command that was asked to stop."""

START_S = 60.0
"""A process that was announced longer ago than this and has not begun never will."""


class BackgroundRun:
    """A command that runs, or ran, on its own.

    Args:
        folder: Of the run.
        child: The process if this program has started it.
    """

    def __init__(self, folder: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self._child = child
        self._read = 0
        self._cause_given = False

    @classmethod
    def start(cls, folder: Path, arguments: Sequence[str]) -> BackgroundRun:
        """Start a command; returns at once.

        Raises:
            UserError: another one runs in the folder, or it cannot be written to.
            OSError: Python cannot be started.
        """
        there = cls.attach(folder)
        if there is not None and there.state() == "running":
            raise UserError(
                f"a training runs in {folder} already; attach to it, or choose another folder."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STOP_FILE).unlink(missing_ok=True)
            (folder / WORDS_FILE).write_bytes(b"")  # nobody has begun it
            log = (folder / LOG_FILE).open("ab")
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error.strerror}; choose another folder."
            ) from None
        with log:
            began = log.tell()
            # It says so itself, but until Python has started takes seconds.
            about = run_record(None, arguments)
            write_run(folder / RUN_FILE, about)
            try:
                child = subprocess.Popen(
                    [interpreter(), "-m", CHILD, BACKGROUND, str(folder), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=command_environment(),
                    **own_group(),
                )
            except OSError:
                write_run(folder / RUN_FILE, {**about, "exit": 1})
                raise
        run = cls(folder, child)
        run._read = began
        return run

    @classmethod
    def attach(cls, folder: Path) -> BackgroundRun | None:
        """The run recorded in a folder, whether it still runs or not; None if there is no record.

        What it printed so far comes with the first `new_lines`.
        """
        run = cls(folder)
        return run if run.about else None

    @property
    def about(self) -> Mapping[str, Any]:
        """What the run file says; empty until it is there."""
        return json_object(self.folder / RUN_FILE)

    @property
    def _words(self) -> Path:
        return self.folder / WORDS_FILE

    def state(self) -> str:
        """running, finished, stopped, failed, or lost (killed: it can be started again).

        A stopped or lost training goes on from its last checkpoint with the same command.

        Raises:
            ImportError: an older version began it, and psutil, which could tell, is missing.
        """
        about = self.about
        if not about:
            return "failed"
        if about["exit"] is None:
            if self._alive(about):
                return "running"
            # Between the look at the file and the look at the process it may have ended.
            about = self.about or about
        code = about["exit"]
        if code is None:  # it could not say so there
            ending = self._ending()
            code = ending.code
            if not self._has_begun() and self._child is not None:
                self._record_for_it(about, code)
            if ending.crash or (not self._has_begun() and (code is None or code >= 0)):
                return "failed"
            if code is None:
                return "lost"
        if code < 0:
            return "lost"
        return {0: "finished", STOPPED: "stopped"}.get(code, "failed")

    def _record_for_it(self, about: Mapping[str, Any], code: int | None) -> None:
        """Write how our child ended that did not come as far as its first word."""
        with contextlib.suppress(UserError):
            write_run(self.folder / RUN_FILE, {**about, "exit": code or 1})

    def _ending(self) -> last_words.Ending:
        return last_words.ending(self._words, None if self._child is None else self._child.poll())

    def _has_begun(self) -> bool:
        """Whether it came as far as its first word; one of an older version kept no file."""
        return last_words.began(self._words) or not self._words.exists()

    def stop(self) -> None:
        """Ask it to end as after Ctrl-C; `state` says when it has.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            (self.folder / STOP_FILE).touch()
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}.") from None

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end and has not yet."""
        return (self.folder / STOP_FILE).exists() and self.state() == "running"

    def kill(self) -> None:
        """End it and all it started, at once; its last checkpoint stays.

        One that another program has started and that has not begun cannot be found yet; it ends
        when it begins.
        """
        about = self.about
        if not about or not self._alive(about):
            return
        number = about["pid"]
        if number is None and self._child is not None:  # it has not begun
            number = self._child.pid
        if number is None:
            self.stop()
            return
        # In a folder that computers share, the number may be one of another computer.
        if _is_process({**about, "pid": number}) is False:
            return
        kill_family(number)
        end = time.monotonic() + END_S
        while self._alive(self.about) and time.monotonic() < end:
            time.sleep(0.02)
        (self.folder / STOP_FILE).unlink(missing_ok=True)

    def new_lines(self) -> list[str]:
        """What it has printed since the last call; an unfinished line waits."""
        try:
            with (self.folder / LOG_FILE).open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode("utf-8", "replace").splitlines() + self._last_lines()

    def _last_lines(self) -> list[str]:
        """What the process could not print any more, once."""
        about = self.about
        if self._cause_given or not about or about["exit"] is not None or self._alive(about):
            return []
        self._cause_given = True
        ending = self._ending()
        cause = ending.cause("training")
        return ending.crash.splitlines() + [f"{cause[0].upper()}{cause[1:]}."] * bool(cause)

    def _alive(self, about: Mapping[str, Any]) -> bool:
        """Whether the process of the run file is there, and is no other that got its number."""
        if self._child is not None:
            self._child.poll()  # or it would stay as a zombie
        if last_words.began(self._words):
            return last_words.alive(self._words)
        if self._child is not None:
            return self._child.poll() is None
        same = _is_process(about)
        if same is None and about.get("created") is not None and not self._words.exists():
            raise ImportError("psutil is missing: whether this older run still runs is not known")
        return _age_s(about) < START_S if same is None else same


def run_record(pid: int | None, arguments: Sequence[str]) -> dict[str, Any]:
    """What a run file says of a process while it runs.

    Number and start (seconds since 1970, None where psutil is missing) together name the process.

    Args:
        pid: Its number; None before it has begun.
    """
    return {
        "pid": pid,
        "created": None if pid is None else _created(pid),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "command": shlex.join([PROGRAM, *arguments]),
        "exit": None,
    }


def _created(pid: int) -> float | None:
    """When a process started; None if it is gone, or psutil is missing."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:  # gone, or of another user: not ours
        return None


def _is_process(about: Mapping[str, Any]) -> bool | None:
    """Whether the process of a run file is there; None if that cannot be known."""
    try:
        import psutil  # noqa: F401
    except ImportError:
        return None
    try:
        number, created = int(about["pid"]), float(about["created"])
    except (KeyError, TypeError, ValueError):
        return None if about.get("created") is None else False
    now = _created(number)
    return now is not None and abs(now - created) < SAME_START_S


def _age_s(about: Mapping[str, Any]) -> float:
    """Seconds since a run was announced."""
    try:
        began = datetime.fromisoformat(str(about["started"]))
        return (datetime.now(timezone.utc) - began).total_seconds()
    except (KeyError, TypeError, ValueError):
        return float("inf")


def write_run(path: Path, about: Mapping[str, Any]) -> None:
    """Write a run file.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
