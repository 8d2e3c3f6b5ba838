"""Affine algebra: ijk, RAS and LPS."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_LPS_SIGNS = np.array([-1.0, -1.0, 1.0])


def apply_affine(affine: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """Map points (..., 3) by a 4x4 homogeneous affine."""
    matrix = np.asarray(affine, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def ras_to_lps(points: npt.ArrayLike) -> FloatArray:
    """RAS millimetres to LPS millimetres, (..., 3). Its own inverse."""
    return np.asarray(points, dtype=np.float64) * _LPS_SIGNS


def lps_to_ras(points: npt.ArrayLike) -> FloatArray:
    """LPS millimetres to RAS millimetres, (..., 3). Its own inverse."""
    return np.asarray(points, dtype=np.float64) * _LPS_SIGNS


def lps_affine_to_ras(affine: npt.ArrayLike) -> FloatArray:
    """An ijk -> LPS affine (ITK, DICOM) as the ijk -> RAS affine of the same voxels, 4x4."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)


def voxel_sizes(affine: npt.ArrayLike) -> FloatArray:
    """Lengths of the three columns of an ijk -> RAS affine in millimetres, (3,)."""
    return np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)


def axis_rotations() -> list[FloatArray]:
    """The 24 rotations that take coordinate axes to coordinate axes, 3x3; the identity first.

    >>> len(axis_rotations())
    24
    """
    found = []
    for axes in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), axes] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    # Those that turn least first.
    return sorted(found, key=lambda matrix: -float(np.trace(matrix)))


def is_singular(affine: npt.ArrayLike) -> bool:
    """Whether the voxel axes of a 4x4 affine span less than three dimensions."""
    sizes = voxel_sizes(affine)
    if not np.isfinite(sizes).all() or sizes.min() <= 0:
        return True
    directions = np.asarray(affine, dtype=np.float64)[:3, :3] / sizes
    return bool(abs(np.linalg.det(directions)) < 1e-3)


def shear_degrees(affine: npt.ArrayLike) -> float:
    """Largest deviation from a right angle between two voxel axes, in degrees."""
    directions = np.asarray(affine, dtype=np.float64)[:3, :3] / voxel_sizes(affine)
    cosines = np.abs(directions.T @ directions - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(cosines, 1.0))))


def canonical(data: np.ndarray, affine: npt.ArrayLike) -> tuple[np.ndarray, FloatArray]:
    """Permute and flip the voxel axes so that i, j, k point most nearly right, anterior, superior.

    Exact: voxels are re-ordered (the result is a view), never resampled, and keep their world
    coordinates.

    Args:
        data: Array whose first three axes are i, j, k.
        affine: Its ijk -> RAS affine, 4x4, not singular.

    Returns:
        (data, affine) in canonical order.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    cosines = matrix[:3, :3] / voxel_sizes(matrix)
    # All six assignments are compared at once: a greedy choice, axis by axis, would depend on the
    # storage order of strongly oblique images.
    order = max(
        permutations(range(3)), key=lambda axes: sum(abs(cosines[r, axes[r]]) for r in range(3))
    )
    data = np.transpose(data, order + tuple(range(3, data.ndim)))
    matrix = matrix[:, [*order, 3]]
    for axis in range(3):
        if matrix[axis, axis] < 0:
            matrix[:3, 3] = matrix[:3, 3] + (data.shape[axis] - 1) * matrix[:3, axis]
            matrix[:3, axis] = -matrix[:3, axis]
            data = np.flip(data, axis)
    # -0.0 prints badly and differs between otherwise equal affines.
    return data, matrix + 0.0
