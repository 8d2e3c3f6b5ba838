"""The classes of a parcellation network, and what a label map knows of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.annotation.schemes import MIDLINE, PAIRED

#: What a map without a structure calls its voxels: what the structure is a part of.
_WHOLE = {
    MIDLINE["corpus callosum"]: PAIRED["cerebral white matter"],
    MIDLINE["pons"]: (MIDLINE["brain stem"],),
}


@dataclass(frozen=True)
class Classes:
    """A class for each of some structures.

    >>> classes = Classes.of(["hippocampus", "brain stem"])
    >>> classes.structures, classes.names
    ((0, 17, 53, 16), ('background', 'hippocampus L', 'hippocampus R', 'brain stem'))

    Args:
        structures: The library's numbers, first 0.
    """

    structures: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Classes:
        """Classes of structures by their names, paired ones by side."""
        pairs = [PAIRED[name] if name in PAIRED else (MIDLINE[name],) for name in names]
        return cls((0, *(number for pair in pairs for number in pair)))

    def __len__(self) -> int:
        return len(self.structures)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each class, with its side."""
        names = {0: "background"} | {number: name for name, number in MIDLINE.items()}
        for name, (left, right) in PAIRED.items():
            names |= {left: f"{name} L", right: f"{name} R"}
        return tuple(names[number] for number in self.structures)

    @functools.cached_property
    def mirrored(self) -> np.ndarray:
        """The class of the other side of each class, (C,)."""
        other = {a: b for pair in PAIRED.values() for a, b in (pair, pair[::-1])}
        return np.array([self._index[other.get(n, n)] for n in self.structures])

    @functools.cached_property
    def parts(self) -> np.ndarray:
        """Classes that are a part of another, of which segmentations differ in where it ends."""
        return np.array([k for k, n in enumerate(self.structures) if n in _WHOLE], dtype=int)

    def index(self, labels: np.ndarray) -> np.ndarray:
        """Class of each of the library's numbers, uint8; background for all that have none."""
        table = np.zeros(max(int(labels.max(initial=0)), *self.structures) + 1, np.uint8)
        table[list(self.structures)] = np.arange(len(self))
        return table[labels]

    def whole(self, number: int) -> tuple[int, ...]:
        """Classes that a structure counts to where it has none of its own."""
        return tuple(self._index[n] for n in _WHOLE.get(number, ()) if n in self._index)

    def readings(self, present: Iterable[int]) -> np.ndarray:
        """What each label of a map with some structures may be.

        A structure that the map does not have lies in what it is a part of, or else in the
        background.

        Args:
            present: The library's numbers in the map.

        Returns:
            (C, C) bool: row the class that the map gives, column what it may be.
        """
        readings = np.eye(len(self), dtype=bool)
        for missing in set(self.structures) - {0, *present}:
            for label in self.whole(missing) or (0,):
                readings[label, self._index[missing]] = True
        return readings

    @functools.cached_property
    def _index(self) -> dict[int, int]:
        return {number: k for k, number in enumerate(self.structures)}
