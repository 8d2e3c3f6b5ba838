"""How focused Grad-CAM maps are, and how far those of neighbouring landmarks overlap.

The paper compares its models by eye (IV-D: one "produces more localized results" than the other;
III-F: maps of close landmarks should not overlap). These are the same questions in numbers. A map
is treated as a distribution of mass over the voxels of the network's cube.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import ImageArray
from BrainLandmarksLib.protocol import Protocol

SHARES = (0.5, 0.9)
"""Shares of the mass whose radius is reported."""


@dataclass(frozen=True)
class Focus:
    """Measures of n maps, each (n,); NaN where a map is empty or has no landmark."""

    radius50_mm: FloatArray
    """Radius of the ball round the map's centre of mass that holds half of the mass."""
    radius90_mm: FloatArray
    """The same for 90 per cent of it."""
    distance_mm: FloatArray
    """From the centre of mass to the landmark."""
    entropy_bits: FloatArray
    """Entropy of the mass over the voxels: 0 if one voxel has it all."""
    volume_ml: FloatArray
    """Volume of 2 ** entropy voxels: an even spread over it has the same entropy. Comparable
    between cubes of different resolution, unlike the entropy."""
    overlap: FloatArray
    """Mass shared with the map of the nearest landmark of the group, 0 to 1."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the measures."""
        return tuple(field.name for field in fields(cls))


def measure(
    maps: ImageArray,
    grid: Grid,
    points: FloatArray,
    neighbours: npt.NDArray[np.int64],
) -> Focus:
    """Measure maps.

    Args:
        maps: (n, D, H, W), 0 or more.
        grid: where their voxels lie, RAS millimetres.
        points: (n, 3) their landmarks, RAS millimetres; NaN where missing.
        neighbours: (n,) row of the map to compare each with; -1 for none.
    """
    mass = maps.reshape(len(maps), -1).astype(np.float64)
    total = mass.sum(axis=1, keepdims=True)
    mass = np.divide(mass, total, out=np.full_like(mass, np.nan), where=total > 0)
    positions = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3))
    radii, entropy = np.full((len(mass), len(SHARES)), np.nan), np.full(len(mass), np.nan)
    centres = np.full((len(mass), 3), np.nan)
    for row in np.flatnonzero(total[:, 0] > 0):
        own = mass[row]
        centres[row] = own @ positions
        radii[row] = _radii(own, np.linalg.norm(positions - centres[row], axis=1))
        there = own[own > 0]
        entropy[row] = -(there * np.log2(there)).sum()
    overlap = np.array(
        [np.nan if k < 0 else np.minimum(own, mass[k]).sum() for own, k in zip(mass, neighbours)]
    )
    voxel_ml = float(abs(np.linalg.det(grid.affine[:3, :3]))) / 1000
    return Focus(
        radii[:, 0],
        radii[:, 1],
        np.linalg.norm(centres - points, axis=1),
        entropy,
        voxel_ml * 2**entropy,
        overlap,
    )


def neighbours_of(protocol: Protocol, shape: FloatArray) -> npt.NDArray[np.int64]:
    """Row of the nearest landmark of the same group, (K,); -1 in a group of one.

    Args:
        shape: (K, 3) a typical head's landmarks, such as a model's mean shape.
    """
    nearest = np.full(len(protocol), -1)
    for group in protocol.groups:
        rows = np.arange(group.first - 1, group.last)
        if len(rows) < 2:
            continue
        distances = np.linalg.norm(shape[rows, None] - shape[rows], axis=-1)
        np.fill_diagonal(distances, np.inf)
        nearest[rows] = rows[distances.argmin(axis=1)]
    return nearest


def _radii(mass: FloatArray, distances: FloatArray) -> list[float]:
    """Radii that hold SHARES of a distribution, given each voxel's distance from the centre."""
    order = np.argsort(distances)
    held = np.cumsum(mass[order])
    # Rounding may leave the whole mass a little short of 1.
    last = [min(int(np.searchsorted(held, share)), len(held) - 1) for share in SHARES]
    return [float(distances[order[n]]) for n in last]
