"""How exact a fit of points to points is: at any place, and what it leaves of the points' errors.

To first order in the errors, a fit by weighted least squares moves with them linearly. From that
follow the target registration error anywhere (with equal errors and weights and a rigid fit it is
the formula of Fitzpatrick, West and Maurer, IEEE Trans. Med. Imaging 17:694-702, 1998; with others
Danilchenko and Fitzpatrick, IEEE Trans. Med. Imaging 30:679-693, 2011) and the covariance of the
residuals, in which what all points have in common is gone.

>>> target_error("rigid", landmarks, weights, covariance, landmarks)   # (K,) mm, root mean square
>>> residual_covariance("rigid", landmarks, weights, covariance)    # (3 K, 3 K) mm^2
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray

_ARM_MM = 100.0
"""Rotations and scales are counted at this distance, so that all parameters are of one size."""


def target_error(
    kind: str,
    points: FloatArray,
    weights: FloatArray,
    covariance: FloatArray,
    targets: FloatArray,
) -> FloatArray:
    """Root mean square error of a fit at targets, (m,) mm.

    Args:
        kind: Of `alignment.FREEDOMS`.
        points: (n, 3) the points that were fitted, where the fit carries them, mm; those of weight
            0 have no part in it.
        weights: (n,) of the least squares.
        covariance: (3 n, 3 n) of the points' errors, coordinates of a point side by side, mm^2.
        targets: (m, 3) mm.
    """
    w = np.repeat(weights, 3)
    center = points.mean(axis=0)
    at = _influence(kind, points - center)
    solve = np.linalg.solve(at.T @ (at * w[:, None]), (at * w[:, None]).T)
    parameters = solve @ covariance @ solve.T
    there = _influence(kind, targets - center).reshape(len(targets), 3, -1)
    squares = np.einsum("mip,pq,miq->m", there, parameters, there)
    return np.asarray(np.sqrt(squares))


def residual_covariance(
    kind: str, points: FloatArray, weights: FloatArray, covariance: FloatArray
) -> FloatArray:
    """Covariance of what a fit leaves of the points' errors, (3 n, 3 n) mm^2.

    Args:
        kind, points, weights, covariance: Of `target_error`; a point of weight 0 has no part in the
            fit, but is carried along.
    """
    at = _influence(kind, points - points.mean(axis=0))
    w = np.repeat(weights, 3)
    hat = at @ np.linalg.solve(at.T @ (at * w[:, None]), (at * w[:, None]).T)
    left = np.eye(len(hat)) - hat
    return np.asarray(left @ covariance @ left.T)


def _influence(kind: str, arm: npt.NDArray[np.float64]) -> FloatArray:
    """(3 n, p) how points at (n, 3) from the centre move with each parameter of a fit."""
    count = len(arm)
    scaled = arm / _ARM_MM
    columns = [np.broadcast_to(axis, (count, 3)) for axis in np.eye(3)]
    if kind == "affine":
        columns += [scaled[:, [j]] * axis for axis in np.eye(3) for j in range(3)]
    else:
        columns += [np.cross(axis, scaled) for axis in np.eye(3)]
        columns += [scaled] if kind == "similarity" else []
    return np.stack([column.reshape(-1) for column in columns], axis=1)
