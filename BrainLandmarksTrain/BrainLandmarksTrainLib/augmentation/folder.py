"""A whole dataset varied: in exact proportion, in parallel, and going on where it stopped."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.dataset import Dataset, Entry, Sample
from BrainLandmarksLib.dataset.dataset import MANIFEST, store
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write, remove_unfinished
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.processes import CONTEXT, process_pool
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.review import Review

from .augment import AugmentWithLandmarks
from .config import AugmentationConfig, augmentation_from_dict
from .contact_sheet import SheetRow, draw_contact_sheet
from .policies import allocate
from .record import Record

SETTINGS_FILE = "augmentation.json"
SHEET_FILE = "contact_sheet.png"
ORIGIN_KEY = "augmentation"
"""Entry of a scan's ``origin`` in the manifest that holds its record."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """One scan to make: of which entry, which copy of it, how, and under which number.

    An original that is only copied has no policy.
    """

    identity: str
    source: Entry
    copy: int = 0
    policy: str = ""
    seed: int = 0


def plan(
    entries: Sequence[Entry],
    config: AugmentationConfig,
    factor: float,
    seed: int,
    originals: Sequence[Entry] = (),
) -> list[Task]:
    """What to make of a dataset; the same arguments give the same plan.

    ``factor`` scans are made of each entry; where that is no whole number, some entries, at random,
    get one more than others. The policies are shared out exactly (`allocate`).

    Args:
        originals: Entries to copy as they are, before the varied ones.
    """
    total = round(len(entries) * factor)
    whole = total // len(entries) if entries else 0
    lucky = np.random.default_rng([seed, 0]).permutation(len(entries))[: total % len(entries)]
    copies = [
        (entry, copy)
        for number, entry in enumerate(entries)
        for copy in range(1, 1 + whole + (number in lucky))
    ]
    policies = allocate(config, total, np.random.default_rng([seed, 1]))
    tasks = [Task(f"{n:04d}", entry) for n, entry in enumerate(originals, start=1)]
    for (entry, copy), policy in zip(copies, policies, strict=True):
        # The seed hangs on the scan, not on its place in the plan.
        state = np.random.SeedSequence([seed, copy, *entry.identity.encode()])
        own = int(state.generate_state(1, np.uint64)[0] >> np.uint64(1))
        tasks.append(Task(f"{len(tasks) + 1:04d}", entry, copy, policy, own))
    return tasks


def augment_dataset(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: AugmentationConfig | None = None,
    *,
    factor: float = 1.0,
    seed: int = 0,
    split: str | None = None,
    with_originals: bool = False,
    workers: int | None = None,
    report: Report = lambda line: None,
) -> Dataset:
    """Write an augmented dataset; the same call again goes on where a stopped one ended.

    >>> augment_dataset("oasis", "oasis_augmented", factor=1.0, seed=3, workers=8)

    The result is the same for any number of workers. Every scan's record is in the manifest, under
    ``origin`` / ``augmentation``; its subject and its split are those of the scan it was made of.
    The settings are kept in ``augmentation.json``, the picture in ``contact_sheet.png``.

    Args:
        source: A dataset folder.
        output: New folder, or one of the same call.
        config: Policies and ranges; the paper's by default.
        factor: Scans to make of each scan; the paper makes 1.
        split: Which scans to vary: "train", ..., or "all"; by default those for training where the
            dataset is split, and all where it is not.
        with_originals: Whether to put all scans of the source into the new dataset as well.
        workers: Processes; by default one for each processor.
        report: Called with a line of progress after each scan.

    Raises:
        UserError: the source cannot be read, the output is of another call or cannot be written,
            or a range makes no sense for an image.
    """
    config = config or AugmentationConfig()
    dataset = Dataset.open(source)
    if not (factor > 0 and math.isfinite(factor)):
        raise UserError(f"the factor must be above 0, not {factor:g}.")
    if Path(output).resolve() == dataset.folder.resolve():
        raise UserError("the output is the dataset itself; choose another folder.")
    chosen = _chosen(dataset, split)
    originals = dataset.entries if with_originals else ()
    tasks = plan(chosen, config, factor, seed, originals)
    if not tasks:
        raise UserError(f"{len(chosen)} heads times {factor:g} is no scan; give a larger --factor.")
    settings = {
        "seed": seed,
        "factor": factor,
        "split": split,
        "with_originals": with_originals,
        "source": fingerprint(dataset),
        "settings": config.to_dict(),
    }
    made = _open_output(Path(output), dataset.protocol, settings)
    present = {entry.identity for entry in made.entries if _is_there(made, entry)}
    open_tasks = [task for task in tasks if task.identity not in present]
    if present:
        report(f"{len(present)} of {len(tasks)} scans are there already")
    try:
        for entry in _made(open_tasks, dataset, made.folder, config, workers):
            made.register(entry)
            report(f"[{len(made)}/{len(tasks)}] {_described(entry)}")
    except BrokenProcessPool:
        raise UserError(
            "a worker was ended by the system, most likely for lack of memory; give fewer "
            "--workers. The same command resumes from here."
        ) from None
    if open_tasks or not (made.folder / SHEET_FILE).exists():
        draw_contact_sheet(list(_sheet_rows(made)), made.folder / SHEET_FILE)
    return made


def records(dataset: Dataset) -> dict[str, Record]:
    """The records of an augmented dataset's scans by identity; copied originals have none.

    Raises:
        UserError: a record is damaged or of a newer version.
    """
    return {
        entry.identity: Record.from_dict(entry.origin[ORIGIN_KEY])
        for entry in dataset.entries
        if ORIGIN_KEY in entry.origin
    }


def settings_of(folder: str | os.PathLike[str]) -> tuple[AugmentationConfig, dict[str, Any]]:
    """What an augmented dataset was made with: policies and ranges, and the other settings.

    Raises:
        UserError: the folder is no augmented dataset, or its settings are damaged.
    """
    path = Path(folder) / SETTINGS_FILE
    if not path.is_file():
        raise UserError(f"{folder} is no augmented dataset: it has no {SETTINGS_FILE}.")
    values = read_json(path, "the settings file")
    try:
        return augmentation_from_dict(values["settings"]), values
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged.") from None


# Which scans --------------------------------------------------------------------------------------


def _chosen(dataset: Dataset, split: str | None) -> list[Entry]:
    if not len(dataset):
        raise UserError(f"the dataset {dataset.folder} is empty; add heads to it first.")
    is_split = any(entry.split for entry in dataset.entries)
    return dataset.of_split(split or ("train" if is_split else "all"))


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the scans and their landmarks: what the plan and the results follow from."""
    parts: list[str | Path] = []
    for entry in dataset.entries:
        parts.append(f"{entry.identity} {entry.image_hash} {entry.subject} {entry.split}\n")
        parts.append(dataset.folder / entry.landmarks)
    return sha256(parts)


