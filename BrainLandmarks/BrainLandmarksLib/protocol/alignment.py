"""Heads brought into one pose, so that their anatomy can be compared and not their position."""

from __future__ import annotations

import warnings
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine, rigid_fit
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.measures import midline_frame

_ROUNDS = 5


def common_pose(protocol: Protocol, heads: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Rigid motions that bring heads onto their mean (generalised Procrustes, Gower 1975).

    The mean has the heads' average orientation, turned so that its mid-sagittal plane is upright
    and faces forward where the midline landmarks tell it.

    Args:
        heads: (n, K, 3) landmarks, RAS mm, NaN where missing.

    Returns:
        (motions (n, 4, 4), mean (K, 3) in the common pose, NaN where all heads lack a landmark).

    Raises:
        ValueError: heads share too few landmarks to be aligned.
    """
    from scipy.spatial.transform import Rotation

    points = np.array(heads, float)
    present = np.isfinite(points).all(axis=2)
    mean = points[int(present.sum(axis=1).argmax())]
    for _ in range(_ROUNDS):
        mean = nan_mean(_moved(_onto(points, mean), points))
    # From the mean's pose, which is one head's, to the average pose of all.
    turns = Rotation.from_matrix(_onto(points, mean)[:, :3, :3])
    mean = mean @ turns.inv().mean().as_matrix().T
    with suppress(UserError):
        center, axes = midline_frame(protocol, mean)
        mean = (mean - center) @ axes
    motions = _onto(points, mean)
    return motions, nan_mean(_moved(motions, points))


def _onto(heads: FloatArray, mean: FloatArray) -> FloatArray:
    """Rigid motion of each head onto a mean, (n, 4, 4)."""
    motions = []
    for head in heads:
        known = np.isfinite(head).all(axis=1) & np.isfinite(mean).all(axis=1)
        motions.append(rigid_fit(head[known], mean[known]))
    return np.array(motions)


def _moved(motions: FloatArray, heads: FloatArray) -> FloatArray:
    return np.array([apply_affine(m, head) for m, head in zip(motions, heads, strict=True)])


def nan_mean(values: FloatArray) -> FloatArray:
    """Mean over the first axis without NaN; NaN, and no warning, where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))
