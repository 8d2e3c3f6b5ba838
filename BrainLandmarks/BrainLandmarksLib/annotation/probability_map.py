"""A parcellation with probabilities: the rules read boundaries between its voxels."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from BrainLandmarksLib.annotation.labelmap import Field, LabelMap
from BrainLandmarksLib.annotation.schemes import load_scheme
from BrainLandmarksLib.geometry.grid import Grid

LEAST_SIGMA_VOXELS = 0.5
"""Probabilities are smooth already; this hides what is left of the voxels."""

_BORDER = 3
"""Voxels round a structure in which its probability counts: farther away, what is left of it is
doubt and no boundary."""


class ProbabilityMap(LabelMap):
    """A label map whose fields are probabilities instead of smoothed indicators.

    Where the probability of a structure passes one half, a label map of voxels only says which side
    a voxel's centre is on; here the boundary lies where the network sees it.

    >>> head = ProbabilityMap(probabilities, (0, 2, 41), grid)
    >>> head.field((2, 41)).at(points_ras)        # (n,) probability of white matter

    Args:
        probabilities: (C, I, J, K) of each structure, summing to one. Where no brain is connected
            with the largest piece of it (muscles of the neck look like cortex), they are made those
            of everything else, in place.
        structures: C library numbers (`schemes`), 0 for everything else.
        grid: The voxels.

    Raises:
        ValueError: probabilities, structures and voxels do not fit together.
    """

    def __init__(
        self, probabilities: npt.NDArray[np.floating], structures: Sequence[int], grid: Grid
    ) -> None:
        if probabilities.shape != (len(structures), *grid.shape):
            raise ValueError("a parcellation has one volume of probabilities for each structure")
        _clear(probabilities)
        self.unknown = ()
        self.probabilities = probabilities
        self.structures = tuple(structures)
        numbers = np.array(structures, np.int32)
        self._hold(load_scheme("freesurfer"), numbers[probabilities.argmax(0)], grid)

    def field_near(self, labels: Iterable[int], sigma_mm: float, points: np.ndarray) -> Field:
        """Like ``field``; all of it, since a parcellation has few voxels."""
        return self.field(labels, sigma_mm)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - the cache lives and dies with one annotation
    def _field(self, labels: tuple[int, ...], sigma_mm: float) -> Field:
        part = self.part(labels)
        if part is None:
            return self._empty_field()
        box = tuple(
            slice(max(s.start - _BORDER, 0), min(s.stop + _BORDER, n))
            for s, n in zip(part[0], self.grid.shape)
        )
        values = np.zeros([s.stop - s.start for s in box], np.float32)
        for row, number in enumerate(self.structures):
            if number in labels:
                values += self.probabilities[row][box]
        solid = ndimage.binary_dilation(values >= 0.5, iterations=_BORDER)
        values *= solid
        return Field.smooth(box, values, self.grid, self._sigma(sigma_mm), self.ends)

    def _sigma(self, sigma_mm: float) -> np.ndarray:
        # What the rules ask for is meant for voxels of 1 mm, whose steps it hides.
        least = LEAST_SIGMA_VOXELS * self.grid.spacing
        wanted = np.sqrt(np.maximum(sigma_mm**2 - self.grid.spacing**2 / 4, 0))
        return np.maximum(wanted, least) / self.grid.spacing


def _clear(probabilities: npt.NDArray[np.floating]) -> None:
    """Leave the largest piece of what is anything, thin bridges cut."""
    brain = probabilities[0] < 0.5
    pieces, count = ndimage.label(ndimage.binary_erosion(brain))
    if count == 0:
        return
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    # What was eroded comes back, then the border in which probabilities fall to nothing.
    whole = ndimage.binary_dilation(largest, iterations=2) & brain
    outside = ~ndimage.binary_dilation(whole, iterations=_BORDER)
    probabilities[:, outside] = 0
    probabilities[0, outside] = 1
