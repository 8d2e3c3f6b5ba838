"""A head label map, read as smooth sub-voxel fields instead of voxels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from BrainLandmarksLib.annotation.schemes import (
    AUTO,
    MIDLINE,
    PAIRED,
    Scheme,
    detect_scheme,
    load_scheme,
    numbers,
)
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid

if TYPE_CHECKING:
    from BrainLandmarksLib.imaging.volume import Volume


def _sided(structure: str) -> dict[str, tuple[int, ...]]:
    left, right = PAIRED[structure]
    return {"L": (left,), "R": (right,)}


def _midline(*structures: str) -> tuple[int, ...]:
    return tuple(MIDLINE[structure] for structure in structures)


CEREBRAL_WHITE = _sided("cerebral white matter")
CEREBRAL_CORTEX = _sided("cerebral cortex")
THALAMUS = _sided("thalamus")
CAUDATE = _sided("caudate")
PUTAMEN = _sided("putamen")
PALLIDUM = _sided("pallidum")
HIPPOCAMPUS = _sided("hippocampus")
AMYGDALA = _sided("amygdala")
ACCUMBENS = _sided("accumbens")
VENTRAL_DC = _sided("ventral diencephalon")
TEMPORAL_HORN = _sided("temporal horn")
CORPUS_CALLOSUM = _midline("corpus callosum")
FOURTH_VENTRICLE = _midline("fourth ventricle")
PONS = _midline("pons")
BRAIN_STEM = _midline("brain stem", "pons")
SPINAL_CORD = _midline("spinal cord")
EYES = _midline("eye")

HEMISPHERE = {side: CEREBRAL_WHITE[side] + CEREBRAL_CORTEX[side] for side in ("L", "R")}


FLATTEST_MM = 150.0
"""Radius of curvature of a head where it is flattest; the first slice through it is a cap."""

LEAST_SIGMA_VOXELS = 1.0
"""Smoothing that hides the voxels of a coarse map."""


class LabelMap:
    """Label volume with smooth indicator fields of any union of labels.

    A *field* is the 0/1 indicator of some labels, smoothed with a small Gaussian. Its 0.5 level is
    the structure's boundary, located between voxel centres, and hardly moves when the same head is
    stored on a turned grid.

    Whatever scheme numbers the volume, ``labels`` carries the library's numbers (see ``schemes``);
    ``unknown`` lists the numbers that the scheme does not know, which count as background.

    Example::

        head = LabelMap(read_image("aseg.mgz"))
        stem = head.field(BRAIN_STEM)
        stem.at(points_ras)        # (n,) values in 0..1

    Args:
        volume: The segmentation.
        scheme: A scheme, its name or file, or "auto": by the numbers that are there.

    Raises ``UserError`` if the volume does not hold whole-number labels or its scheme is unknown.
    """

    def __init__(self, volume: Volume, scheme: Scheme | str | os.PathLike[str] = AUTO) -> None:
        data = volume.data
        labels = np.rint(data)
        if not np.allclose(data, labels, atol=1e-3):
            raise UserError(
                "The image holds fractional values, so it is not a label map: give a segmentation "
                "saved with nearest-neighbour interpolation."
            )
        labels = labels.astype(np.int32)
        if not isinstance(scheme, Scheme):
            scheme = detect_scheme(labels) if scheme == AUTO else load_scheme(scheme)
        self.unknown = scheme.unknown(labels)
        self._hold(scheme, scheme.canonical(labels, volume.grid.spacing), volume.grid)

    def _hold(self, scheme: Scheme, labels: np.ndarray, grid: Grid) -> None:
        """Take over labels that carry the library's numbers."""
        self.scheme = scheme
        self.labels = labels
        self.grid = grid
        self.counts = numbers(self.labels)
        self.present = frozenset(self.counts)
        self.ends = _ends(self.labels, self.grid)

    def has(self, labels: Iterable[int]) -> bool:
        """Whether any voxel carries one of the labels."""
        return any(label in self.present for label in labels)

    def mask(self, labels: Iterable[int]) -> np.ndarray:
        """Boolean array of the voxels that carry one of the labels."""
        mask = np.zeros(self.labels.shape, bool)
        part = self.part(labels)
        if part is not None:
            mask[part[0]] = part[1]
        return mask

    def part(self, labels: Iterable[int]) -> tuple[tuple[slice, ...], np.ndarray] | None:
        """Box of a structure in the array and its mask in that box; None when it is absent."""
        boxes = [self._boxes[label] for label in labels if label in self.present]
        if not boxes:
            return None
        box = tuple(
            slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes))
            for axis in range(3)
        )
        table = np.zeros(max(self.present) + 1, bool)
        table[[label for label in labels if label in self.present]] = True
        return box, table[self.labels[box]]

    @functools.cached_property
    def _boxes(self) -> dict[int, tuple[slice, ...]]:
        found = ndimage.find_objects(self.labels)
        return {label: box for label, box in enumerate(found, start=1) if box is not None}

    def largest(self, labels: Iterable[int]) -> np.ndarray:
        """Voxel centres (n, 3), RAS mm, of the largest connected part of a structure."""
        return max(self.pieces(labels), key=len, default=np.empty((0, 3)))

    def pieces(self, labels: Iterable[int]) -> list[np.ndarray]:
        """Voxel centres (n, 3), RAS mm, of each connected part of a structure."""
        part = self.part(labels)
        if part is None:
            return []
        box, mask = part
        low = np.array([s.start for s in box])
        pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        return [
            self.grid.ijk_to_ras(
                np.argwhere(pieces[inner] == number) + low + [s.start for s in inner]
            )
            for number, inner in enumerate(ndimage.find_objects(pieces), start=1)
        ]

    def volume(self, labels: Iterable[int]) -> float:
        """Volume of a structure, mm3."""
        voxels = sum(self.counts.get(label, 0) for label in labels)
        return voxels * self.voxel_mm3

    def centre(self, labels: Iterable[int]) -> np.ndarray | None:
        """Centre of mass, RAS mm, of the largest connected part; None when there is hardly any."""
        points = self.largest(labels)
        return points.mean(axis=0) if len(points) * self.voxel_mm3 >= CRUMB_MM3 else None

    def cut(self, labels: Iterable[int]) -> bool:
        """Whether a structure reaches where the map is cut, so that a part of it is missing."""
        part = self.part(labels)
        return part is not None and any(
            s.start <= low or s.stop >= high for s, low, high in zip(part[0], *self.ends)
        )

    @functools.cached_property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.grid.spacing))

    def field(self, labels: Iterable[int], sigma_mm: float = 1.0) -> Field:
        """Smooth indicator of the union of ``labels`` (cached).

        Along an axis with coarse voxels it is smoothed more, or its level would show the steps.
        """
        return self._field(tuple(sorted(labels)), float(sigma_mm))

    def field_near(self, labels: Iterable[int], sigma_mm: float, points: np.ndarray) -> Field:
        """Like ``field``, made only where it is needed: in the box round some RAS points (n, 3)."""
        part = self.part(labels)
        if part is None:
            return self._empty_field()
        box, mask = part
        reach = np.ceil(3 * self._sigma(sigma_mm)) + 2
        ijk = self.grid.ras_to_ijk(points)
        low = np.floor(ijk.min(0) - reach).astype(int)
        high = np.ceil(ijk.max(0) + reach).astype(int) + 1
        near = tuple(
            slice(max(s.start, int(a)), max(min(s.stop, int(b)), max(s.start, int(a))))
            for s, a, b in zip(box, low, high)
        )
        inner = tuple(slice(n.start - s.start, n.stop - s.start) for n, s in zip(near, box))
        mask = mask[inner]
        if not mask.any():
            return self._empty_field()
        return Field.smooth(near, mask, self.grid, self._sigma(sigma_mm), self.ends)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - the cache lives and dies with one annotation
    def _field(self, labels: tuple[int, ...], sigma_mm: float) -> Field:
        part = self.part(labels)
        if part is None:
            return self._empty_field()
        return Field.smooth(*part, self.grid, self._sigma(sigma_mm), self.ends)

    def _sigma(self, sigma_mm: float) -> np.ndarray:
        """Standard deviation of the smoothing, voxels along each axis."""
        return np.maximum(sigma_mm / self.grid.spacing, LEAST_SIGMA_VOXELS)

    def _empty_field(self) -> Field:
        return Field(np.zeros((2, 2, 2), np.float32), self.grid, np.zeros(3, int))

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which RAS points lie where the map has an answer: in the array, and not cut away."""
        ijk = self.grid.ras_to_ijk(points)
        low, high = self.ends
        return np.all((ijk >= low) & (ijk <= high - 1), axis=-1)


CRUMB_MM3 = 10.0
"""A structure of which the largest part is smaller than this is not there."""

_FAR = 1000


def _ends(labels: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and one past the last, (3,) each, where the map is cut; far outside where not.

    A map is cut where the outermost labelled slice is so large that no head ends like that, at the
    border of the array or within, and where the border goes through the stem or the cord.
    """
    low, high = np.full(3, -_FAR), np.array(labels.shape) + _FAR
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        area = np.count_nonzero(labels, axis=others) * np.prod(grid.spacing[list(others)])
        filled = np.flatnonzero(area)
        if len(filled) == 0:
            continue
        largest = 2 * np.pi * FLATTEST_MM * grid.spacing[axis]
        first, last = int(filled[0]), int(filled[-1])
        borders = np.moveaxis(labels, axis, 0)[[0, -1]]
        stem = np.isin(borders, BRAIN_STEM + SPINAL_CORD)
        at_low, at_high = (bool(border.any()) for border in stem)
        if area[first] > largest or at_low:
            low[axis] = first
        if area[last] > largest or at_high:
            high[axis] = last + 1
    return low, high


