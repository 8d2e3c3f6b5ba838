"""Voxels of a rendered scan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from BrainLandmarksLib.geometry.grid import Grid


def in_cube(lattice: Lattice, points: np.ndarray) -> np.ndarray:
    """Voxel coordinates (K, 3) of image points in mm, NaN for those outside the lattice."""
    ijk = lattice.to_ijk(points)
    inside = np.all((ijk >= -0.5) & (ijk <= np.array(lattice.shape) - 0.5), axis=1)
    return np.where(inside[:, None], ijk, np.nan)


@dataclass(frozen=True)
class Lattice:
    """Rendered voxels: ``shape`` voxels of ``spacing_mm``, centred on the canonical origin.

    ``oversampling`` sub-voxels per axis give the partial volume. A ``center_mm`` other than the
    origin makes a box beside it.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    oversampling: int = 2
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def reach_mm(self) -> float:
        """Farthest from the origin along any axis."""
        half = np.array(self.shape) * self.spacing_mm / 2
        return float((np.abs(self.center_mm) + half).max())

    @property
    def grid(self) -> Grid:
        """The voxels as an image's grid, in canonical mm."""
        affine = np.diag([self.spacing_mm] * 3 + [1.0])
        affine[:3, 3] = self.center_mm - (np.array(self.shape) - 1) / 2 * self.spacing_mm
        return Grid(self.shape, affine)

    def axes(self, device: torch.device | str) -> list[torch.Tensor]:
        """Sub-voxel centres along each axis, mm."""
        result = []
        for count, middle in zip(self.shape, self.center_mm):
            n = count * self.oversampling
            step = self.spacing_mm / self.oversampling
            at = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
            result.append(at * step + middle)
        return result

    @property
    def coarse(self) -> Lattice:
        """The voxels themselves, without sub-voxels."""
        return replace(self, oversampling=1)

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """Means over the sub-voxels of each voxel, (I, J, K)."""
        (a, b, c), n = self.shape, self.oversampling
        return values.view(a, n, b, n, c, n).mean((1, 3, 5))

    def to_ijk(self, points: np.ndarray) -> np.ndarray:
        """Image mm -> voxel coordinates (voxel centres at integers)."""
        return (points - self.center_mm) / self.spacing_mm + (np.array(self.shape) - 1) / 2
