"""Starting a process that can be ended together with all it started, and never outlives us."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

from BrainLandmarksLib.worker import last_words
from BrainLandmarksLib.worker.last_words import Ending

END_S = 5.0
"""How long a process that was ended may take to be gone."""

LINE_BY_LINE = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
"""Environment with which Python prints line by line and in UTF-8, whatever the system's habits."""

LIBRARIES = ("BrainLandmarksLib", "BrainLandmarksTrainLib")
"""The libraries that have commands."""

CHILD = "BrainLandmarksLib.cli.child"
"""The module that runs a command in a process of its own."""

BACKGROUND = "--background"
"""Its option, before the folder of a run that outlives this program."""


def interpreter() -> str:
    """The Python to start a process with: Slicer's own inside Slicer, else the one that runs."""
    return shutil.which("PythonSlicer") or sys.executable


def environment(*libraries: str) -> dict[str, str]:
    """This process' environment, with the folders of libraries on Python's path.

    Inside Slicer a module's folder is on the path of that process only. Libraries that are not
    there are left out.
    """
    folders = []
    for library in libraries:
        spec = find_spec(library)
        if spec is not None and spec.origin is not None:
            folders.append(str(Path(spec.origin).resolve().parents[1]))
    old = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*dict.fromkeys(folders), *([old] if old else [])])
    return {**os.environ, "PYTHONPATH": path}


def command_environment() -> dict[str, str]:
    """The environment of a command in a process of its own."""
    return {**environment(*LIBRARIES), **LINE_BY_LINE}


def own_group() -> dict[str, Any]:
    """Options of `subprocess.Popen` for a process that no signal to our group reaches."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}  # nor is a terminal its own


def kill_family(pid: int) -> None:
    """End a process that leads a group of its own, and all it started; its launcher with it."""
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            subprocess.run(
                ["taskkill", "/T", "/F", "/PID", str(pid)],
                check=False,
                capture_output=True,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
        return
    with contextlib.suppress(OSError):
        group = os.getpgid(pid)
        if group == os.getsid(pid) and group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
        else:  # started by hand, in a group with others
            os.kill(pid, signal.SIGKILL)


class ProcessTree:
    """A child process and its descendants, with pipes for all three streams.

    PythonSlicer is a launcher: the interpreter is its child, and ending the launcher alone would
    leave the interpreter computing. So on POSIX the child leads a session of its own, and its
    process group is ended; on Windows it lives in a job object that Windows ends with the last
    handle to it, that is with this process at the latest. (On POSIX the worker sees the end of its
    standard input when this process is gone, and leaves by itself.)

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        self._words = _new_file()
        variables = dict(os.environ if environment is None else environment)
        if self._words is not None:
            variables[last_words.VARIABLE] = str(self._words)
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
                **own_group(),
            )
        except OSError:
            self._forget()
            raise
        self._ending: Ending | None = None
        self._job: Any = None
        if sys.platform == "win32":
            self._job = _job_with(self._process)
        self.stdin = cast("BinaryIO", self._process.stdin)
        self.stdout = cast("BinaryIO", self._process.stdout)
        self.stderr = cast("BinaryIO", self._process.stderr)

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, or None while it runs; minus the signal's number if one ended it."""
        ending = self.ending()
        return None if ending is None else ending.code

    def ending(self) -> Ending | None:
        """How it ended, or None while it runs."""
        code = self._process.poll()
        if code is None or (self._words is not None and last_words.alive(self._words)):
            return None
        if self._ending is None:
            self._ending = last_words.ending(self._words, code)
        return self._ending

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, or None if it still runs after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        while (code := self.poll()) is None and time.monotonic() < end:
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """End the child and all it started, at once."""
        if sys.platform == "win32":
            if self._job is not None:
                _end_job(self._job)
            else:
                kill_family(self.pid)
        else:
            # The group outlives its leader, so this also ends what a crashed child left behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._process.kill()
        self.wait(END_S)

    def close(self) -> None:
        """Close the pipes; reading threads end. Its last words are known, and go as well."""
        self.ending()
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        self._forget()

    def _forget(self) -> None:
        if self._words is not None:
            with contextlib.suppress(OSError):
                self._words.unlink()
            self._words = None


def _new_file() -> Path | None:
    """An empty file for last words; None where there is no place for it."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="brainlandmarks-", suffix=".words")
    except OSError:
        return None
    os.close(descriptor)
    return Path(path)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _KILL_ON_JOB_CLOSE = 0x2000
    _EXTENDED_LIMIT_INFORMATION = 9
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
    _kernel32.SetInformationJobObject.argtypes = [
        wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD,
    ]  # fmt: skip
    _kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    _kernel32.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]

    class _BasicLimits(ctypes.Structure):
        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        ]

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = [
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    def _job_with(process: subprocess.Popen[bytes]) -> Any:
        """A job object that holds the process and ends it with its last handle; None if refused."""
        job = _kernel32.CreateJobObjectW(None, None)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
        ready = job and _kernel32.SetInformationJobObject(
            job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        if ready and _kernel32.AssignProcessToJobObject(job, int(process._handle)):  # type: ignore[attr-defined]
            return job
        return None

    def _end_job(job: Any) -> None:
        _kernel32.TerminateJobObject(job, 1)
