"""What has changed in a head since an earlier scan, and what may be nothing but error.

The heads are aligned rigidly by the landmarks that stayed where they were. What a landmark has
moved by is compared with what errors alone would move it by: those of both detections, less what
the landmarks have in common, which the alignment takes away.

>>> change = follow(baseline, later, before, after)
>>> [m.label for m in change.moves if m.changed]

All landmarks and distances of a scan are tested together: Holm's procedure (Scand. J. Stat. 6,
1979, 65-70) keeps the probability that anything at all is called a change in a head that has not
changed below `LEVEL`, however the errors depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import robust_fit
from BrainLandmarksLib.geometry.fit_error import residual_covariance
from BrainLandmarksLib.network.landmark_errors import ExpectedErrors
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.protocol.measures import measured
from BrainLandmarksLib.registration.register import (
    joint_covariance,
    measured_errors,
    need_alike,
    together,
)

LEVEL = 0.05
"""How often anything is called a change in a head that has not changed."""

FEWEST = 6
"""Landmarks that both scans must have."""


@dataclass(frozen=True)
class Move:
    """What a landmark has moved by.

    Args:
        label: The landmark.
        group: Its sub-anatomy.
        mm: (3,) in the space of the baseline, RAS.
        expected_mm: Root mean square length of what errors alone would move it by.
        z: By how many standard deviations of a normal distribution this is more than error.
        p: How often errors alone move it that much.
        changed: Whether it is more than error, all landmarks and distances together.
        stable: Whether the heads were aligned by it.
    """

    label: str
    group: str
    mm: FloatArray
    expected_mm: float
    z: float
    p: float
    changed: bool
    stable: bool

    @property
    def length_mm(self) -> float:
        """How far it has moved."""
        return float(np.linalg.norm(self.mm))


@dataclass(frozen=True)
class Growth:
    """What a distance of the protocol has grown by.

    Args:
        name: The distance.
        before_mm, after_mm: At both times.
        expected_mm, z, p, changed: As of `Move`; z is negative for what has become shorter.
    """

    name: str
    before_mm: float
    after_mm: float
    expected_mm: float
    z: float
    p: float
    changed: bool

    @property
    def mm(self) -> float:
        """By how much it has grown."""
        return self.after_mm - self.before_mm


@dataclass(frozen=True)
class Change:
    """What has changed from one scan of a head to another.

    Args:
        protocol: The landmarks.
        affine: 4x4 rigid, from the later scan to the baseline, RAS.
        scale: By which factor the stable landmarks are farther apart than expected errors say; more
            than 1 widens the expected errors.
        moves: One for each landmark that both scans have, in the protocol's order.
        distances: One for each distance of the protocol that both have.
        errors_from: Where the expected errors come from, of the baseline and of the later scan.
    """

    protocol: Protocol
    affine: FloatArray
    scale: float
    moves: list[Move]
    distances: list[Growth]
    errors_from: tuple[str, str]

    @property
    def changed(self) -> list[str]:
        """Landmarks and distances that have changed, as a reader calls them."""
        return [m.label for m in self.moves if m.changed] + [
            d.name for d in self.distances if d.changed
        ]


def follow(
    baseline: LandmarkSet, later: LandmarkSet, before: ExpectedErrors, after: ExpectedErrors
) -> Change:
    """Compare two scans of a head.

    Args:
        before, after: The expected errors of the landmarks.

    Raises:
        UserError: the two are of different protocols, have too few landmarks in common, or left and
            right are exchanged in one of them.
    """
    need_alike(later, baseline, FEWEST, "a follow-up")
    protocol = baseline.protocol
    sigma = together(before, after)
    try:
        fit = robust_fit(later.points, baseline.points, sigma, "rigid")
    except ValueError as error:
        raise UserError(
            "the landmarks that both scans have lie on one line, so that the heads cannot be "
            "aligned; place more of them."
        ) from error
    rows = np.flatnonzero(np.isfinite(fit.residuals).all(axis=1))
    carried = apply_affine(fit.affine, later.points)
    scale, _ = measured_errors("rigid", fit, later.points, after, before)
    errors = max(scale, 1.0) ** 2 * joint_covariance(after, before, fit.affine)
    triples = (3 * rows[:, None] + np.arange(3)).ravel()
    left = residual_covariance(
        "rigid", carried[rows], fit.weights[rows], errors[np.ix_(triples, triples)]
    )
    moved = (carried - baseline.points)[rows]
    p_moves, sizes = [], []
    for n, step in enumerate(moved):
        block = left[3 * n : 3 * n + 3, 3 * n : 3 * n + 3]
        p_moves.append(_p_of_three(float(step @ np.linalg.solve(block, step))))
        sizes.append(float(np.sqrt(np.trace(block))))
    grown = _grown(baseline, later, errors)
    p_grown = [_p_of_one(mm / expected) for _, _, mm, expected in grown]
    changed = holm([*p_moves, *p_grown])
    moves = [
        Move(protocol.labels[row], protocol.landmarks[row].group, moved[n], sizes[n],
             _z(p_moves[n]), p_moves[n], changed[n], bool(fit.used[row]))
        for n, row in enumerate(rows)
    ]  # fmt: skip
    distances = [
        Growth(name, start, start + mm, expected, float(np.copysign(_z(p), mm)), p, flag)
        for (name, start, mm, expected), p, flag in zip(grown, p_grown, changed[len(rows) :])
    ]
    return Change(protocol, fit.affine, scale, moves, distances, (before.source, after.source))


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of many hypotheses are rejected, so that with `level` at most any is wrongly so."""
    order = np.argsort(p_values)
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(order) - rank):
            break
        rejected[index] = True
    return rejected


def _grown(
    baseline: LandmarkSet, later: LandmarkSet, errors: FloatArray
) -> list[tuple[str, float, float, float]]:
    """Name, mm at first, by how much it has grown, and expected error of each distance."""
    found = []
    for first, second in zip(measured(baseline), measured(later), strict=True):
        if not np.isfinite(first.mm + second.mm) or first.mm == 0:
            continue
        ends = [
            baseline.protocol.by_label(label).index - 1
            for label in (first.distance.first, first.distance.second)
        ]
        along = (baseline.points[ends[1]] - baseline.points[ends[0]]) / first.mm
        slope = np.zeros(len(errors))
        for end, sign in zip(ends, (-1.0, 1.0)):
            slope[3 * end : 3 * end + 3] = sign * along
        expected = float(np.sqrt(slope @ errors @ slope))
        found.append((first.distance.name, first.mm, second.mm - first.mm, expected))
    return found


def _p_of_three(square: float) -> float:
    from scipy.stats import chi2

    return float(chi2.sf(square, 3))


def _p_of_one(z: float) -> float:
    from scipy.stats import norm

    return float(2 * norm.sf(abs(z)))


def _z(p: float) -> float:
    """How far a normal number is from 0 that is as improbable; 0 for what is quite probable."""
    from scipy.stats import norm

    return float(norm.isf(max(p, 1e-300) / 2))
