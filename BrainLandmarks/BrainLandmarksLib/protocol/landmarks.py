"""A set of landmarks on one head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine

if TYPE_CHECKING:
    from BrainLandmarksLib.protocol import Protocol

STATUSES = ("model", "edited", "confirmed", "missing", "truth")
"""Where a point comes from: the network, a person who moved it, a person who agreed with it, not
there at all, or a reference annotation."""

PLAUSIBLE = 0.5
"""What was found on a head has at least this plausibility (`detection.plausibility`).

Less is refused, or written with a mark by who insists. Tests of networks that have learnt nothing
set it to 0: then everything is a head.
"""


def is_plausible(plausibility: float | None) -> bool:
    """Whether a detection of this plausibility is one of a head; None: nothing is said."""
    return plausibility is None or plausibility >= PLAUSIBLE


@dataclass(eq=False)
class LandmarkSet:
    """One head's landmarks, in protocol order: where they are, how sure, and who says so.

    >>> landmarks = LandmarkSet.from_points(load_protocol("brain88"), points)
    >>> landmarks.point("CC_G")
    array([ 0.6, 29.9,  4.1])
    >>> landmarks.missing.sum()
    0

    Args:
        protocol: The landmark set's definition; K = len(protocol).
        points: (K, 3) RAS millimetres; a missing landmark's row is NaN.
        status: K entries out of STATUSES; "missing" exactly where the row is NaN.
        confidence: (K,) in [0, 1], NaN where there is none.
        notes: K short remarks such as why a point is missing; "" where there is nothing to say.

    Raises:
        ValueError: If lengths or statuses do not fit together.
    """

    protocol: Protocol
    points: FloatArray
    status: list[str]
    confidence: FloatArray
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.protocol)
        self.points = np.array(self.points, dtype=np.float64)
        self.status = list(self.status)
        self.confidence = np.array(self.confidence, dtype=np.float64)
        self.notes = list(self.notes) or [""] * count
        if self.points.shape != (count, 3):
            raise ValueError(
                f"{count} landmarks need points of shape ({count}, 3), not {self.points.shape}"
            )
        if len(self.status) != count or self.confidence.shape != (count,):
            raise ValueError(f"{count} landmarks need {count} statuses and confidences")
        if len(self.notes) != count:
            raise ValueError(f"{count} landmarks need {count} notes")
        for status in self.status:
            if status not in STATUSES:
                raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}")
        if not np.array_equal(self.missing, ~np.isfinite(self.points).all(axis=1)):
            raise ValueError("a landmark is missing exactly when its point is NaN")

    @classmethod
    def from_points(
        cls,
        protocol: Protocol,
        points: npt.ArrayLike,
        status: str = "model",
        confidence: Sequence[float] | FloatArray | None = None,
        notes: Sequence[str] = (),
    ) -> LandmarkSet:
        """A set with one status for all points; rows with a NaN become missing.

        Args:
            points: (K, 3) RAS millimetres.
            confidence: (K,) in [0, 1] or None; dropped where a point is missing.
            notes: K remarks, or none at all.
        """
        array = np.array(points, dtype=np.float64)
        absent = np.asarray(~np.isfinite(array).all(axis=-1))
        array[absent] = np.nan
        level = np.full(len(array), np.nan) if confidence is None else np.array(confidence, float)
        level[absent] = np.nan
        statuses = ["missing" if lost else status for lost in absent]
        return cls(protocol, array, statuses, level, list(notes))

    @property
    def by_person(self) -> npt.NDArray[np.bool_]:
        """(K,) True where a person has placed or confirmed the landmark."""
        return np.array([status in ("edited", "confirmed", "truth") for status in self.status])

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """(K,) True where the landmark is not there."""
        return np.array([status == "missing" for status in self.status], dtype=bool)

    def point(self, label: str) -> FloatArray:
        """RAS millimetres of the landmark with this label, (3,); UserError if there is none."""
        return np.array(self.points[self.protocol.by_label(label).index - 1])

    def moved(self, affine: npt.ArrayLike) -> LandmarkSet:
        """The same landmarks after a 4x4 RAS -> RAS affine."""
        return replace(self, points=apply_affine(affine, self.points))

    def __len__(self) -> int:
        return len(self.status)
