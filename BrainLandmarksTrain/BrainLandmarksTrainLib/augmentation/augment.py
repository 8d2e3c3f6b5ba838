"""One scan and its landmarks, varied together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

from .config import TRANSFORMS, AugmentationConfig
from .landmark_transform import moved_points
from .policies import choose, draw_steps
from .record import Record, Step
from .transform import tio


@dataclass(frozen=True)
class Augmented:
    """A varied scan, its landmarks, and how it came about."""

    volume: Volume
    landmarks: LandmarkSet
    record: Record


class AugmentWithLandmarks:
    """Varies scans the way patients and scanners do, and moves the landmarks along.

    Landmarks go through the very map that resampled the image (`landmark_transform`); the
    paper's own way, one faux volume per landmark, is `by_faux_volumes`.

    >>> augment = AugmentWithLandmarks()
    >>> varied = augment(volume, landmarks, seed=7)
    >>> varied.record.policy, [step.transform for step in varied.record.steps]
    ('DA1', ['affine', 'noise'])
    >>> again = regenerate(varied.record, volume, landmarks)
    >>> (again.volume.data == varied.volume.data).all()
    True
    """

    def __init__(self, config: AugmentationConfig | None = None) -> None:
        self.config = config or AugmentationConfig()

    def __call__(
        self, volume: Volume, landmarks: LandmarkSet, seed: int, policy: str | None = None
    ) -> Augmented:
        """Draw a variation and apply it.

        Args:
            volume: The scan, air near 0.
            landmarks: Its landmarks, RAS mm.
            seed: The same seed gives the same variation of the same scan.
            policy: Name of a policy; by default one is chosen by its probability.

        Returns:
            The varied scan on the same grid. Landmarks that left it or whose tissue is gone are
            missing.

        Raises:
            UserError: a range makes no sense for this image, or TorchIO is not installed.
        """
        chosen = policy or choose(self.config, np.random.default_rng([seed, 0]))
        # A stream of its own: naming the policy gives what choosing it gave.
        steps = draw_steps(self.config, chosen, np.random.default_rng([seed, 1]), volume, landmarks)
        return _applied(volume, landmarks, seed, chosen, steps)


def regenerate(record: Record, volume: Volume, landmarks: LandmarkSet) -> Augmented:
    """Make a varied scan again from its record and what it was made of.

    Bit for bit the same where the versions in ``record.software`` are those installed.
    """
    return _applied(volume, landmarks, record.seed, record.policy, record.steps)


def _applied(
    volume: Volume, landmarks: LandmarkSet, seed: int, policy: str, steps: Sequence[Step]
) -> Augmented:
    centre = volume.grid.center_ras
    points = landmarks.points - centre
    folded, gone = np.zeros((2, len(points)), dtype=bool)
    with one_thread():
        image = centred_image(volume)
        for step in steps:
            transform = TRANSFORMS[step.transform].build(step.parameters)
            moved = moved_points(transform, image, points)
            points, folded, gone = moved.points, folded | moved.folded, gone | moved.gone
            image = transform(image)
        data = image.data[0].numpy()
    there = volume.grid.contains(points + centre)
    outside = ~landmarks.missing & ~there & ~folded & ~gone
    labels = [landmark.label for landmark in landmarks.protocol]
    record = Record(
        seed, policy, tuple(steps),
        outside=tuple(label for label, out in zip(labels, outside) if out),
        folded=tuple(label for label, lost in zip(labels, folded) if lost),
        gone=tuple(label for label, lost in zip(labels, gone) if lost),
    )  # fmt: skip
    varied = with_points(landmarks, np.where(there[:, None], points + centre, np.nan))
    return Augmented(Volume(np.ascontiguousarray(data, np.float32), volume.grid), varied, record)


def with_points(landmarks: LandmarkSet, points: FloatArray) -> LandmarkSet:
    """The same landmarks elsewhere, with statuses and confidence; NaN rows become missing."""
    absent = np.asarray(~np.isfinite(points).all(axis=1))
    status = [
        "missing" if lost else before
        for lost, before in zip(absent.tolist(), landmarks.status, strict=True)
    ]
    confidence = np.where(absent, np.nan, landmarks.confidence)
    return LandmarkSet(landmarks.protocol, points, status, confidence)


def centred_image(volume: Volume) -> Any:
    """The scan as a TorchIO image whose middle is the world's origin.

    TorchIO's `Motion` turns the head about the world's origin, wherever that lies; here it is
    always the middle of the image, and nothing depends on where a scanner put its origin.
    """
    affine = volume.grid.affine.copy()
    half = (np.array(volume.grid.shape) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ half
    tensor = torch.from_numpy(np.array(volume.data, dtype=np.float32))[None]
    return tio().ScalarImage(tensor=tensor, affine=Grid(volume.grid.shape, affine).affine.copy())


@contextmanager
def one_thread() -> Iterator[None]:
    """One PyTorch thread: sums in another order would differ in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
