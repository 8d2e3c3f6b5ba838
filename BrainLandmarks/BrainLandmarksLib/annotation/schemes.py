"""Label schemes: what the numbers of a segmentation mean, as data.

Every program that segments heads numbers its structures in its own way. A scheme is a JSON file
that says which of its numbers is which structure, and on which side. Inside the library a structure
has one number, FreeSurfer's, so the rules read all of them alike.

>>> scheme = load_scheme("dlmuse")
>>> scheme.canonical(np.array([95, 47, 48])).tolist()    # callosum, right and left hippocampus
[251, 53, 17]
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError, nearest
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.protocol.structures import MIDLINE, PAIRED

AUTO = "auto"
"""The name that stands for "find out by the numbers that are there"."""

OTHER = "other"
"""What a scheme knows and no rule needs; 0 inside the library, like the background."""

LARGEST_NUMBER = 2**20
_UNKNOWN, _LEFT_OR_RIGHT = -1, -2
_SIDES = ("L", "R")


@dataclass(frozen=True)
class SchemeEntry:
    """One line of a scheme: these numbers are this structure.

    ``side`` is "L" or "R"; None for a structure without sides, and for numbers that name a paired
    structure without its side: their voxels go to the nearer of its two halves.
    """

    structure: str
    side: str | None
    labels: tuple[int, ...]

    @property
    def target(self) -> int:
        """The library's number; negative where it depends on the place."""
        if self.structure == OTHER:
            return 0
        if self.structure in MIDLINE:
            return MIDLINE[self.structure]
        if self.side is None:
            return _LEFT_OR_RIGHT - list(PAIRED).index(self.structure)
        return PAIRED[self.structure][_SIDES.index(self.side)]


