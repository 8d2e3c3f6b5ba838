"""The paper's Algorithm 1, to the letter: a faux volume for every landmark.

Kept as the reference that the exact way is measured against: it is slow, rounds every landmark to a
voxel, and loses landmarks when the interpolation skips their one voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

from .augment import centred_image, one_thread, with_points
from .config import TRANSFORMS
from .record import Step
from .transform import tio

SPATIAL = ("elastic", "affine", "anisotropy")
"""Transforms that a faux volume goes through: the paper leaves the ground truth of the others
alone (section III-D)."""


@dataclass(frozen=True)
class FauxPoints:
    """What came back from the faux volumes.

    Args:
        landmarks: Extracted landmarks; missing where nothing came back.
        wiped_out: Labels of landmarks inside the image whose faux volume came back empty: they left
            the image, or interpolation skipped their voxel. Nothing is guessed for them.
    """

    landmarks: LandmarkSet
    wiped_out: tuple[str, ...]


def by_faux_volumes(steps: Sequence[Step], volume: Volume, landmarks: LandmarkSet) -> FauxPoints:
    """Move landmarks the way the paper does.

    For each landmark a volume is made that is 1 at the landmark's voxel and 0 elsewhere, goes
    through the same transforms with the same parameters, and gives the landmark back as the mean
    position of what is left of the 1 (the paper does not say how; the brightest voxel alone would
    add half a voxel of rounding).

    >>> varied = AugmentWithLandmarks()(volume, landmarks, seed=7)
    >>> by_faux_volumes(varied.record.steps, volume, landmarks).wiped_out
    ()
    """
    points = np.full(landmarks.points.shape, np.nan)
    wiped_out = []
    with one_thread():
        image = centred_image(volume)
        transforms = [
            TRANSFORMS[step.transform].build(step.parameters)
            for step in steps
            if step.transform in SPATIAL
        ]
        inside = volume.grid.contains(landmarks.points)
        for row in np.flatnonzero(inside):
            faux = create_faux_volume(volume, landmarks.points[row], image.affine)
            for transform in transforms:
                faux = transform(faux)
            points[row] = extract_keypoint(faux, volume)
            if np.isnan(points[row]).any():
                wiped_out.append(landmarks.protocol.landmarks[row].label)
    return FauxPoints(with_points(landmarks, points), tuple(wiped_out))


def create_faux_volume(volume: Volume, point: FloatArray, affine: Any) -> Any:
    """A TorchIO image of zeros with a 1 at the voxel that holds a point (RAS mm, inside)."""
    voxel = np.rint(volume.grid.ras_to_ijk(point)).astype(int)
    voxel = np.clip(voxel, 0, np.array(volume.grid.shape) - 1)
    tensor = torch.zeros((1, *volume.grid.shape))
    tensor[0, voxel[0], voxel[1], voxel[2]] = 1.0
    return tio().ScalarImage(tensor=tensor, affine=affine)


def extract_keypoint(faux: Any, volume: Volume) -> FloatArray:
    """Mean position of a transformed faux volume, RAS mm, weighted by its values; NaN if empty."""
    values = faux.data[0].numpy()
    where = np.argwhere(values > 0)
    if len(where) == 0:
        return np.full(3, np.nan)
    weights = values[tuple(where.T)].astype(np.float64)
    return volume.grid.ijk_to_ras(weights @ where / weights.sum())
