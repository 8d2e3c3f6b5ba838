"""How exact landmarks are expected to be, before anything else is known of a head.

What a model was measured to err on scans that it was not trained on, spread over the landmarks of a
group by what annotated scans taught about each (`geometry.correction`), and more where the network
was less sure than usual. Points that a person has placed have a person's error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import CHI3_MEDIAN, rigid_fit
from BrainLandmarksLib.geometry.shape_model import CORRECTED_MM, sigma_of_confidence
from BrainLandmarksLib.io.delimited import number, read_sheet
from BrainLandmarksLib.io.landmarks.matching import read_text
from BrainLandmarksLib.network.model_files import load_correction, summarise
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

THRESHOLD_MM = 4.0
"""A confidence is the probability of a smaller error than this."""

UNKNOWN_MM = 1.5
"""Standard deviation along each axis of a landmark of which nothing is known."""

LEAST_MM = 0.05
"""No scan is repeated more exactly than this."""

_MEAN_LENGTH = 2 * np.sqrt(2 / np.pi)
"""Mean length of a vector of three standard normal numbers."""


@dataclass(frozen=True)
class Calibrated:
    """The errors of a model's landmarks on heads that it has not seen.

    Args:
        sigma: (K,) standard deviation along each axis, mm.
        correlation: (3 K, 3 K) of the coordinates in the pose of `mean`; None if unknown.
        mean: (K, 3) the landmarks in that pose, mm.
    """

    sigma: FloatArray
    correlation: FloatArray | None = None
    mean: FloatArray | None = None

    @classmethod
    def of_model(cls, model: str | os.PathLike[str], protocol: Protocol) -> Calibrated | None:
        """What the files of a model say; None if they say nothing of these landmarks.

        Raises:
            UserError: there is no such model, or it is damaged.
        """
        about = summarise(model)
        if about.protocol_hash != protocol.hash:
            return None
        by_group = np.array([_of_group(about.held_out, g.name) for g in protocol.groups])
        if not np.isfinite(by_group).all():
            return None
        sigma = np.repeat(by_group, [len(g.indices) for g in protocol.groups])
        correction = load_correction(model, len(protocol))
        if correction is None or correction.usual_part is None:
            return cls(sigma)
        left = correction.remaining(correction.usual_part)
        single = np.sqrt(np.diag(left).reshape(-1, 3).mean(axis=1))
        for group in protocol.groups:
            rows = slice(group.first - 1, group.last)
            sigma[rows] *= single[rows] / np.sqrt((single[rows] ** 2).mean())
        lengths = np.sqrt(np.diag(left))
        return cls(sigma, left / np.outer(lengths, lengths), correction.shape.mean)


@dataclass(frozen=True)
class Expected:
    """The expected errors of one head's landmarks.

    Args:
        sigma: (K,) standard deviation along each axis, mm; NaN where a landmark is missing.
        covariance: (3 K, 3 K) mm^2, RAS; rows of missing landmarks mean nothing.
        source: Where it comes from: "calibrated", "confidence", "retest" or "assumed".
    """

    sigma: FloatArray
    covariance: FloatArray
    source: str


def expected_errors(landmarks: LandmarkSet, calibrated: Calibrated | None) -> Expected:
    """The errors that are expected of a head's landmarks.

    Args:
        calibrated: Of the model that found them; None if unknown, then confidences count.
    """
    confidence = landmarks.confidence
    stated = np.isfinite(confidence)
    if calibrated is not None:
        surest = float(np.nanmax(confidence)) if stated.any() else 1.0
        doubt = np.where(stated, _doubt(confidence, surest), 1.0)
        sigma, source = calibrated.sigma * doubt, "calibrated"
    elif stated.any():
        sigma = np.where(stated, sigma_of_confidence(confidence, THRESHOLD_MM), UNKNOWN_MM)
        source = "confidence"
    else:
        sigma, source = np.full(len(landmarks), UNKNOWN_MM), "assumed"
    placed = landmarks.by_person
    sigma = np.where(placed, CORRECTED_MM, sigma)
    sigma[landmarks.missing] = np.nan
    return Expected(sigma, _covariance(landmarks, sigma, placed, calibrated), source)


def repeated_errors(landmarks: LandmarkSet, repeatability: FloatArray) -> Expected:
    """The errors of landmarks by how exactly they were found again (`read_repeatability`)."""
    sigma = np.where(landmarks.missing, np.nan, repeatability)
    squares = np.repeat(np.nan_to_num(sigma, nan=1.0) ** 2, 3)
    return Expected(sigma, np.diag(squares), "retest")


def read_repeatability(path: str | os.PathLike[str], protocol: Protocol) -> FloatArray:
    """Standard deviation of one detection along each axis, (K,) mm, from `retest_landmarks.csv`.

    Of several images each landmark has its root mean square; one that the file lacks has the
    largest of all.

    Raises:
        UserError: it is no such table, or of other landmarks.
    """
    name = os.path.basename(path)
    sheet = read_sheet(name, read_text(path))
    if not {"landmark", "median"} <= set(sheet.columns):
        raise UserError(
            f"{name} has no columns landmark and median; give the retest_landmarks.csv that "
            "brainlandmarks robustness retest writes."
        )
    squares: dict[str, list[float]] = {}
    for row in sheet.rows:
        if row["landmark"] not in protocol.labels:
            raise UserError(f"{name} is about {row['landmark']}, which {protocol.name} lacks.")
        if row["median"]:
            squares.setdefault(row["landmark"], []).append(number(row["median"]) ** 2)
    median = np.array([np.sqrt(np.mean(squares.get(x, [np.nan]))) for x in protocol.labels])
    if not np.isfinite(median).any():
        raise UserError(f"{name} has no medians; measure again.")
    median = np.where(np.isfinite(median), median, np.nanmax(median))
    # A distance between two detections, each of which has its error.
    return np.asarray(np.maximum(median / CHI3_MEDIAN / np.sqrt(2), LEAST_MM))


def _of_group(held_out: Mapping[str, Any], group: str) -> float:
    """Standard deviation along each axis of a group, mm, on real scans where it was measured."""
    for errors in (held_out.get("real_scans", {}).get("errors_mm", {}), held_out.get("errors_mm")):
        if errors and group in errors:
            return float(errors[group]["mean"]) / _MEAN_LENGTH
    return float("nan")


def _doubt(confidence: FloatArray, surest: float) -> FloatArray:
    """How many times the usual error a confidence stands for, (K,)."""
    usual = float(sigma_of_confidence(surest, THRESHOLD_MM))
    return np.maximum(sigma_of_confidence(confidence, THRESHOLD_MM) / usual, 1.0)


def _covariance(
    landmarks: LandmarkSet,
    sigma: FloatArray,
    placed: npt.NDArray[np.bool_],
    calibrated: Calibrated | None,
) -> FloatArray:
    count = len(landmarks)
    lengths = np.repeat(np.nan_to_num(sigma, nan=1.0), 3)
    correlation = np.eye(3 * count)
    if calibrated is not None and calibrated.correlation is not None:
        turn = np.eye(3)
        if calibrated.mean is not None and (~landmarks.missing).sum() >= 3:
            turn = rigid_fit(calibrated.mean, landmarks.points)[:3, :3]
        turns = np.kron(np.eye(count), turn)
        correlation = turns @ calibrated.correlation @ turns.T
        # What a person has placed errs on its own.
        own = np.repeat(placed, 3)
        correlation[own, :] = correlation[:, own] = 0.0
        # Rounding the turns may leave the diagonal beside 1.
        correlation[np.diag_indices(3 * count)] = 1.0
    return correlation * np.outer(lengths, lengths)
