"""Every scan in every condition: found against true landmarks, in any number of processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.network.model_files import model_identity
from BrainLandmarksLib.processes import process_pool

from .conditions import FAMILIES, Family, Strength
from .results import CLEAN, Measurement, Results
from .scans import Scan, Scans

MEASURED_FILE = "measured.jsonl"
"""Settings in the first line, then a measurement a line: what a stopped command goes on from."""

OnScan = Callable[[int, int, str], None]
"""Called with the number of tasks done, of all, and the name of the next."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    >>> plan = Plan("brain88", DatasetScans(Path("oasis"), "test"), seed=4)

    Args:
        model: Name of a shipped model or a model folder.
        scans: The scans; all conditions are made of the same ones.
        seed: What the corruptions are drawn from.
        families: Conditions; those that need label maps are left out where there are none.
        quality: One of `detection.QUALITIES`.
        device: As for `detection.Detector`.
    """

    model: str
    scans: Scans
    seed: int = 0
    families: tuple[Family, ...] = FAMILIES
    quality: str = "standard"
    device: str = "auto"

    @property
    def usable(self) -> tuple[Family, ...]:
        """The families that these scans can be put into."""
        return tuple(f for f in self.families if self.scans.rendered or not f.synthetic)

    @property
    def settings(self) -> dict[str, Any]:
        """What the measurements depend on, plain JSON values."""
        _, model = model_identity(self.model)
        return {
            "model": model,
            "scans": list(self.scans.names),
            "content": self.scans.content,
            "rendered": self.scans.rendered,
            "seed": self.seed,
            "quality": self.quality,
        }


def measure(
    plan: Plan,
    folder: Path,
    *,
    workers: int | None = None,
    on_scan: OnScan = lambda done, total, name: None,
) -> Results:
    """Detect the landmarks of every scan in every condition.

    What is measured is kept in the folder (`MEASURED_FILE`) as it comes; the same plan goes on
    from there.

    Args:
        workers: Processes; by default one for each processor, and no more than there are scans.

    Raises:
        UserError: a scan cannot be read, or the folder holds measurements of another plan.
    """
    names = plan.scans.names
    if not names:
        raise UserError("there are no scans to measure; choose another split or other heads.")
    known = _read(folder / MEASURED_FILE, plan.settings)
    done = {(m.scan, m.family, m.strength) for m in known}
    tasks = []
    for number, name in enumerate(names):
        for family in (None, *plan.usable):
            left = [s for s in _strengths(family) if (name, _name(family), s) not in done]
            if left:
                tasks.append((number, family, tuple(left)))
    results = _all(plan, tasks, workers)
    for count, (number, family, _) in enumerate(tasks):
        on_scan(count, len(tasks), f"{names[number]}, {family.title if family else CLEAN}")
        found = next(results)
        known += found
        _append(folder / MEASURED_FILE, found)
    on_scan(len(tasks), len(tasks), "")
    return Results.of(known, names, plan.usable)


def _strengths(family: Family | None) -> tuple[Strength, ...]:
    return ("",) if family is None else family.strengths


def _name(family: Family | None) -> str:
    return CLEAN if family is None else family.name


def _read(path: Path, settings: dict[str, Any]) -> list[Measurement]:
    """What is measured already; the file is there afterwards, without what was half-written.

    Raises:
        UserError: it holds measurements of another plan, or the folder cannot be written to.
    """
    found: list[Measurement] = []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            same = json.loads(lines[0]) == settings
        except (IndexError, ValueError):
            same = False
        if not same:
            raise UserError(
                f"{path} holds measurements of another model, other scans or settings; choose "
                "another folder or remove it."
            )
        for line in lines[1:]:
            try:
                found.append(Measurement.from_dict(json.loads(line)))
            except (KeyError, TypeError, ValueError):
                break  # the process was killed in the middle of this line
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        lines = [json.dumps(settings), *(json.dumps(m.to_dict()) for m in found)]
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def _append(path: Path, found: Sequence[Measurement]) -> None:
    """Keep measurements.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(m.to_dict()) + "\n" for m in found)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; make room and give the command again, it goes "
            "on from what is there."
        ) from error


Task = tuple[int, Family | None, tuple[Strength, ...]]


def _all(plan: Plan, tasks: Sequence[Task], workers: int | None) -> Iterator[list[Measurement]]:
    """Measurements of the tasks, in their order; in this process with one worker."""
    count = min(workers or os.cpu_count() or 1, len(plan.scans.names), max(len(tasks), 1))
    if count == 1:
        worker = _Worker(plan)
        yield from (worker.do(task) for task in tasks)
        return
    threads = max(1, (os.cpu_count() or 1) // count)
    with process_pool(count, _start, (plan, threads)) as pool:
        yield from pool.map(_do, tasks)


class _Worker:
    """Measures; keeps the model and the last scan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.detector = Detector(plan.model, plan.device)
        self.scan = lru_cache(maxsize=1)(plan.scans.read)

    def do(self, task: Task) -> list[Measurement]:
        number, family, strengths = task
        scan = self.scan(number)
        return [self._measured(number, scan, family, strength) for strength in strengths]

    def _measured(
        self, number: int, scan: Scan, family: Family | None, strength: Strength
    ) -> Measurement:
        if family is not None:
            try:
                scan = varied(scan, family, strength, self.plan.seed, number)
            except UserError as error:
                nothing = (math.nan,) * len(scan.truth)
                note = str(error).rstrip(".")
                return Measurement(scan.name, family.name, strength, nothing, 0, 0, note)
        return self._compared(scan, _name(family), strength)

    def _compared(self, scan: Scan, family: str, strength: Strength) -> Measurement:
        truth = scan.truth.points
        there = ~scan.truth.missing
        note = ""
        try:
            found = self.detector.detect(scan.volume, quality=self.plan.quality).landmarks.points
        except UserError as error:
            found, note = np.full_like(truth, np.nan), str(error).rstrip(".")
        errors = np.linalg.norm(found - truth, axis=1)
        missed = int((there & ~np.isfinite(errors)).sum())
        return Measurement(
            scan.name, family, strength, tuple(map(float, errors)), int(there.sum()), missed, note
        )


def varied(scan: Scan, family: Family, strength: Strength, seed: int, number: int) -> Scan:
    """A scan in a condition; what is drawn depends on the seed, the scan's number and the family.

    Raises:
        UserError: this scan cannot be put into it.
    """
    return family.vary(scan, strength, np.random.default_rng([seed, number, *family.name.encode()]))


_worker: list[_Worker] = []


def _start(plan: Plan, threads: int) -> None:
    """Prepare a worker process."""
    torch.set_num_threads(threads)
    _worker[:] = [_Worker(plan)]


def _do(task: Task) -> list[Measurement]:
    return _worker[0].do(task)
