"""People who annotate, simulated: ground truth with the errors that the paper found in its first.

"Initially, the landmarks were not co-planar" and not equidistant (section IV-B, Fig. 6). Errors of
stated size are put on a rule-made annotation, each kind for itself, so that agreement, correction
and training on uncorrected ground truth can be tried where nobody has annotated anything.

>>> rater = Rater.random(protocol, np.random.default_rng(1))
>>> points = rater.annotate(truth, np.random.default_rng(2))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.compliance import shared_planes
from BrainLandmarksLib.protocol.constraints import chain_rows, outline
from BrainLandmarksTrainLib.settings import setting


@dataclass(frozen=True)
class RaterErrors:
    """Sizes of the errors; standard deviations unless said otherwise."""

    anatomy_mm: float = setting(0.7, "Along each axis: where a structure is, mm.", low=0)
    off_plane_mm: float = setting(1.5, "Off the plane that a group shares, mm.", low=0)
    spacing: float = setting(
        0.15, "Along the outline, of points at equal distances: a share of the step.", low=0
    )
    habit_mm: float = setting(
        0.5, "Along each axis: how a person reads a definition, the same on all heads, mm.", low=0
    )
    swapped: float = setting(
        0.01, "Probability that the names of a left-right pair are swapped.", low=0, high=1,
        formerly="exchanged",
    )  # fmt: skip


@dataclass(frozen=True)
class Rater:
    """One person: a habit (K, 3) mm that is the same on all heads, and errors of a size."""

    protocol: Protocol
    habit: FloatArray
    errors: RaterErrors

    @classmethod
    def random(
        cls, protocol: Protocol, rng: np.random.Generator, errors: RaterErrors | None = None
    ) -> Rater:
        """A person with a habit of their own."""
        size = errors or RaterErrors()
        return cls(protocol, rng.normal(0, size.habit_mm, (len(protocol), 3)), size)

    def annotate(self, truth: npt.ArrayLike, rng: np.random.Generator) -> FloatArray:
        """What this person would mark on a head.

        Args:
            truth: (K, 3) RAS mm, NaN where missing; a missing point stays missing.

        Returns:
            (K, 3) RAS mm.
        """
        exact = np.array(truth, float)
        points = exact + self.habit
        count = len(self.protocol)
        points += rng.normal(0, self.errors.anatomy_mm, (count, 3))
        along = rng.normal(0, self.errors.spacing, count)
        off = rng.normal(0, self.errors.off_plane_mm, count)
        for chain in self.protocol.chains:
            rows = chain_rows(self.protocol, chain)
            if not np.isfinite(exact[rows]).all():
                continue
            parts = 20
            curve = outline(exact[rows], chain, parts)
            slope = np.gradient(curve, axis=0)[::parts][: len(rows)] * parts
            secondary = [self.protocol.landmarks[row].role == "secondary" for row in rows]
            points[rows] += slope * (along[rows] * secondary)[:, None]
        for row, plane in enumerate(shared_planes(self.protocol, exact)):
            if plane is not None:
                normal = plane[1]
                points[row] += (off[row] - (points[row] - exact[row]) @ normal) * normal
        chance = rng.random(count)
        partners = self.protocol.mirror_permutation()
        for row, landmark in enumerate(self.protocol.landmarks):
            partner = partners[row]
            if landmark.side == "L" and chance[row] < self.errors.swapped:
                points[[row, partner]] = points[[partner, row]]
        return points
