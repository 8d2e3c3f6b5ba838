"""Work for processes that import no tests: some of it kills its worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from BrainLandmarksLib.cohort.work import Job, Outcome, do

DEATHS = {"sub-01_T1w": 2, "sub-02_T1w": 3}
"""How many workers die of a scan, before one does it; the others are not concerned."""


def deaths(output: Path, name: str = "*") -> int:
    """How many workers have died of a scan, or of all."""
    return len(list(output.glob(f"death-{name}-*")))


def sometimes(job: Job) -> Outcome:
    """Die as often as `DEATHS` says, then do the work."""
    name = Path(job.scan.path).name.partition(".")[0]
    if deaths(Path(job.output), name) < DEATHS.get(name, 0):
        _die(job, name)
    return do(job)


def always(job: Job) -> Outcome:
    """Die of every scan."""
    _die(job, "any")
    raise AssertionError("it lives")


def square(number: int) -> tuple[int, int]:
    """The square, and which process has computed it; 3 is an error."""
    if number == 3:
        raise ValueError("three")
    return number * number, os.getpid()


def _die(job: Job, name: str) -> None:
    (Path(job.output) / f"death-{name}-{os.getpid()}").touch()
    os.kill(os.getpid(), signal.SIGKILL)
