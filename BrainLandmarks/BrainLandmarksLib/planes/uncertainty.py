"""How far a plane may be from that of the true landmarks.

Landmarks are moved by errors that they may have, many times; each time the planes are made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.planes import angle_degrees
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes.construction import Frame, construct
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

LEVEL = 0.9
"""Share of planes that the intervals are to hold."""

SAMPLES = 400
"""How many heads are made of one."""


@dataclass(frozen=True, eq=False)
class Deviation:
    """How planes differ from others, (...).

    Args:
        angle: Degrees between the normals.
        offset: mm from a plane's origin to the other plane, along the other's normal.
        about_row, about_column: Degrees that the other plane is turned about the image's rows and
            columns, right-handed.
    """

    angle: FloatArray
    offset: FloatArray
    about_row: FloatArray
    about_column: FloatArray

    @classmethod
    def between(cls, frame: Frame, other: Frame) -> Deviation:
        """How another plane, or each of many, differs from a plane."""
        normal = other.normal
        along = [np.asarray((normal * axis).sum(-1)) for axis in frame.axes.T]
        return cls(
            angle_degrees(np.broadcast_to(frame.normal, normal.shape), normal),
            np.asarray(((other.origin - frame.origin) * normal).sum(-1)),
            np.degrees(np.arctan2(-along[1], along[2])),
            np.degrees(np.arctan2(along[0], along[2])),
        )


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """`LEVEL` of the planes that the true landmarks may have lie so near.

    Args:
        samples: How they differ from the plane, (`SAMPLES`,) each.
    """

    samples: Deviation

    @property
    def angle(self) -> float:
        """Degrees up to which the normal may be off."""
        return float(np.quantile(self.samples.angle, LEVEL))

    @property
    def offset(self) -> float:
        """Up to how many mm the plane may be off, either way."""
        return _either_way(self.samples.offset)

    @property
    def about_row(self) -> float:
        """Degrees up to which the plane may be turned about the image's rows, either way."""
        return _either_way(self.samples.about_row)

    @property
    def about_column(self) -> float:
        """As `about_row`, about its columns."""
        return _either_way(self.samples.about_column)

    def rank(self, true: Deviation) -> tuple[float, float]:
        """Share of the samples that are nearer than a plane: by angle, and by offset.

        Over many heads these are spread evenly from 0 to 1 if the uncertainty is right.
        """
        return (
            float((self.samples.angle < true.angle).mean()),
            float((np.abs(self.samples.offset) < np.abs(true.offset)).mean()),
        )


def planes_uncertainty(
    landmarks: LandmarkSet,
    frames: Mapping[str, Frame],
    errors: LandmarkErrors,
    samples: int = SAMPLES,
) -> dict[str, Uncertainty]:
    """The uncertainty of planes of a head, by name.

    Planes that follow from landmarks of whose errors nothing is known, or from landmarks that lie
    so near to each other that their errors leave no plane, are left out.
    """
    protocol = landmarks.protocol
    moved = landmarks.points + errors.expected(landmarks).sampled(samples)
    unknown = ~np.isfinite(moved[0]).all(1)
    lost = {label for label, nothing in zip(protocol.labels, unknown, strict=True) if nothing}
    without: set[str] = set()
    for plane in protocol.scan_planes:
        lacks = plane.name not in frames or plane.left_right in without
        if lacks or not lost.isdisjoint(plane.landmarks):
            without.add(plane.name)
    samples_of = {
        name: Deviation.between(frames[name], each)
        for name, each in construct(protocol, moved, without).items()
    }
    return {
        name: Uncertainty(each)
        for name, each in samples_of.items()
        # Landmarks that all but coincide give some of the heads no plane at all.
        if np.isfinite(each.angle).all()
    }


def _either_way(values: FloatArray) -> float:
    return float(np.quantile(np.abs(values), LEVEL))
