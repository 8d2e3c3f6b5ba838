"""Do several people measure the same? Intraclass correlation and Bland-Altman limits.

Formulas of P. E. Shrout and J. L. Fleiss, Psychol. Bull. 86:420-428 (1979), checked by a test
against the example there, and of J. M. Bland and D. G. Altman, Lancet 327:307-310 (1986).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray

LIMITS = 1.96
"""Standard deviations from the bias to the limits of agreement: 95 % of normal differences."""


@dataclass(frozen=True)
class Icc:
    """Intraclass correlations of single ratings; NaN with fewer than two complete targets.

    Args:
        two_one: ICC(2,1): the raters are a sample of many, and a constant difference between them
            counts as disagreement.
        three_one: ICC(3,1): these raters and no others; a constant difference does not count.
        targets: How many targets all raters had rated.
    """

    two_one: float
    three_one: float
    targets: int


def intraclass_correlation(ratings: npt.ArrayLike) -> Icc:
    """ICC(2,1) and ICC(3,1) by two-way analysis of variance.

    Args:
        ratings: (targets, raters); targets with a NaN are left out.

    Raises:
        ValueError: fewer than two raters.
    """
    x = np.array(ratings, float)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError("agreement needs two raters or more")
    x = x[np.isfinite(x).all(axis=1)]
    n, k = x.shape
    if n < 2:
        return Icc(float("nan"), float("nan"), n)
    grand, of_target, of_rater = x.mean(), x.mean(axis=1), x.mean(axis=0)
    targets = k * ((of_target - grand) ** 2).sum() / (n - 1)
    raters = n * ((of_rater - grand) ** 2).sum() / (k - 1)
    rest = x - of_target[:, None] - of_rater + grand
    error = (rest**2).sum() / ((n - 1) * (k - 1))
    both = targets + (k - 1) * error
    with_raters = both + k * (raters - error) / n
    return Icc(_ratio(targets - error, with_raters), _ratio(targets - error, both), n)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


@dataclass(frozen=True)
class Limits:
    """Bias and limits of agreement between two raters, arrays over whatever was compared."""

    bias: FloatArray
    lower: FloatArray
    upper: FloatArray


def bland_altman(first: npt.ArrayLike, second: npt.ArrayLike) -> Limits:
    """Mean of first - second over the targets, and 1.96 standard deviations either side.

    Args:
        first, second: (targets, ...) ratings; NaN are left out.

    Returns:
        Arrays of shape (...); NaN where fewer than two targets have both ratings.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    count = np.isfinite(difference).sum(axis=0)
    total = np.nansum(difference, axis=0)
    enough = count >= 2
    bias = np.where(enough, total / np.maximum(count, 1), np.nan)
    square = np.nansum((difference - bias) ** 2, axis=0)
    half = LIMITS * np.sqrt(square / np.where(enough, count - 1, np.nan))
    return Limits(bias, bias - half, bias + half)
