"""Heads brought into one pose, so that their anatomy can be compared and not their position."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import nan_mean, procrustes_mean, rigid_fit
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
    first = points[int(present.sum(axis=1).argmax())]
    mean = procrustes_mean(points, first, _ROUNDS)
    # From the mean's pose, which is one head's, to the average pose of all.
    turns = Rotation.from_matrix([rigid_fit(head, mean)[:3, :3] for head in points])
    mean = mean @ turns.inv().mean().as_matrix().T
    with suppress(UserError):
        center, axes = midline_frame(protocol, mean)
        mean = (mean - center) @ axes
    motions = np.array([rigid_fit(head, mean) for head in points])
    moved = [apply_affine(motion, head) for motion, head in zip(motions, points, strict=True)]
    return motions, nan_mean(np.array(moved))