def _open_output(folder: Path, protocol: Protocol, settings: dict[str, Any]) -> Dataset:
    path = folder / SETTINGS_FILE
    if (folder / MANIFEST).exists():
        made = Dataset.open(folder, protocol)
        if path.exists():
            _, before = settings_of(folder)
            for name, value in settings.items():
                if before.get(name) != value:
                    raise UserError(
                        f"{folder} was made {_DIFFERENCES[name]}; choose a new folder, or repeat "
                        "the call that made it."
                    )
            for name in ("images", "landmarks"):
                remove_unfinished(folder / name)
            return made
        # Killed between the two files: an empty dataset is as good as none.
        if len(made):
            raise UserError(f"{folder} is a dataset of its own; choose a new folder.")
    else:
        made = Dataset.create(folder, protocol)
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return made


_DIFFERENCES = {
    "seed": "with another seed",
    "factor": "with another factor",
    "split": "of another split",
    "with_originals": "with or without the originals, unlike now",
    "source": "from another state of the dataset",
    "settings": "with other augmentation settings",
}


def _is_there(made: Dataset, entry: Entry) -> bool:
    return all((made.folder / name).is_file() for name in (entry.image, entry.landmarks))


# Making them --------------------------------------------------------------------------------------


def _made(
    tasks: Sequence[Task],
    dataset: Dataset,
    folder: Path,
    config: AugmentationConfig,
    workers: int | None,
) -> Iterator[Entry]:
    """The entries of the tasks, in their order, with their files written."""
    make = partial(_make, source=dataset.folder, output=folder, config=config)
    count = min(workers or os.cpu_count() or 1, len(tasks))
    if count <= 1:
        yield from map(make, tasks)
        return
    # Memory without a lock, which a process that is ended could leave locked.
    stop = CONTEXT.RawValue("b", 0)
    pool = process_pool(count, _start_worker, (stop,))
    try:
        yield from pool.map(make, tasks)
    finally:
        with _undisturbed():
            # After Ctrl-C or an error the scans that wait in the workers' queue are not made.
            stop.value = 1
            pool.shutdown(cancel_futures=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without Ctrl-C: a second one must not leave workers behind that wait for work."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_stopped: Any = None
"""In a worker: shared memory that is 1 when no more scans are wanted."""


def _start_worker(stop: Any) -> None:
    """One thread for each worker; Ctrl-C is the parent's business, but its end is the worker's."""
    import SimpleITK as sitk

    global _stopped
    _stopped = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _leave_with_parent() -> None:
    # A parent that was killed cannot tell its workers to go; they would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(task: Task, *, source: Path, output: Path, config: AugmentationConfig) -> Entry:
    """Make one scan and write its files.

    Raises:
        CancelledError: in a worker, when no more scans are wanted.
    """
    if _stopped is not None and _stopped.value:
        raise CancelledError
    sample = _read(source, task.source.identity)
    volume, landmarks = sample.volume, sample.review.current
    origin = dict(task.source.origin)
    if task.policy:
        varied = AugmentWithLandmarks(config)(volume, landmarks, task.seed, task.policy)
        volume, landmarks = varied.volume, varied.landmarks
        origin = {
            "source": {"identity": task.source.identity, "image_hash": task.source.image_hash},
            "source_origin": origin,
            "copy": task.copy,
            ORIGIN_KEY: varied.record.to_dict(),
        }
    return store(
        output,
        task.identity,
        volume,
        Review.of(landmarks, task.source.who),
        # Copies of one person's scan must stay together when the dataset is split.
        subject=task.source.subject or f"scan-{task.source.identity}",
        split=task.source.split,
        origin=origin,
    )


@lru_cache(maxsize=1)
def _read(source: Path, identity: str) -> Sample:
    """A scan of the source; the last one is kept, because its copies follow one another."""
    dataset = Dataset.open(source)
    return dataset.read(next(e for e in dataset.entries if e.identity == identity))


# Telling ------------------------------------------------------------------------------------------


def _described(entry: Entry) -> str:
    if ORIGIN_KEY not in entry.origin:
        return f"{entry.identity}: copied"
    record = Record.from_dict(entry.origin[ORIGIN_KEY])
    steps = " + ".join(step.transform for step in record.steps)
    text = f"{entry.identity}: {record.policy}, {steps}, of {entry.origin['source']['identity']}"
    for labels, word in (
        (record.outside, "left the image"),
        (record.folded, "in a fold"),
        (record.gone, "tissue gone"),
    ):
        if labels:
            text += f"; {word}: {', '.join(labels)}"
    return text


def summary(dataset: Dataset) -> str:
    """How many scans of which policy, and what became of the landmarks, in two lines."""
    made = records(dataset)
    policies = Counter(record.policy for record in made.values())
    shares = ", ".join(f"{count} {name}" for name, count in sorted(policies.items()))
    outside = sum(len(record.outside) for record in made.values())
    folded = sum(len(record.folded) for record in made.values())
    copied = len(dataset) - len(made)
    lines = [f"{len(made)} scans made ({shares})" + (f", {copied} copied" if copied else "")]
    total = len(made) * len(dataset.protocol)
    gone = sum(len(record.gone) for record in made.values())
    tail = f", {gone} have lost their tissue" if gone else ""
    lines.append(
        f"of their {total} landmarks {outside} left the image, {folded} lie in folds{tail}"
    )
    return "\n".join(lines)


def _sheet_rows(dataset: Dataset) -> Iterator[SheetRow]:
    """One scan for each kind of transform, alone where there is one, in the order of Table II."""
    config, _ = settings_of(dataset.folder)
    made = records(dataset)
    for name in (*config.patient, *config.machine, *config.abnormal):
        with_it = [i for i, r in made.items() if name in [step.transform for step in r.steps]]
        if with_it:
            identity = min(with_it, key=lambda i: len(made[i].steps))
            entry = next(e for e in dataset.entries if e.identity == identity)
            sample = dataset.read(entry)
            yield SheetRow.of(made[identity], sample.volume, sample.review.current, identity)
