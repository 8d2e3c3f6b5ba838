"""Whether what was found is a head at all: one number for every detection.

The networks place their landmarks in any image, also in one of noise, of half a head, or of a head
that lies as its header does not say. How sharp their heatmaps are tells little of that. How the
points lie to one another tells it: in a head each is about where all the others lead to expect it
(`shape_model.ShapeModel.deviation`), in anything else hardly any is.

The score is made of the deviation that 85 % of the points stay below, so a few points that are far
off, as in a head with a lesion, do not matter. Points that all lie in one place fit one another,
too, so the size of the whole counts besides. docs/plausibility.md has what was measured, and how
to measure it anew.
"""

from __future__ import annotations

import math

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.protocol.landmarks import PLAUSIBLE, is_plausible

SHARE = 0.85
"""So many of the landmarks of a head deviate less than `LIMIT`."""

LIMIT = 1.5
"""Standard deviations at which a head ends, for the fine network (docs/plausibility.md)."""

LOCATOR_LIMIT = 1.7
"""The same for the locator, which sees less; beyond it, the other orientations are tried."""

SIGMA_MM = 4.0
"""Error along each axis that every point is granted: the question is whether this is a head."""

_STEEPNESS = 8
_VARIES, _VARIES_UNKNOWN = 0.1, 0.16
"""Share of their size by which heads, and each of their points besides, vary; and what is granted
where no shape model says how landmarks vary together."""

_BROAD = 0.04
"""Landmarks of a useful shape model vary by this share of the head's size at least: one that was
made of a few heads that are alike would refuse all others."""

_FEWEST_WAYS = 3.0
"""... and in so many independent ways."""

_SIZES = 0.3
"""Heads differ in size by this factor (of e): a newborn's has two thirds of an adult's."""

_LEAST_MM = 2.0
_FEWEST = 4


class Judge:
    """Judges the landmarks that a model finds.

    >>> judge = Judge(model.shape, model.spec.mean_shape)
    >>> judge(detection.landmarks.points)
    0.998

    A head is what the model's shape model allows, or `usual_shape`: the heads that a model was
    trained on may be few and alike, and then their shape model knows no others.

    Args:
        shape: How the landmarks vary over heads; None for a model without one.
        mean: (K, 3) the model's mean landmarks, mm.
    """

    def __init__(self, shape: ShapeModel | None, mean: FloatArray) -> None:
        self.mean = mean
        if shape is not None and _is_broad(shape):
            self.shapes = [shape, usual_shape(mean, _VARIES)]
        else:
            self.shapes = [usual_shape(mean)]

    def __call__(self, points: FloatArray, limit: float = LIMIT) -> float:
        """Plausibility, 0 to 1, of (K, 3) landmarks in RAS mm, in any pose.

        Args:
            limit: Of the network that found them, standard deviations.
        """
        return plausibility_of(self.misfit(points), limit)

    def misfit(self, points: FloatArray) -> float:
        """What `SHARE` of (K, 3) landmarks deviate less than, standard deviations.

        Points that are missing, NaN, are not judged. Infinite for points that have no shape. Fewer
        than four points always fit.
        """
        if np.isfinite(points).all(axis=1).sum() < _FEWEST:
            return 0.0
        try:
            every = [
                np.nanquantile(shape.deviation(points, SIGMA_MM), SHARE) for shape in self.shapes
            ]
        except ValueError:  # all points in one place or on one line
            return math.inf
        return max(float(min(every)), self._size_misfit(points))

    def _size_misfit(self, points: FloatArray) -> float:
        """How much too small or too large the whole is, standard deviations.

        Each landmark alone cannot tell: the others lead to expect it where a head of their size has
        it, however small that is.
        """
        found, usual = _reach(points), _reach(self.mean)
        return abs(math.log((found + SIGMA_MM) / (usual + SIGMA_MM))) / _SIZES


def plausibility_of(misfit: float, limit: float = LIMIT) -> float:
    """From 1 for no deviation at all over `PLAUSIBLE` at the limit towards 0."""
    return float(1 / (1 + (misfit / limit) ** _STEEPNESS))


def usual_shape(mean: FloatArray, varies: float = _VARIES_UNKNOWN) -> ShapeModel:
    """What is taken for the shape model of a model that has none, (K, 3) mm.

    Args:
        varies: Heads differ in size by this share, and each of their points by this share of their
            size besides.
    """
    arm, size = _arm(mean), _size(mean)
    return ShapeModel(mean, varies * arm.reshape(1, -1), max(varies * size, _LEAST_MM))


def _is_broad(shape: ShapeModel) -> bool:
    """Whether a shape model knows heads that differ, and in more than one way."""
    variances = (shape.modes**2).sum(axis=1)
    # Participation ratio: how many modes share the variance.
    ways = variances.sum() ** 2 / max(float((variances**2).sum()), 1e-12)
    spread = np.sqrt(variances.sum() / len(shape.mean))
    return bool(ways >= _FEWEST_WAYS and spread > _BROAD * _size(shape.mean))


def _arm(mean: FloatArray) -> FloatArray:
    return np.asarray(mean - mean.mean(axis=0))


def _size(mean: FloatArray) -> float:
    """Root mean square distance of landmarks from their middle, mm."""
    return float(np.sqrt((_arm(mean) ** 2).sum(axis=1).mean()))


def _reach(points: FloatArray) -> float:
    """Usual distance of landmarks from their middle, mm, whatever some of them do."""
    return float(np.median(np.linalg.norm(_arm(points), axis=1)))


def weakened(confidence: FloatArray, plausibility: float) -> FloatArray:
    """Confidences on a head as they are, on anything else the nearer to 0 the less it is one."""
    if is_plausible(plausibility):
        return confidence
    return confidence * (plausibility / PLAUSIBLE)
