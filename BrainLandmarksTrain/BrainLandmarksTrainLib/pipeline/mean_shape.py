"""The mean landmark shape of a set of heads, in a canonical pose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import procrustes_mean, rigid_fit

_ROUNDS = 30
_MIRROR = np.diag([-1.0, 1.0, 1.0])


def mean_shape(heads: Sequence[FloatArray], mirror: np.ndarray) -> FloatArray:
    """Mean of heads aligned rigidly (generalised Procrustes analysis, Gower 1975, no scaling).

    The mean is symmetric: every head counts together with its mirror image, so the mid-sagittal
    plane is x = 0. Its pitch is the average pitch of the heads in their scanners, and the middle
    of its bounding box is the origin.

    Args:
        heads: (K, 3) landmarks of each head, RAS mm, NaN for missing ones.
        mirror: (K,) index of each landmark's left-right partner.

    Returns:
        (K, 3) mean positions, mm.

    Raises:
        ValueError: a landmark is missing in all heads.
    """
    present = [np.isfinite(points).all(1) for points in heads]
    if not np.any(present, axis=0).all():
        raise ValueError("a landmark that no head has cannot have a mean position")
    first = heads[int(np.argmax([p.sum() for p in present]))]
    both = [each for points in heads for each in (points, (points @ _MIRROR)[mirror])]

    def symmetric(mean: FloatArray) -> FloatArray:
        return (mean + (mean @ _MIRROR)[mirror]) / 2

    mean = procrustes_mean(both, first - np.nanmean(first, axis=0), _ROUNDS, symmetric)
    mean = mean @ _average_pitch(mean, heads).T
    return np.asarray(mean - (mean.max(0) + mean.min(0)) / 2)


def _average_pitch(mean: FloatArray, heads: Sequence[FloatArray]) -> FloatArray:
    """Rotation about x that turns the mean to the heads' average orientation."""
    rotations = [rigid_fit(mean, points)[:3, :3] for points in heads]
    u, _, v = np.linalg.svd(np.mean(rotations, axis=0))
    average = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    angle = np.arctan2(average[2, 1], average[1, 1])
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