@dataclass(frozen=True)
class Scheme:
    """The numbers of one family of segmentations.

    Example::

        scheme = load_scheme("gif")
        labels = scheme.canonical(parcellation)      # the library's numbers
        scheme.unknown(parcellation)                 # numbers that it does not know
    """

    name: str
    title: str
    entries: tuple[SchemeEntry, ...]
    aliases: tuple[str, ...] = ()

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Scheme's number -> library's number, int32; negative where there is none or two."""
        known = [label for entry in self.entries for label in entry.labels]
        table = np.full(max(known) + 2, _UNKNOWN, np.int32)
        for entry in self.entries:
            table[list(entry.labels)] = entry.target
        return table

    def unknown(self, labels: np.ndarray) -> tuple[int, ...]:
        """The numbers in an array that the scheme does not know, sorted; 0 is always known."""
        return tuple(n for n in numbers(labels) if n != 0 and self._look_up(n) == _UNKNOWN)

    def canonical(self, labels: np.ndarray, spacing: np.ndarray | None = None) -> np.ndarray:
        """The library's numbers for the scheme's, int32, of the same shape; unknown ones become 0.

        ``spacing`` (3,) mm is the voxel size of a 3-D array, by which the nearer side is found for
        numbers that leave it open (white-matter lesions, the vermis); all alike if not given.
        """
        labels = np.asarray(labels)
        last = len(self.table) - 1  # is unknown
        index = np.where((labels >= 0) & (labels < last), labels, last)
        out = self.table[index]
        for k, pair in enumerate(PAIRED.values()):
            undecided = out == _LEFT_OR_RIGHT - k
            if undecided.any():
                out[undecided] = _nearer(out, undecided, pair, spacing)
        out[out < 0] = 0
        return out

    def _look_up(self, number: int) -> int:
        return int(self.table[number]) if 0 <= number < len(self.table) else _UNKNOWN


def numbers(labels: np.ndarray) -> dict[int, int]:
    """The numbers in an array -> how many voxels carry them, in ascending order."""
    labels = np.asarray(labels)
    if not labels.size:
        return {}
    if labels.min() >= 0 and labels.max() <= LARGEST_NUMBER:
        counts = np.bincount(labels.ravel())
        return {int(n): int(counts[n]) for n in np.flatnonzero(counts)}
    values, counts = np.unique(labels, return_counts=True)
    return {int(n): int(count) for n, count in zip(values, counts)}


def _nearer(
    labels: np.ndarray, undecided: np.ndarray, pair: tuple[int, int], spacing: np.ndarray | None
) -> np.ndarray:
    """Left or right number for each undecided voxel: that of the nearest voxel of the structure."""
    if not np.isin(labels, pair).any():
        return np.zeros(int(undecided.sum()), np.int32)
    for margin in (12, max(labels.shape)):
        box = tuple(
            slice(max(0, s.start - margin), s.stop + margin)
            for s in ndimage.find_objects(undecided.astype(np.uint8))[0]
        )
        part = labels[box]
        sided = np.isin(part, pair)
        if sided.any():
            break
    foot = ndimage.distance_transform_edt(
        ~sided, sampling=spacing, return_distances=False, return_indices=True
    )
    return part[tuple(axis[undecided[box]] for axis in foot)]


def scheme_names() -> list[str]:
    """Names of the schemes that come with the library, sorted."""
    return sorted(path.stem for path in _folder().glob("*.json"))


def load_scheme(name_or_path: str | os.PathLike[str]) -> Scheme:
    """A shipped scheme by its name or an alias ("freesurfer", "aseg", "gif"), or one from a file.

    Raises:
        UserError: there is no such scheme or file, or the file is no scheme.
    """
    text = os.fspath(name_or_path)
    shipped = {name: _shipped(name) for name in scheme_names()}
    names = dict(shipped)
    for scheme in shipped.values():
        names |= dict.fromkeys(scheme.aliases, scheme)
    if text.casefold() in names:
        return names[text.casefold()]
    path = Path(text)
    if path.suffix.lower() == ".json" or path.is_file():
        return _read(path)
    similar = nearest(text, names, 0.6)
    hint = f" (did you mean {similar}?)" if similar else ""
    raise UserError(
        f"there is no label scheme called {text!r}{hint}; give {AUTO}, {', '.join(shipped)} or the "
        "path of a .json file."
    )


def detect_scheme(labels: np.ndarray) -> Scheme:
    """The shipped scheme that the numbers of a label map belong to.

    Every scheme reads the map; the one under which it looks most like a head wins: most voxels
    with a known number, most structures present, much white and as much grey matter.

    Raises:
        UserError: half of the labelled voxels or more carry numbers that no scheme has.
    """
    counts = numbers(labels)
    counts.pop(0, None)
    if not counts:
        return _shipped("freesurfer")
    best, likeness = max(
        ((scheme, _likeness(scheme, counts)) for scheme in map(_shipped, scheme_names())),
        key=lambda pair: sum(pair[1]),
    )
    if likeness[0] < 0.5:
        raise UserError(
            "most numbers of the label map belong to none of the known schemes "
            f"({', '.join(scheme_names())}): name its scheme, or a file that describes it."
        )
    return best


def _likeness(scheme: Scheme, counts: dict[int, int]) -> tuple[float, ...]:
    """How well a scheme explains the numbers of a map, several shares of 0 to 1."""
    known = {n: count for n, count in counts.items() if scheme._look_up(n) != _UNKNOWN}
    voxels: dict[int, int] = {}
    for number, count in known.items():
        target = scheme._look_up(number)
        voxels[target] = voxels.get(target, 0) + count
    anatomy = {target: count for target, count in voxels.items() if target > 0}
    expected = {number for pair in PAIRED.values() for number in pair}
    white, grey = (
        sum(anatomy.get(n, 0) for n in PAIRED[name])
        for name in ("cerebral white matter", "cerebral cortex")
    )
    total = max(1, sum(anatomy.values()))
    return (
        sum(known.values()) / sum(counts.values()),
        len(known) / len(counts),
        len(expected & anatomy.keys()) / len(expected),
        2 * min(white, grey) / total,
    )


def _folder() -> Path:
    return resources.folder("schemes")


@functools.cache
def _shipped(name: str) -> Scheme:
    return _read(_folder() / f"{name}.json")


def _read(path: Path) -> Scheme:
    data = read_json(path, "the label scheme")
    try:
        return _build(data, path.stem)
    except _Wrong as problem:
        raise UserError(f"the label scheme {path} is not valid: {problem}.") from problem


class _Wrong(Exception):
    """What is wrong with a scheme, as half a sentence."""


def _build(data: Any, name: str) -> Scheme:
    if not isinstance(data, dict) or not isinstance(data.get("structures"), list):
        raise _Wrong('it has no list "structures"')
    entries = tuple(_entry(item, k) for k, item in enumerate(data["structures"], start=1))
    seen: dict[int, str] = {}
    for entry in entries:
        for label in entry.labels:
            if label in seen:
                raise _Wrong(f"the number {label} is given to {seen[label]} and {entry.structure}")
            seen[label] = entry.structure
    if not seen:
        raise _Wrong("it names no structure")
    aliases = data.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise _Wrong('"aliases" is no list of names')
    return Scheme(
        str(data.get("name", name)), str(data.get("title", name)), entries, tuple(aliases)
    )


def _entry(item: Any, position: int) -> SchemeEntry:
    if not isinstance(item, dict):
        raise _Wrong(f"entry {position} is no object with a structure and its labels")
    structure, side = item.get("structure"), item.get("side")
    if structure not in (*PAIRED, *MIDLINE, OTHER):
        similar = nearest(str(structure), (*PAIRED, *MIDLINE, OTHER))
        raise _Wrong(
            f"entry {position} names the unknown structure {structure!r}, did you mean {similar!r}?"
        )
    if side not in (None, *_SIDES):
        raise _Wrong(f'the side of {structure} is {side!r}; it is "L", "R" or left out')
    if side is not None and structure not in PAIRED:
        raise _Wrong(f"{structure} has no sides")
    labels = item.get("labels")
    if not isinstance(labels, list):
        raise _Wrong(f'{structure} has no list "labels"')
    return SchemeEntry(
        structure, side, tuple(n for part in labels for n in _range(part, structure))
    )


def _range(part: Any, structure: str) -> Iterator[int]:
    """Numbers of one part of a label list: a number, [first, last] or [first, last, step]."""
    ends = part if isinstance(part, list) else [part, part]
    whole = len(ends) in (2, 3) and all(type(n) is int for n in ends)
    first, last, step = (*ends, 1)[:3] if whole else (0, -1, 1)
    if not (0 <= first <= last <= LARGEST_NUMBER and step > 0):
        raise _Wrong(
            f"{part!r} in the labels of {structure} is neither a whole number from 0 on nor a "
            "range [first, last] or [first, last, step]"
        )
    yield from range(first, last + 1, step)
