"""How far the landmarks of a head may be from the truth, and which go wrong together.

How large the errors are is what was measured on held-out heads, for each group of landmarks; a
landmark that is less sure than usual counts as that much worse. How they go together is what the
model's correction leaves possible (`geometry.correction`). What a person placed or confirmed is
right to within `CORRECTED_MM` along each axis, independently of all else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.correction import Correction
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

_MEAN_OF_SIGMA = 2 * np.sqrt(2 / np.pi)
"""Mean length of an error whose coordinates have standard deviation 1 (Maxwell distribution)."""

_SEED = 88


@dataclass(frozen=True, eq=False)
class LandmarkErrors:
    """The errors of a model's landmarks.

    >>> errors = LandmarkErrors.of_model("brain88", protocol)
    >>> errors.sampled(landmarks, 400).shape
    (400, 88, 3)

    Args:
        sigma_mm: (K,) standard deviation along an axis, NaN for landmarks of which nothing is
            known.
        correction: Tells which errors go together; None if they are independent.
        confidence: The threshold in mm and the usual value of the model's confidence; None if it
            has none.
    """

    sigma_mm: FloatArray
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
        means = np.full(len(protocol), np.nan)
        for group in protocol.groups:
            known = [table[group.name]["mean"] for table in tables if group.name in table]
            if known:
                means[group.first - 1 : group.last] = known[0]
        return cls(
            means / _MEAN_OF_SIGMA,
            load_correction(name_or_path, len(protocol)),
            usual_confidence(name_or_path),
        )

    def of(self, landmarks: LandmarkSet) -> FloatArray:
        """(K,) mm, standard deviation along an axis of each landmark of a head, NaN if unknown."""
        sigma = self.sigma_mm.copy()
        if self.confidence is not None:
            threshold, usual = self.confidence
            share = sigma_of_confidence(landmarks.confidence, threshold) / sigma_of_confidence(
                usual, threshold
            )
            sigma *= np.where(np.isnan(landmarks.confidence), 1.0, share)
        return np.where(landmarks.by_person, CORRECTED_MM, sigma)

    def sampled(self, landmarks: LandmarkSet, count: int) -> FloatArray:
        """Errors that the landmarks of a head may have, (count, K, 3) mm in RAS; always the same.

        NaN for landmarks that are missing or of whose errors nothing is known.
        """
        sigma = np.where(landmarks.missing, np.nan, self.of(landmarks))
        size = 3 * len(sigma)
        standard = np.random.default_rng(_SEED).standard_normal((count, size))
        together = (standard @ self._root.T).reshape(count, -1, 3) @ self._turn(landmarks).T
        alone = standard.reshape(count, -1, 3)
        errors = np.where(landmarks.by_person[:, None], alone, together)
        return np.asarray(errors * sigma[:, None])

    @cached_property
    def _root(self) -> FloatArray:
        """(3 K, 3 K) square root of the covariance in the canonical pose, in units of sigma."""
        size = 3 * len(self.sigma_mm)
        if self.correction is None or self.correction.usual_part is None:
            return np.eye(size)
        covariance = self.correction.remaining(self.correction.usual_part)
        each = np.sqrt(np.diag(covariance).reshape(-1, 3).mean(1)).repeat(3)
        return np.asarray(np.linalg.cholesky(covariance / np.outer(each, each)), float)

    def _turn(self, landmarks: LandmarkSet) -> FloatArray:
        """(3, 3) from the canonical pose to the head's."""
        if self.correction is None:
            return np.eye(3)
        try:
            return np.asarray(self.correction.shape.pose(landmarks.points)[:3, :3])
        except ValueError:  # too few points
            return np.eye(3)
