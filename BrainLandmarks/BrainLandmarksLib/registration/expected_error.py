"""How exact landmarks are expected to be, before anything else is known of a head.

As the model's held-out heads say (`network.landmark_errors`), as a head was found again, or, of
landmarks that no model knows, as their confidences say.
"""

from __future__ import annotations

import os

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import CHI3_MEDIAN
from BrainLandmarksLib.geometry.shape_model import sigma_of_confidence
from BrainLandmarksLib.io.delimited import number, read_sheet
from BrainLandmarksLib.io.landmarks.matching import read_text
from BrainLandmarksLib.network.landmark_errors import ExpectedErrors, LandmarkErrors
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

THRESHOLD_MM = 4.0
"""A confidence is the probability of a smaller error than this."""

UNKNOWN_MM = 1.5
"""Standard deviation along each axis of a landmark of which nothing is known."""

LEAST_MM, MOST_MM = 0.05, 100.0
"""No scan is repeated more exactly, or less, than this."""


def expected_errors(landmarks: LandmarkSet, errors: LandmarkErrors | None) -> ExpectedErrors:
    """The errors that are expected of a head's landmarks.

    Args:
        errors: Of the model that found them; None if it is unknown. Where it knows nothing of a
            landmark, its confidence counts, and without one all are alike.
    """
    known = (errors or LandmarkErrors.of_people(landmarks.protocol)).expected(landmarks)
    unknown = np.isnan(known.sigma) & ~landmarks.missing
    if not unknown.any():
        return known
    stated = np.isfinite(landmarks.confidence)
    guess = np.where(stated, sigma_of_confidence(landmarks.confidence, THRESHOLD_MM), UNKNOWN_MM)
    sigma = np.where(unknown, guess, known.sigma)
    squares = np.repeat(np.nan_to_num(sigma, nan=1.0) ** 2, 3)
    return ExpectedErrors(sigma, np.diag(squares), "confidence" if stated.any() else "assumed")


def repeated_errors(landmarks: LandmarkSet, repeatability: FloatArray) -> ExpectedErrors:
    """The errors of landmarks by how exactly they were found again (`read_repeatability`)."""
    sigma = np.where(landmarks.missing, np.nan, repeatability)
    squares = np.repeat(np.nan_to_num(sigma, nan=1.0) ** 2, 3)
    return ExpectedErrors(sigma, np.diag(squares), "retest")


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
            median_mm = number(row["median"])
            if not 0 <= median_mm <= MOST_MM:
                raise UserError(
                    f"{name} says that {row['landmark']} was found again within "
                    f"{row['median']} mm, which no head is; measure again."
                )
            squares.setdefault(row["landmark"], []).append(median_mm**2)
    median = np.array([np.sqrt(np.mean(squares.get(x, [np.nan]))) for x in protocol.labels])
    if not np.isfinite(median).any():
        raise UserError(f"{name} has no medians; measure again.")
    median = np.where(np.isfinite(median), median, np.nanmax(median))
    # A distance between two detections, each of which has its error.
    return np.asarray(np.maximum(median / CHI3_MEDIAN / np.sqrt(2), LEAST_MM))
