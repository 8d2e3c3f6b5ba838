"""Numbers read off a head's landmarks: named distances, and how left differs from right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.planes import fitted_plane
from BrainLandmarksLib.protocol import Distance, Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet


@dataclass(frozen=True)
class Measured:
    """A distance of the protocol on one head; NaN where an end of it is missing."""

    distance: Distance
    mm: float


@dataclass(frozen=True)
class Asymmetry:
    """How a pair of landmarks differs from a mirror image.

    Args:
        left: Label on the left side.
        right: Label of its partner.
        offset_mm: (3,) left minus the reflected right, along the mid-sagittal plane's normal
            (positive: the left one lies farther from the plane) and along its anterior and
            superior directions; NaN where one of the two is missing.
    """

    left: str
    right: str
    offset_mm: FloatArray

    @property
    def mm(self) -> float:
        """Distance between the left landmark and the reflected right one."""
        return float(np.linalg.norm(self.offset_mm))


def measured(landmarks: LandmarkSet) -> list[Measured]:
    """The protocol's distances on one head, mm, in the protocol's order."""
    return [
        Measured(d, between(landmarks, d.first, d.second)) for d in landmarks.protocol.distances
    ]


def between(landmarks: LandmarkSet, first: str, second: str) -> float:
    """Distance between two landmarks, mm; NaN if one is missing.

    Raises:
        UserError: the protocol has no such landmark.
    """
    return float(np.linalg.norm(landmarks.point(first) - landmarks.point(second)))


def asymmetries(landmarks: LandmarkSet) -> list[Asymmetry]:
    """Left against right for every pair of the protocol.

    The mirror is the plane through the midline landmarks; its up is the image's.

    Raises:
        UserError: too few midline landmarks are there to tell the plane.
    """
    protocol = landmarks.protocol
    center, axes = midline_frame(protocol, landmarks.points)
    local = (landmarks.points - center) @ axes
    pairs = []
    for row, landmark in enumerate(protocol.landmarks):
        if landmark.side != "L":
            continue
        partner = protocol.by_label(landmark.mirror)
        left, right = local[row], local[partner.index - 1]
        offset = np.array([-left[0] - right[0], left[1] - right[1], left[2] - right[2]])
        pairs.append(Asymmetry(landmark.label, partner.label, offset))
    return pairs


def midline_frame(protocol: Protocol, points: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Frame of the mid-sagittal plane from the landmarks: (point, axes).

    The columns of ``axes`` (3, 3) are right (the plane's normal), anterior and superior in RAS.

    Raises:
        UserError: fewer than three midline landmarks, or all on one line.
    """
    midline = [landmark.index - 1 for landmark in protocol.landmarks if landmark.side == "M"]
    array = np.array(points, float)
    try:
        center, right = fitted_plane(array[midline])
    except UserError:
        raise UserError(
            "left and right cannot be compared: too few landmarks of the midline are placed."
        ) from None
    right = right if right[0] > 0 else -right
    anterior = np.cross([0.0, 0.0, 1.0], right)
    anterior /= np.linalg.norm(anterior)
    return center, np.stack([right, anterior, np.cross(right, anterior)], axis=1)