class Field:
    """Smooth scalar field on a part of a grid, zero elsewhere, sampled at RAS points."""

    def __init__(self, values: np.ndarray, grid: Grid, low: np.ndarray) -> None:
        """``values[0, 0, 0]`` belongs to the voxel ``low`` of ``grid``, which may lie outside."""
        affine = np.array(grid.affine, float)
        affine[:3, 3] = grid.ijk_to_ras(np.asarray(low, float))
        self.values = values
        self.low = np.asarray(low, int)
        self.grid = Grid(values.shape, affine)

    @classmethod
    def smooth(
        cls,
        box: tuple[slice, ...],
        mask: np.ndarray,
        grid: Grid,
        sigma: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
    ) -> Field:
        """Gaussian-smoothed indicator of the mask of a box in a grid, with the kernel's reach.

        ``sigma`` (3,) is in voxels; ``ends`` are the voxels between which the map is not cut.
        """
        margin = np.ceil(3 * sigma).astype(int) + 2
        low = np.array([s.start for s in box]) - margin
        cropped = np.zeros(mask.shape + 2 * margin, np.float32)
        cropped[tuple(slice(m, m + n) for m, n in zip(margin, mask.shape))] = mask
        # Where the map itself ends, the structure is cut, not finished: the edge value continues.
        for axis in range(3):
            index_low = [slice(None)] * 3
            index_high = [slice(None)] * 3
            if box[axis].start == ends[0][axis]:
                index_low[axis] = slice(0, margin[axis])
                edge = [slice(None)] * 3
                edge[axis] = slice(margin[axis], margin[axis] + 1)
                cropped[tuple(index_low)] = cropped[tuple(edge)]
            if box[axis].stop == ends[1][axis]:
                index_high[axis] = slice(cropped.shape[axis] - margin[axis], None)
                edge = [slice(None)] * 3
                stop = cropped.shape[axis] - margin[axis]
                edge[axis] = slice(stop - 1, stop)
                cropped[tuple(index_high)] = cropped[tuple(edge)]
        values = ndimage.gaussian_filter(cropped, sigma, truncate=3.0)
        return cls(values, grid, low)

    def on(self, other: Field) -> np.ndarray:
        """Values at the voxels of another field of the same label map."""
        values = np.zeros(other.values.shape, np.float32)
        start = np.maximum(self.low, other.low)
        stop = np.minimum(self.low + self.values.shape, other.low + other.values.shape)
        if (start < stop).all():
            here = tuple(slice(a, b) for a, b in zip(start - self.low, stop - self.low))
            there = tuple(slice(a, b) for a, b in zip(start - other.low, stop - other.low))
            values[there] = self.values[here]
        return values

    def centre(self) -> np.ndarray:
        """Centre of mass, RAS mm."""
        return self.grid.ijk_to_ras(np.array(ndimage.center_of_mass(self.values)))

    def at(self, points: np.ndarray) -> np.ndarray:
        """Trilinear values at RAS points (..., 3); zero outside."""
        points = np.asarray(points, float)
        ijk = self.grid.ras_to_ijk(points.reshape(-1, 3)).T
        values = ndimage.map_coordinates(self.values, ijk, order=1, mode="constant", cval=0.0)
        return values.reshape(points.shape[:-1])
