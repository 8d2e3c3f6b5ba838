"""Splitting a dataset into training, validation and test heads, by subject.

The paper takes 30 of 234 images for validation and 50 for the test (section III-B). Scans of one
person never come into two splits: a network that has met a head recognises it.

>>> dataset = Dataset.open("my_dataset")
>>> split_dataset(dataset, seed=1)
{'train': 154, 'validation': 30, 'test': 50}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.dataset import SPLITS
from BrainLandmarksLib.errors import UserError

VALIDATION_SHARE = 30 / 234
TEST_SHARE = 50 / 234
"""The paper's shares; of its 234 images they are its 30 and 50."""


def split_dataset(
    dataset: Dataset,
    *,
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    seed: int = 0,
    again: bool = False,
    last: bool = False,
) -> dict[str, int]:
    """Put every head into a split and store that in the manifest.

    Heads that are in a split stay there, and other scans of the same people join them; so heads
    that were added later can be split without a test head becoming a training head.

    Args:
        validation, test: Number of heads, or, below 1, the share of all. Whole subjects are taken,
            so there may be a head less.
        seed: What is drawn depends on it and on the subjects alone.
        again: Forget the present splits.
        last: Take the last subjects by name instead of drawing; the very last are the test's.

    Returns:
        Number of heads in each split.

    Raises:
        UserError: there are too few subjects, or the numbers leave nothing to train on.
    """
    with dataset.locked():
        return _split(dataset, validation, test, seed, again, last)


def _split(
    dataset: Dataset, validation: float, test: float, seed: int, again: bool, last: bool
) -> dict[str, int]:
    entries = [replace(e, split="") if again else e for e in dataset.entries]
    people: dict[str, list[Entry]] = {}
    for entry in entries:
        people.setdefault(entry.person, []).append(entry)
    wanted = {
        "test": _number(test, len(entries), "test"),
        "validation": _number(validation, len(entries), "validation"),
    }
    needed = 1 + sum(1 for count in wanted.values() if count)
    if len(people) < needed:
        raise UserError(
            f"{dataset.folder} has scans of {len(people)} subject{'s'[: len(people) != 1]} and "
            f"{needed} splits need {needed} at least; add heads of other subjects."
        )
    split_of = {person: _present(person, scans) for person, scans in people.items()}
    have = Counter(split_of[entry.person] for entry in entries)
    free = sorted(person for person, split in split_of.items() if not split)
    drawn = np.random.default_rng(seed).permutation(len(free))
    order = free[::-1] if last else [free[k] for k in drawn]
    for split, count in wanted.items():
        taken = _draw(order, people, count - have[split], force=count > 0 and not have[split])
        for person in taken:
            split_of[person] = split
        order = [person for person in order if person not in taken]
    for person in order:
        split_of[person] = "train"
    result = [replace(entry, split=split_of[entry.person]) for entry in entries]
    counts = Counter(entry.split for entry in result)
    if not counts["train"]:
        raise UserError(
            f"{wanted['validation']} heads for validation and {wanted['test']} for the test leave "
            f"nothing of {len(entries)} to train on; ask for fewer."
        )
    note = {
        "what": "split", "seed": seed, "validation": validation, "test": test, "again": again,
        "last": last,
    }  # fmt: skip
    dataset.update(result, note)
    return {split: counts[split] for split in SPLITS}


def _number(value: float, total: int, split: str) -> int:
    if not math.isfinite(value) or value < 0 or (value >= 1 and value != int(value)):
        raise UserError(
            f"--{split} is a number of heads or, below 1, a share of all; {value:g} is neither."
        )
    return int(value) if value >= 1 else round(value * total) or int(value > 0)


def _present(person: str, scans: Sequence[Entry]) -> str:
    splits = {scan.split for scan in scans if scan.split}
    if len(splits) > 1:
        raise UserError(
            f"scans of {person} are in several splits ({', '.join(sorted(splits))}); split the "
            "dataset again with --again."
        )
    return splits.pop() if splits else ""


def _draw(
    order: Sequence[str], people: dict[str, list[Entry]], count: int, *, force: bool
) -> list[str]:
    """The first people in order whose scans fit into a number of heads; one at least if forced."""
    taken: list[str] = []
    for person in order:
        if len(people[person]) <= count:
            taken.append(person)
            count -= len(people[person])
    if force and not taken and order:
        taken = [min(order, key=lambda person: len(people[person]))]
    return taken
