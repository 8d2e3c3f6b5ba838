"""A second person's annotations of a dataset, beside the first: ``raters/NAME/0001.mrk.json``.

>>> dataset = Dataset.open("my_dataset")
>>> keep_rating(dataset, "BC", "0001", review)
>>> ratings_of(dataset, "BC").distances().mean()      # mm between the two
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.agreement.ratings import Ratings
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.review import Review, read_review, write_review

FOLDER = "raters"
FIRST = "first rater"

_NAME = re.compile(r"\w[\w.-]*")


def raters_of(dataset: Dataset) -> list[str]:
    """Names of the people whose annotations lie beside the dataset's own, sorted."""
    folder = dataset.folder / FOLDER
    return sorted(path.name for path in folder.glob("*") if path.is_dir())


def rating_file(dataset: Dataset, rater: str, identity: str) -> Path:
    """The file of a person's annotation of an entry; it may not exist.

    Raises:
        UserError: the name cannot be that of a folder.
    """
    if not _NAME.fullmatch(rater):
        raise UserError(
            f"{rater!r} cannot name a rater; use letters, digits, '-' and '_', such as initials."
        )
    return dataset.folder / FOLDER / rater / f"{identity}.mrk.json"


def read_rating(
    dataset: Dataset, rater: str, identity: str
) -> tuple[Review, dict[str, Any]] | None:
    """A person's annotation of an entry and its source; None if there is none yet.

    Raises:
        UserError: the file is damaged, or the name cannot be a rater's.
    """
    path = rating_file(dataset, rater, identity)
    return read_review(path, dataset.protocol) if path.is_file() else None


def keep_rating(
    dataset: Dataset,
    rater: str,
    identity: str,
    review: Review,
    source: Mapping[str, Any] | None = None,
) -> Path:
    """Write a person's annotation of an entry; one that is there is replaced.

    Raises:
        UserError: it cannot be written, or the name cannot be a rater's.
    """
    path = rating_file(dataset, rater, identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path.parent}: {error.strerror}.") from None
    write_review(path, review, source)
    return path


def ratings_of(dataset: Dataset, rater: str) -> Ratings:
    """The first and the second person's annotations of the entries that both have annotated.

    Raises:
        UserError: there is none, or a file is damaged.
    """
    folder = rating_file(dataset, rater, "").parent
    heads, points = [], []
    for entry in dataset.entries:
        path = folder / f"{entry.identity}.mrk.json"
        if path.is_file():
            heads.append(entry.identity)
            first = dataset.read_landmarks(entry).current.points
            points.append([first, read_landmarks(path, dataset.protocol).points])
    if not heads:
        raise UserError(
            f"{rater} has annotated no case of {dataset.folder.name} yet; load one blinded first."
        )
    left = tuple(e.identity for e in dataset.entries if e.identity not in heads)
    return Ratings(dataset.protocol, tuple(heads), (FIRST, rater), np.array(points), left)


def mean_distances(ratings: Ratings) -> dict[str, float]:
    """Mean distance between the people for each head, mm; NaN where they share no landmark."""
    return {
        head: float(np.nanmean(row)) if np.isfinite(row).any() else float("nan")
        for head, row in zip(ratings.heads, ratings.distances(), strict=True)
    }
