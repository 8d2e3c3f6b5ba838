"""One truth from several segmentations of a head.

No segmentation is right everywhere: one is too large by half a voxel all round, another loses a
structure. What two of them, made in different ways, place alike can be believed; where they differ
by more than a rater would, neither can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import in_pose_of, rigid_fit
from BrainLandmarksLib.protocol.constraints import constrained
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

AGREE_MM = 4.0
"""Points of one landmark that are farther apart than this are no evidence of each other."""

DIFFER = "the segmentations differ by {:.1f} mm"

UNSURE_MM = 2.5
"""Where a method is farther off the trusted one than this on the usual head, they do not mean the
same place, and the one alone is not believed."""

_FEWEST_HEADS = 8
"""A shift is learnt from so many heads or more; from fewer it would be chance."""


def consensus(sets: Sequence[LandmarkSet], agree_mm: float = AGREE_MM) -> LandmarkSet:
    """Landmarks that the sets of one head, by rule on one segmentation each, agree on.

    A landmark that some of the sets lack is judged by the others; one set alone is believed. The
    mean counts, and shared planes and equal spacing are enforced on it, since the means of curves
    are not on a curve with equal steps.

    Args:
        sets: Of one protocol, in RAS mm.
        agree_mm: Points farther from their mean than half of this are missing, with a note.

    Returns:
        Landmarks with status ``truth`` or ``missing``.

    Raises:
        ValueError: There is no set, or they are of several protocols.
    """
    if len({s.protocol.hash for s in sets}) != 1:
        raise ValueError("a consensus needs landmark sets of one protocol")
    protocol = sets[0].protocol
    every = np.stack([s.points for s in sets])
    known = np.asarray(np.isfinite(every).all(2))
    count = known.sum(0)
    points = np.where(known[..., None], every, 0).sum(0) / np.maximum(count, 1)[:, None]
    away = np.linalg.norm(every - points, axis=2)
    apart = 2 * np.max(np.where(known, away, 0), 0)
    points[(count == 0) | (apart > agree_mm)] = np.nan
    notes = [
        DIFFER.format(mm) if n and mm > agree_mm else "" for mm, n in zip(apart, count, strict=True)
    ]
    return LandmarkSet.from_points(protocol, constrained(protocol, points), "truth", None, notes)


@dataclass(frozen=True)
class Shifts:
    """By how much a segmentation method places each landmark off another method's place.

    A method that draws all outlines half a voxel too far out does so on every head. Where only its
    segmentation exists, this is known from the heads that have both.

    >>> shifts = Shifts.learn(mean_shape, [(muse_set, gif_set) for ...])
    >>> exact = shifts.corrected(muse_set_of_another_head)

    Args:
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
        offsets: (K, 3) mm in the canonical pose; 0 where too few heads tell.
    """

    mean_shape: FloatArray
    offsets: FloatArray

    @classmethod
    def learn(
        cls, mean_shape: FloatArray, pairs: Sequence[tuple[LandmarkSet, LandmarkSet]]
    ) -> Shifts:
        """The median over heads of what a method lacks, axis by axis.

        Args:
            mean_shape: (K, 3) landmarks in the canonical pose, mm.
            pairs: Of each head, the landmarks by the method and by one that is trusted.
        """
        differences = np.full((len(pairs), *mean_shape.shape), np.nan)
        for row, (given, trusted) in enumerate(pairs):
            difference = trusted.points - given.points
            differences[row] = in_pose_of(mean_shape, trusted.points, difference)
        heads = np.isfinite(differences).all(2).sum(0)
        offsets = np.zeros_like(mean_shape)
        enough = heads >= _FEWEST_HEADS
        if enough.any():
            offsets[enough] = np.nanmedian(differences[:, enough], axis=0)
        return cls(mean_shape, offsets)

    @property
    def unsure(self) -> npt.NDArray[np.bool_]:
        """(K,) whether the methods mean different places."""
        return np.asarray(np.linalg.norm(self.offsets, axis=1) > UNSURE_MM)

    def corrected(self, landmarks: LandmarkSet) -> LandmarkSet:
        """The landmarks of a head where the trusted method would have placed them.

        Those that the methods do not mean alike are missing.
        """
        turn = rigid_fit(self.mean_shape, landmarks.points)
        turn[:3, 3] = 0
        points = landmarks.points + apply_affine(turn, self.offsets)
        points[self.unsure] = np.nan
        return LandmarkSet.from_points(
            landmarks.protocol, points, "truth", landmarks.confidence, landmarks.notes
        )
