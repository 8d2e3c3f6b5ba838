"""Whether what was found is a head at all: one number for every detection.

The networks place their landmarks in any image, also in one of noise, of half a head, or of a head
that lies as its header does not say. How sharp their heatmaps are tells little of that. How the
points lie to one another tells it: in a head each is about where all the others lead to expect it
(`shape_model.ShapeModel.deviation`), in anything else hardly any is.

The score is made of the deviation that 85 % of the points stay below, so a few points that are far
off, as in a head with a lesion, do not matter. docs/plausibility.md has what was measured, and how
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
_VARIES = 0.1
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
        own = [] if shape is None else [shape]
        self.shapes = [*own, usual_shape(mean)]

    def __call__(self, points: FloatArray, limit: float = LIMIT) -> float:
        """Plausibility, 0 to 1, of (K, 3) landmarks in RAS mm, in any pose.

        Args:
            limit: Of the network that found them, standard deviations.
        """
        return plausibility_of(self.misfit(points), limit)

    def misfit(self, points: FloatArray) -> float:
        """What `SHARE` of (K, 3) landmarks deviate less than, standard deviations.

        Infinite for points that have no shape. Fewer than four points always fit.
        """
        if len(points) < _FEWEST:
            return 0.0
        try:
            every = [np.quantile(shape.deviation(points, SIGMA_MM), SHARE) for shape in self.shapes]
        except ValueError:  # all points in one place or on one line
            return math.inf
        return float(min(every))


def plausibility_of(misfit: float, limit: float = LIMIT) -> float:
    """From 1 for no deviation at all over `PLAUSIBLE` at the limit towards 0."""
    return float(1 / (1 + (misfit / limit) ** _STEEPNESS))


def usual_shape(mean: FloatArray) -> ShapeModel:
    """What is taken for the shape model of a model that has none, (K, 3) mm.

    Heads differ in size by a tenth, and each of their points by a tenth of their size besides.
    """
    arm = mean - mean.mean(axis=0)
    size = float(np.sqrt((arm**2).sum(axis=1).mean()))
    return ShapeModel(mean, _VARIES * arm.reshape(1, -1), max(_VARIES * size, _LEAST_MM))


def weakened(confidence: FloatArray, plausibility: float) -> FloatArray:
    """Confidences on a head as they are, on anything else the nearer to 0 the less it is one."""
    if is_plausible(plausibility):
        return confidence
    return confidence * (plausibility / PLAUSIBLE)
