"""Starting a command that outlives this program, and finding it again.

>>> run = BackgroundRun.start(Path("runs/tuned"), ["train", "runs/tuned/recipe.json"])
>>> run.state(), run.new_lines()
('running', ['checking the dataset'])

and from another program, or after a crash of this one:

>>> run = BackgroundRun.attach(Path("runs/tuned"))
>>> run.stop()                                   # as Ctrl-C: a checkpoint first

What is needed lies in the run's folder: ``run.json`` (which process, since when, which command, how
it ended), ``run.log`` (what it printed) and, for a moment, ``run.stop`` (a wish to end).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from BrainLandmarksLib.cli import PROGRAM
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.files import whole_file
from BrainLandmarksLib.worker.process import environment, interpreter

RUN_FILE, LOG_FILE, STOP_FILE = "run.json", "run.log", "run.stop"

MODULE = "BrainLandmarksTrainLib.background"
LIBRARIES = ("BrainLandmarksLib", "BrainLandmarksTrainLib")

SAME_START_S = 2.0
"""Two processes of one number that started farther apart than this are not the same; clocks are
corrected now and then."""

STOPPED = 130
"""Exit code of a command that was asked to stop."""


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
            log = (folder / LOG_FILE).open("ab")
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error.strerror}; choose another folder."
            ) from None
        variables = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = (
                subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            )
        else:  # no signal to our group reaches it, and no terminal is its own
            options["start_new_session"] = True
        with log:
            began = log.tell()
            child = subprocess.Popen(
                [interpreter(), "-m", MODULE, str(folder), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment(*LIBRARIES), **variables},
                **options,
            )
        run = cls(folder, child)
        run._read = began
        try:
            run._announce(arguments)
        except UserError:
            run._end(child.pid)
            raise
        return run

    def _announce(self, arguments: Sequence[str]) -> None:
        """Say that it runs before it does so itself: until Python has started takes seconds."""
        import psutil

        assert self._child is not None
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by now, or begun to tell
            about = first_words(self._child.pid, arguments)
            if self.about.get("pid") != self._child.pid:
                write_run(self.folder / RUN_FILE, about)

    @classmethod
    def attach(cls, folder: Path) -> BackgroundRun | None:
        """The run that a folder tells of, whether it still runs or not; None if it tells of none.

        What it printed so far comes with the first `new_lines`.
        """
        run = cls(folder)
        return run if run.about else None

    @property
    def about(self) -> Mapping[str, Any]:
        """What the run file says; empty until it is there."""
        try:
            data = json.loads((self.folder / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def state(self) -> str:
        """running, finished, stopped, failed, or lost (killed: it can be started again).

        A stopped or lost training goes on from its last checkpoint with the same command.
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
        if code is None:  # it could not say how it ended; of a child its parent knows a little
            crashed = self._child is not None and (self._child.poll() or 0) > 0
            return "failed" if crashed else "lost"
        return {0: "finished", STOPPED: "stopped"}.get(code, "failed")

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
        """End it and all it started, at once; its last checkpoint stays."""
        about = self.about
        if about and self._alive(about):
            self._end(about["pid"])

    def _end(self, number: int) -> None:
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(number)
            family = [process, *process.children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(family, timeout=5.0)
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
        return whole.decode("utf-8", "replace").splitlines()

    def _alive(self, about: Mapping[str, Any]) -> bool:
        """Whether the process of the run file is there, and is no other that got its number."""
        import psutil

        if self._child is not None:
            self._child.poll()  # or it would stay as a zombie
        try:
            process = psutil.Process(int(about["pid"]))
            same = abs(process.create_time() - float(about["created"])) < SAME_START_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
            return False
        except psutil.AccessDenied:  # of another user: not ours
            return False


def first_words(pid: int, arguments: Sequence[str]) -> dict[str, Any]:
    """What a run file says of a process while it runs.

    Number and start (seconds since 1970) together name the process.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    import psutil

    return {
        "pid": pid,
        "created": psutil.Process(pid).create_time(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "command": shlex.join([PROGRAM, *arguments]),
        "exit": None,
    }


def write_run(path: Path, about: Mapping[str, Any]) -> None:
    """Write a run file.

    Raises:
        UserError: it cannot be written.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
