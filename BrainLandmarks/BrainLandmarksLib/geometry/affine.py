"""Affine algebra: ijk, RAS and LPS, rigid fits."""

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


def rigid_fit(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    scale: bool = False,
) -> FloatArray:
    """The rotation and translation (and one scale) that best carry source onto target.

    Least squares in closed form: Kabsch, Acta Cryst. A32 (1976), and with `scale` Umeyama,
    IEEE TPAMI 13 (1991), equations 40-42. Never a reflection.

    Args:
        source, target: (n, 3) corresponding points in millimetres. Rows with a NaN in either are
            left out.
        weights: (n,) non-negative; None weighs all points alike.

    Returns:
        4x4 affine that maps source to target.

    Raises:
        ValueError: With fewer than three points that are not on one line: they fix no rotation.
    """
    a = np.asarray(source, dtype=np.float64)
    b = np.asarray(target, dtype=np.float64)
    w = np.ones(len(a)) if weights is None else np.asarray(weights, dtype=np.float64)
    used = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1) & (w > 0)
    a, b, w = a[used], b[used], w[used]
    if len(a) < 3:
        raise ValueError("a rigid fit needs at least three pairs of points")
    w = w / w.sum()
    center_a, center_b = w @ a, w @ b
    a, b = a - center_a, b - center_b
    left, singular, right = np.linalg.svd(b.T @ (a * w[:, None]))
    if singular[1] <= 1e-9 * max(singular[0], np.finfo(float).tiny):
        raise ValueError("a rigid fit needs points that are not on one line")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    factor = (singular * signs).sum() / (w @ (a**2).sum(axis=1)) if scale else 1.0
    affine = np.eye(4)
    affine[:3, :3] = factor * rotation
    affine[:3, 3] = center_b - affine[:3, :3] @ center_a
    return affine


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
