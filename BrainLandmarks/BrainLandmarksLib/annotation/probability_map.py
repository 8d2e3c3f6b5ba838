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
from BrainLandmarksLib.imaging.resampling import FWHM_PER_SIGMA, resample
from BrainLandmarksLib.imaging.volume import Volume

LEAST_SIGMA_VOXELS = 0.5
"""Probabilities are smooth already; this hides what is left of the voxels."""

_BORDER = 3
"""Voxels round a structure in which its probability counts: farther away, what is left of it is
doubt and no boundary."""

SLAB_VOXELS = 2**19
"""About so many voxels of another grid are worked on at once."""


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

    def labels_on(self, grid: Grid) -> npt.NDArray[np.int32]:
        """The most probable structure of every voxel of another grid; 0 where the map has none.

        The probabilities are resampled, not the labels, so that boundaries stay smooth; slab by
        slab, so that the memory does not depend on the number of structures.

        Returns:
            Library numbers, of shape `grid.shape`.
        """
        parts = self._parts(float(grid.spacing.max()))
        labels = np.zeros(grid.shape, np.int32)
        count, *section = grid.shape
        step = max(1, SLAB_VOXELS // (section[0] * section[1]))
        for start in range(0, count, step):
            shape = (min(step, count - start), section[0], section[1])
            slab = grid.window((start, 0, 0), shape)
            labels[start : start + step] = _most_probable(parts, slab)
        return labels

    def _parts(self, spacing_mm: float) -> list[tuple[int, Volume]]:
        """Each number and its probabilities, in the box where it can win on voxels of a size."""
        # What wins has this share at least, in one of the voxels round it or within the smoothing.
        least = 1.0 / len(self.structures)
        margin = 1 + np.ceil(4 * spacing_mm / FWHM_PER_SIGMA / self.grid.spacing).astype(int)
        parts = []
        for number, probability in zip(self.structures, self.probabilities):
            there = ndimage.find_objects((probability >= least).astype(np.uint8))
            if not there:
                continue
            low = [max(s.start - m, 0) for s, m in zip(there[0], margin)]
            box = tuple(slice(a, s.stop + m) for a, s, m in zip(low, there[0], margin))
            values = probability[box].astype(np.float32)
            parts.append((number, Volume(values, self.grid.window(low, values.shape))))
        return parts

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


def _most_probable(parts: list[tuple[int, Volume]], grid: Grid) -> npt.NDArray[np.int32]:
    """The number with the largest value at every voxel of a grid; 0 where all are nothing."""
    labels, largest = np.zeros(grid.shape, np.int32), np.zeros(grid.shape, np.float32)
    for number, volume in parts:
        window = _overlap(volume.grid, grid)
        if window is None:
            continue
        start, stop = window
        i, j, k = (int(n) for n in stop - start)
        values = resample(volume, grid.window(start, (i, j, k)))
        here = tuple(slice(a, b) for a, b in zip(start, stop))
        more = values > largest[here]
        largest[here][more] = values[more]
        labels[here][more] = number
    return labels


def _overlap(
    source: Grid, target: Grid
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
    """First voxel and one past the last, (3,) each, of a grid that another may reach; or None."""
    corners = np.array(np.meshgrid(*[(-1, n) for n in source.shape])).reshape(3, -1).T
    ijk = target.ras_to_ijk(source.ijk_to_ras(corners))
    start = np.clip(np.floor(ijk.min(0)), 0, target.shape).astype(np.intp)
    stop = np.clip(np.ceil(ijk.max(0)) + 1, 0, target.shape).astype(np.intp)
    return (start, stop) if (start < stop).all() else None
