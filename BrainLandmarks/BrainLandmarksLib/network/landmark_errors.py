"""How far the landmarks of a head may be from the truth, and which go wrong together.

How large the errors of a model are is what was measured on held-out heads, for each group of
landmarks, spread over the group by how exact each was when the model was calibrated; a landmark
that is less sure than usual counts as that much worse. Which go together was measured at the same
time (`geometry.correction.ANSWER`). What a person placed or confirmed is right to
within `CORRECTED_MM` along each axis, independently of all else.

>>> errors = LandmarkErrors.of_model("brain88", landmarks.protocol)
>>> errors.expected(landmarks).sampled(400).shape
(400, 88, 3)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.correction import ANSWER, Correction, PointErrors
from BrainLandmarksLib.geometry.shape_model import CORRECTED_MM, sigma_of_confidence
from BrainLandmarksLib.network.model_files import (
    REAL_SCANS,
    load_correction,
    model_protocol,
    summarise,
    usual_confidence,
)
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

CALIBRATED, PEOPLE = "calibrated", "people"
"""Where expected errors come from: a model's held-out heads, or what people placed alone."""

_MEAN_LENGTH = 2 * np.sqrt(2 / np.pi)
"""Mean length of an error whose coordinates have standard deviation 1 (Maxwell distribution)."""

_SEED = 88


@dataclass(frozen=True, eq=False)
class ExpectedErrors:
    """The errors that are expected of one head's landmarks.

    Args:
        sigma: (K,) standard deviation along an axis, mm; NaN where a landmark is missing, or
            nothing is known of it.
        covariance: (3 K, 3 K) mm^2, RAS, coordinates of a landmark side by side; rows of landmarks
            without sigma mean nothing.
        source: Where it comes from, as `CALIBRATED`.
    """

    sigma: FloatArray
    covariance: FloatArray
    source: str = CALIBRATED

    def sampled(self, count: int) -> FloatArray:
        """Errors that the landmarks may have, (count, K, 3) mm in RAS; always the same.

        NaN for landmarks without sigma.
        """
        known = np.isfinite(self.sigma)
        rows = np.flatnonzero(np.repeat(known, 3))
        root = np.linalg.cholesky(self.covariance[np.ix_(rows, rows)])
        standard = np.random.default_rng(_SEED).standard_normal((count, 3 * len(self.sigma)))
        errors = np.full(standard.shape, np.nan)
        errors[:, rows] = standard[:, rows] @ root.T
        return errors.reshape(count, -1, 3)


@dataclass(frozen=True, eq=False)
class LandmarkErrors:
    """The errors of a model's landmarks on heads that it has not seen.

    Args:
        sigma: (K,) standard deviation along an axis, mm; NaN for landmarks of which nothing is
            known.
        correction: Tells which errors go together; None if they are independent.
        confidence: The threshold in mm and the usual value of the model's confidence; None if it
            has none.
    """

    sigma: FloatArray
    correction: Correction | None = None
    confidence: tuple[float, float] | None = None

    @classmethod
    def of_people(cls, protocol: Protocol) -> LandmarkErrors:
        """Where no model is known: only what people placed has known errors."""
        return cls(np.full(len(protocol), np.nan))

    @classmethod
    def of_model(cls, name_or_path: str | os.PathLike[str], protocol: Protocol) -> LandmarkErrors:
        """The errors of a model, without loading its networks; of people if it finds others.

        Raises:
            UserError: there is no such model, or it is damaged.
        """
        if model_protocol(name_or_path).hash != protocol.hash:
            return cls.of_people(protocol)
        held_out = summarise(name_or_path).held_out
        tables = [held_out.get(REAL_SCANS, {}).get("errors_mm", {}), held_out.get("errors_mm", {})]
        sigma = np.full(len(protocol), np.nan)
        for group in protocol.groups:
            # A group of which no head had the truth has a count alone.
            of_group = [table.get(group.name, {}) for table in tables]
            known = [each["mean"] for each in of_group if "mean" in each]
            if known:
                sigma[group.first - 1 : group.last] = known[0] / _MEAN_LENGTH
        correction = load_correction(name_or_path, len(protocol))
        errors = cls(sigma, correction, usual_confidence(name_or_path))
        if errors._answer is not None:
            alone = _alone(errors._answer.covariance)
            for group in protocol.groups:
                rows = slice(group.first - 1, group.last)
                sigma[rows] *= alone[rows] / np.sqrt((alone[rows] ** 2).mean())
        return errors

    def of(self, landmarks: LandmarkSet) -> FloatArray:
        """(K,) mm, standard deviation along an axis of each landmark of a head.

        NaN where a landmark is missing, or nothing is known of it.
        """
        sigma = self.sigma
        if self.confidence is not None:
            threshold, usual = self.confidence
            share = sigma_of_confidence(landmarks.confidence, threshold) / sigma_of_confidence(
                usual, threshold
            )
            sigma = sigma * np.where(np.isnan(landmarks.confidence), 1.0, share)
        sigma = np.where(landmarks.by_person, CORRECTED_MM, sigma)
        return np.where(landmarks.missing, np.nan, sigma)

    def expected(self, landmarks: LandmarkSet) -> ExpectedErrors:
        """The errors of a head's landmarks, and how they go together."""
        sigma = self.of(landmarks)
        lengths = np.repeat(np.nan_to_num(sigma, nan=1.0), 3)
        covariance = self._together(landmarks) * np.outer(lengths, lengths)
        known = np.isfinite(self.sigma).any()
        return ExpectedErrors(sigma, covariance, CALIBRATED if known else PEOPLE)

    def _together(self, landmarks: LandmarkSet) -> FloatArray:
        """(3 K, 3 K) covariance in the head's pose, in units of each landmark's sigma."""
        size = 3 * len(self.sigma)
        if self._answer is None:
            return np.eye(size)
        covariance = self._answer.covariance
        alone = np.repeat(_alone(covariance), 3)
        turn = np.kron(np.eye(len(self.sigma)), self._turn(landmarks))
        together = turn @ (covariance / np.outer(alone, alone)) @ turn.T
        own = np.repeat(landmarks.by_person, 3)
        together[own, :] = together[:, own] = 0.0
        together[own, own] = 1.0
        return np.asarray(together)

    @property
    def _answer(self) -> PointErrors | None:
        return None if self.correction is None else self.correction.errors.get(ANSWER)

    def _turn(self, landmarks: LandmarkSet) -> FloatArray:
        """(3, 3) from the canonical pose to the head's."""
        assert self.correction is not None
        try:
            return np.asarray(self.correction.shape.pose(landmarks.points)[:3, :3])
        except ValueError:  # too few points
            return np.eye(3)


def _alone(covariance: FloatArray) -> FloatArray:
    """(K,) root mean square along an axis of each landmark, of a (3 K, 3 K) covariance."""
    return np.asarray(np.sqrt(np.diag(covariance).reshape(-1, 3).mean(1)))
