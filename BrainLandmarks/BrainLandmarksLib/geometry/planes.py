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
