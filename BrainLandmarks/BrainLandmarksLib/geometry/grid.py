"""Voxel grids in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine, is_singular, voxel_sizes


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in the world: its shape and its ijk -> RAS affine.

    >>> grid = Grid((64, 64, 64), np.diag([3.25, 3.25, 3.25, 1.0]))
    >>> grid.ijk_to_ras([1, 0, 0])
    array([3.25, 0.  , 0.  ])
    >>> grid.spacing
    array([3.25, 3.25, 3.25])

    Args:
        shape: Number of voxels along i, j, k.
        affine: 4x4, homogeneous, maps voxel centres (ijk) to RAS millimetres.

    Raises:
        ValueError: If the affine is not a finite, invertible, homogeneous 4x4 matrix or the shape
            not three positive numbers.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        i, j, k = (int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if min(i, j, k) < 1:
            raise ValueError(f"a grid needs at least one voxel along every axis, not {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("an affine is a 4x4 matrix of finite numbers")
        if not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise ValueError("the last row of an affine is 0 0 0 1")
        if is_singular(affine):
            raise ValueError("the affine is singular: two voxel axes coincide or have no length")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", (i, j, k))
        object.__setattr__(self, "affine", affine)

    def ijk_to_ras(self, points: npt.ArrayLike) -> FloatArray:
        """World millimetres of voxel coordinates; (..., 3) -> (..., 3)."""
        return apply_affine(self.affine, points)

    def ras_to_ijk(self, points: npt.ArrayLike) -> FloatArray:
        """Voxel coordinates of world millimetres; (..., 3) -> (..., 3)."""
        return apply_affine(np.linalg.inv(self.affine), points)

    @property
    def spacing(self) -> FloatArray:
        """Distance between neighbouring voxel centres along i, j, k in millimetres, (3,)."""
        return voxel_sizes(self.affine)

    @property
    def center_ras(self) -> FloatArray:
        """Centre of the lattice in RAS millimetres, (3,)."""
        return self.ijk_to_ras((np.array(self.shape) - 1) / 2)

    @property
    def extent(self) -> FloatArray:
        """Edge lengths of the box of voxels in millimetres, (3,): number of voxels x spacing."""
        return self.spacing * np.array(self.shape)

    def contains(self, points_ras: npt.ArrayLike, margin: float = 0.5) -> npt.NDArray[np.bool_]:
        """Whether RAS points lie inside the voxels; (..., 3) -> (...).

        `margin` is how far beyond the outer voxel *centres* still counts, in voxels; 0.5 is the
        outer face of the voxels. NaN points are outside.
        """
        ijk = self.ras_to_ijk(points_ras)
        upper = np.array(self.shape) - 1 + margin
        return np.asarray(((ijk >= -margin) & (ijk <= upper)).all(axis=-1))

    def moved(self, affine: npt.ArrayLike) -> Grid:
        """The same voxels after a 4x4 RAS -> RAS affine."""
        return Grid(self.shape, np.asarray(affine, dtype=np.float64) @ self.affine)

    def coarser(self, factors: npt.ArrayLike, shape: npt.ArrayLike) -> Grid:
        """The grid of `shape` voxels that are larger by `factors`, (3,), from the same first one.

        With whole factors its voxels lie on every so many of this one.
        """
        affine = self.affine.copy()
        affine[:3, :3] *= np.asarray(factors)
        i, j, k = (int(n) for n in np.asarray(shape))
        return Grid((i, j, k), affine)

    def window(self, start: npt.ArrayLike, shape: tuple[int, int, int]) -> Grid:
        """The block of `shape` voxels that begins at ijk `start`; world coordinates stay put.

        A start inside and a smaller shape is a crop, a negative start a padding.
        """
        affine = self.affine.copy()
        affine[:3, 3] = self.ijk_to_ras(np.asarray(start, dtype=np.float64))
        return Grid(shape, affine)


def cube(
    center_ras: npt.ArrayLike,
    field_of_view_mm: float,
    size: int,
    rotation: npt.ArrayLike | None = None,
) -> Grid:
    """A cube of `size`^3 voxels covering `field_of_view_mm` along each edge.

    Args:
        center_ras: Centre of the cube, RAS millimetres.
        rotation: 3x3; its columns are the RAS directions of the cube's i, j, k. None is the world's
            axes.
    """
    axes = np.eye(3) if rotation is None else np.asarray(rotation, dtype=np.float64)
    affine = np.eye(4)
    affine[:3, :3] = axes * (field_of_view_mm / size)
    affine[:3, 3] = np.asarray(center_ras, dtype=np.float64) - affine[:3, :3] @ (
        np.full(3, (size - 1) / 2)
    )
    return Grid((size, size, size), affine)
