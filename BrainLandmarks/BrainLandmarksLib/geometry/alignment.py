"""Points brought onto other points rigidly, and the mean of many heads that are (Procrustes)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine


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


def onto(points: FloatArray, target: FloatArray) -> FloatArray:
    """Points (K, 3) moved rigidly to where they lie best on a target; NaN where missing."""
    return apply_affine(rigid_fit(points, target), points)


def in_pose_of(mean: FloatArray, head: FloatArray, vectors: FloatArray) -> FloatArray:
    """Vectors (K, 3) at a head, turned as if the head lay in the pose of its mean.

    Args:
        mean: (K, 3) landmarks in the canonical pose, mm.
        head: (K, 3) the landmarks of the head, mm, NaN where missing.
    """
    return vectors @ rigid_fit(mean, head)[:3, :3]


def procrustes_mean(
    heads: Collection[FloatArray],
    start: FloatArray,
    rounds: int,
    finish: Callable[[FloatArray], FloatArray] = lambda mean: mean,
) -> FloatArray:
    """Mean of heads that are aligned with it (generalised Procrustes, Gower 1975, no scaling).

    Args:
        heads: (K, 3) points of each, mm, NaN where missing.
        start: (K, 3) what the heads are aligned with first.
        rounds: How often they are aligned anew.
        finish: Makes the mean of every round what it has to be, such as symmetric.

    Returns:
        (K, 3) mm, NaN where all heads lack a point.

    Raises:
        ValueError: heads share too few points to be aligned.
    """
    mean = start
    for _ in range(rounds):
        mean = finish(nan_mean(np.array([onto(head, mean) for head in heads])))
    return mean


def nan_mean(values: FloatArray) -> FloatArray:
    """Mean over the first axis without NaN; NaN, and no warning, where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))
