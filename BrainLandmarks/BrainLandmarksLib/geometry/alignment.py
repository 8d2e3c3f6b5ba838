"""Points brought onto other points, and the mean of many heads that are (Procrustes).

>>> fit = robust_fit(moving, fixed, sigma, "rigid")
>>> moved = apply_affine(fit.affine, moving)
>>> fit.used                        # which points had a say; the others are wrong
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine

FREEDOMS = {"rigid": 6, "similarity": 7, "affine": 12}
"""Kinds of linear transforms, and how many parameters each has."""

WRONG = 3.5
"""A point that lies farther off than this many robust standard deviations has no say. Of right
points less than one in a hundred does (chi distribution with three degrees of freedom)."""

CHI3_MEDIAN = 1.5382
"""Median length of a vector of three standard normal numbers."""

_CUTOFF = 5.5
"""Of Tukey's biweight, robust standard deviations: nearly as exact as least squares in 3-D."""

LEAST_MM = 0.01
"""Points that are nearer to where they belong are right: files do not state them more exactly."""

_DRAWS, _ROUNDS = 100, 100
_SETTLED_MM = 1e-7


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
    a, b, w = _pairs(source, target, weights)
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


def _pairs(
    source: npt.ArrayLike, target: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The pairs that count, and their weights, as float64."""
    a = np.asarray(source, dtype=np.float64)
    b = np.asarray(target, dtype=np.float64)
    w = np.ones(len(a)) if weights is None else np.asarray(weights, dtype=np.float64)
    used = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1) & (w > 0)
    return a[used], b[used], w[used]


def affine_fit(
    source: npt.ArrayLike, target: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """The affine that best carries source onto target, by weighted least squares; 4x4.

    Args:
        source, target, weights: As of `rigid_fit`.

    Raises:
        ValueError: with fewer than four points that are not in one plane.
    """
    a, b, w = _pairs(source, target, weights)
    if len(a) < 4:
        raise ValueError("an affine fit needs at least four pairs of points")
    w = w / w.sum()
    center_a, center_b = w @ a, w @ b
    a, b = a - center_a, b - center_b
    spread = a.T @ (a * w[:, None])
    values = np.linalg.eigvalsh(spread)
    if values[0] <= 1e-9 * max(values[-1], np.finfo(float).tiny):
        raise ValueError("an affine fit needs points that are not in one plane")
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.solve(spread, a.T @ (b * w[:, None])).T
    affine[:3, 3] = center_b - affine[:3, :3] @ center_a
    return affine


def linear_fit(
    kind: str, source: FloatArray, target: FloatArray, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """The fit of a kind of `FREEDOMS`; 4x4.

    Raises:
        ValueError: too few points, or all on one line or, for an affine, in one plane.
    """
    if kind == "affine":
        return affine_fit(source, target, weights)
    return rigid_fit(source, target, weights, scale=kind == "similarity")


@dataclass(frozen=True)
class RobustFit:
    """A fit on which wrong points have no influence.

    Args:
        affine: 4x4, source to target.
        residuals: (n, 3) target less carried source, NaN where one of the two is missing.
        weights: (n,) of the last least squares fit; 0 where a point has no say.
        used: (n,) whether a point lies where the others lead to expect it.
        scale: By which factor the points are farther apart than their errors say.
    """

    affine: FloatArray
    residuals: FloatArray
    weights: FloatArray
    used: npt.NDArray[np.bool_]
    scale: float


def robust_fit(
    source: npt.ArrayLike, target: npt.ArrayLike, sigma: npt.ArrayLike, kind: str = "rigid"
) -> RobustFit:
    """A linear fit that holds while fewer than half of the pairs are wrong.

    The best of many fits to a few points each, by the median of the residuals (Rousseeuw, J. Am.
    Stat. Assoc. 79, 1984), is where iterated least squares with Tukey's biweight begin. The draws
    are the same every time.

    Args:
        source, target: (n, 3) mm, NaN where missing.
        sigma: (n,) expected standard deviation of target less carried source along each axis, mm;
            only their ratios matter for the fit.
        kind: One of `FREEDOMS`.

    Raises:
        ValueError: too few points, or all on one line or, for an affine, in one plane.
    """
    a, b = np.asarray(source, float), np.asarray(target, float)
    errors = np.broadcast_to(np.asarray(sigma, float), a.shape[:1])
    there = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1) & np.isfinite(errors)
    x, y, e = a[there], b[there], errors[there]
    affine = _start(kind, x, y, e)
    tiny = LEAST_MM / WRONG / (float(e.min()) if len(e) else 1.0)
    scale = tiny
    for _ in range(_ROUNDS):
        off = _off(affine, x, y, e)
        scale = max(float(np.median(off)) / CHI3_MEDIAN, tiny)
        weights = np.clip(1 - (off / (_CUTOFF * scale)) ** 2, 0, None) ** 2 / e**2
        after = linear_fit(kind, x, y, weights)
        settled = np.abs(apply_affine(after, x) - apply_affine(affine, x)).max() < _SETTLED_MM
        affine = after
        if settled:
            break
    off = _off(affine, x, y, e)
    used = off <= WRONG * scale
    free = 3 * int(used.sum()) - FREEDOMS[kind]
    if free > 0:
        scale = float(np.sqrt((off[used] ** 2).sum() / free))
    residuals = b - apply_affine(affine, a)
    residuals[~there] = np.nan
    return RobustFit(
        affine, residuals, _spread_out(weights, there), _spread_out(used, there).astype(bool), scale
    )


def _start(kind: str, x: FloatArray, y: FloatArray, sigma: FloatArray) -> FloatArray:
    """Fit to a few pairs that suits most of all best."""
    best = linear_fit(kind, x, y, 1 / sigma**2)
    off = _off(best, x, y, sigma)
    least = float(np.median(off))
    few = 5 if kind == "affine" else 4
    if len(x) <= few or off.max() <= 2 * WRONG * least / CHI3_MEDIAN:  # nothing is very wrong
        return best
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        rows = rng.choice(len(x), few, replace=False)
        try:
            affine = linear_fit(kind, x[rows], y[rows], 1 / sigma[rows] ** 2)
        except ValueError:  # in one plane
            continue
        typical = float(np.median(_off(affine, x, y, sigma)))
        if typical < least:
            best, least = affine, typical
    return best


def _off(affine: FloatArray, x: FloatArray, y: FloatArray, sigma: FloatArray) -> FloatArray:
    """(n,) distances of targets from carried points, in errors along an axis."""
    return np.asarray(np.linalg.norm(y - apply_affine(affine, x), axis=1) / sigma)


def _spread_out(values: npt.NDArray[np.generic], there: npt.NDArray[np.bool_]) -> FloatArray:
    """Values of the points that are there, and 0 for all others."""
    result = np.zeros(len(there))
    result[there] = values
    return result


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
