"""Planes through points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray


def fitted_plane(points: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Plane through points with the least squared distances, robust against a stray point.

    Args:
        points: (n, 3), NaN rows are left out.

    Returns:
        (point, unit normal).

    Raises:
        UserError: fewer than three points, or all on one line.
    """
    array = np.array(points, float)
    array = array[np.isfinite(array).all(1)]
    if len(array) < 3:
        raise UserError("a plane needs three points; place more of the group first.")
    weights = np.ones(len(array))
    for _ in range(10):
        center = np.average(array, axis=0, weights=weights)
        offset = array - center
        values, vectors = np.linalg.eigh((offset * weights[:, None]).T @ offset)
        normal = vectors[:, 0]
        distance = np.abs(offset @ normal)
        weights = 1.0 / (1.0 + (distance / max(float(np.median(distance)), 0.5)) ** 2)
    if values[1] < 1e-6 * max(values[2], 1e-12):
        raise UserError("a plane needs three points that are not on one line.")
    return center, normal


def weighted_plane(points: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Plane with the least weighted sum of squared distances from points.

    Args:
        points: (..., n, 3), a plane for each leading index; all finite.
        weights: (n,) above zero.

    Returns:
        (point, unit normal), (..., 3) each; the normal is NaN where the points are on one line.
    """
    array, share = np.asarray(points, float), np.asarray(weights, float)[:, None]
    center = (array * share).sum(-2) / share.sum()
    offset = array - center[..., None, :]
    values, vectors = np.linalg.eigh(np.swapaxes(offset * share, -1, -2) @ offset)
    flat = values[..., 1] < 1e-6 * np.maximum(values[..., 2], 1e-12)
    return center, np.where(flat[..., None], np.nan, vectors[..., 0])


def angle_degrees(one: npt.ArrayLike, other: npt.ArrayLike) -> FloatArray:
    """Angle between directions (..., 3) that need not be of unit length, degrees, (...).

    Exact for small angles, of which the cosine says nothing.
    """
    a, b = np.asarray(one, float), np.asarray(other, float)
    return np.asarray(
        np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
    )
