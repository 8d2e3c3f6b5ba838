"""A head label map, read as smooth sub-voxel fields instead of voxels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..errors import UserError
from ..geometry import Grid
from .schemes import AUTO, MIDLINE, PAIRED, Scheme, detect_scheme, load_scheme, numbers

if TYPE_CHECKING:
    from ..images import Volume


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
        self.scheme = scheme
        self.unknown = scheme.unknown(labels)
        self.labels = scheme.canonical(labels, volume.grid.spacing)
        self.grid = volume.grid
        self.present = frozenset(numbers(self.labels))

    def has(self, labels: Iterable[int]) -> bool:
        """Whether any voxel carries one of the labels."""
        return any(label in self.present for label in labels)

    def mask(self, labels: Iterable[int]) -> np.ndarray:
        """Boolean array of the voxels that carry one of the labels."""
        return np.isin(self.labels, [label for label in labels if label in self.present])

    def centre(self, labels: Iterable[int]) -> np.ndarray | None:
        """Centre of mass, RAS mm, or None when the structure is absent."""
        ijk = np.argwhere(self.mask(labels))
        return self.grid.ijk_to_ras(ijk.mean(axis=0)) if len(ijk) else None

    def field(self, labels: Iterable[int], sigma_mm: float = 1.0) -> Field:
        """Smooth indicator of the union of ``labels`` (cached).

        Along an axis with coarse voxels it is smoothed more, or its level would show the steps.
        """
        return self._field(tuple(sorted(labels)), float(sigma_mm))

    @functools.lru_cache(maxsize=64)  # noqa: B019 - the cache lives and dies with one annotation
    def _field(self, labels: tuple[int, ...], sigma_mm: float) -> Field:
        return Field.smooth(self.mask(labels), self.grid, sigma_mm)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which RAS points lie inside the stored array."""
        ijk = self.grid.ras_to_ijk(points)
        return np.all((ijk >= 0) & (ijk <= np.array(self.labels.shape) - 1), axis=-1)


class Field:
    """Smooth scalar field on a part of a grid, zero elsewhere, sampled at RAS points."""

    def __init__(self, values: np.ndarray, grid: Grid) -> None:
        self.values = values
        self.grid = grid

    @classmethod
    def smooth(cls, mask: np.ndarray, grid: Grid, sigma_mm: float) -> Field:
        """Gaussian-smoothed indicator, cropped to the mask's box and the reach of the kernel."""
        if not mask.any():
            return cls(np.zeros((2, 2, 2), np.float32), Grid((2, 2, 2), grid.affine))
        sigma = np.maximum(sigma_mm / grid.spacing, LEAST_SIGMA_VOXELS)
        margin = np.ceil(3 * sigma).astype(int) + 2
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        low = np.array([s.start for s in box]) - margin
        padded_shape = np.array([s.stop for s in box]) + margin - low
        cropped = np.zeros(padded_shape, np.float32)
        inner = tuple(slice(m, m + s.stop - s.start) for m, s in zip(margin, box))
        cropped[inner] = mask[box]
        # Where the map itself ends, the structure is cut, not finished: the edge value continues.
        for axis in range(3):
            index_low = [slice(None)] * 3
            index_high = [slice(None)] * 3
            if box[axis].start == 0:
                index_low[axis] = slice(0, margin[axis])
                edge = [slice(None)] * 3
                edge[axis] = slice(margin[axis], margin[axis] + 1)
                cropped[tuple(index_low)] = cropped[tuple(edge)]
            if box[axis].stop == mask.shape[axis]:
                index_high[axis] = slice(cropped.shape[axis] - margin[axis], None)
                edge = [slice(None)] * 3
                stop = cropped.shape[axis] - margin[axis]
                edge[axis] = slice(stop - 1, stop)
                cropped[tuple(index_high)] = cropped[tuple(edge)]
        values = ndimage.gaussian_filter(cropped, sigma, truncate=3.0)
        affine = np.array(grid.affine, float)
        affine[:3, 3] = grid.ijk_to_ras(low.astype(float))
        return cls(values, Grid(values.shape, affine))

    def centre(self) -> np.ndarray:
        """Centre of mass, RAS mm."""
        return self.grid.ijk_to_ras(np.array(ndimage.center_of_mass(self.values)))

    def at(self, points: np.ndarray) -> np.ndarray:
        """Trilinear values at RAS points (..., 3); zero outside."""
        points = np.asarray(points, float)
        ijk = self.grid.ras_to_ijk(points.reshape(-1, 3)).T
        values = ndimage.map_coordinates(self.values, ijk, order=1, mode="constant", cval=0.0)
        return values.reshape(points.shape[:-1])
