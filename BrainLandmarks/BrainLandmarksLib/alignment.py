"""Heads brought into one pose, so that their anatomy can be compared and not their position."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry import FloatArray, apply_affine, rigid_fit

_ROUNDS = 5


def common_pose(heads: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Rigid motions that bring heads onto their mean (generalised Procrustes, Gower 1975).

    The pose of the mean is that of the most complete head, turned as little as possible.

    Args:
        heads: (n, K, 3) landmarks, RAS mm, NaN where missing.

    Returns:
        (motions (n, 4, 4), mean (K, 3) in the common pose, NaN where all heads lack a landmark).

    Raises:
        ValueError: heads share too few landmarks to be aligned.
    """
    points = np.array(heads, float)
    present = np.isfinite(points).all(axis=2)
    mean = points[int(present.sum(axis=1).argmax())]
    for _ in range(_ROUNDS):
        motions = np.array([_motion(head, mean) for head in points])
        moved = np.array([apply_affine(m, head) for m, head in zip(motions, points)])
        mean = nan_mean(moved)
    return motions, mean


def _motion(head: FloatArray, mean: FloatArray) -> FloatArray:
    known = np.isfinite(head).all(axis=1) & np.isfinite(mean).all(axis=1)
    return rigid_fit(head[known], mean[known])


def nan_mean(values: FloatArray) -> FloatArray:
    """Mean over the first axis without NaN; NaN, and no warning, where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))
