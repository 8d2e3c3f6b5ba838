"""Test-retest: how far do the landmarks of one head move when it is scanned again?

No truth is needed. The image is moved rigidly at random, resampled and given noise, by the
transforms of augmentation; the landmarks that are found on it are compared with those found on the
image as it is, which moved along exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.survey import to_survey
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.planes.measuring import plane_angles
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.augmentation import AugmentationConfig, AugmentWithLandmarks
from BrainLandmarksTrainLib.augmentation.config import Policy
from BrainLandmarksTrainLib.augmentation.machine_side import Noise
from BrainLandmarksTrainLib.augmentation.patient_side import Affine

WORST = 10
"""Landmarks that are named in the report."""

ALL = "All"

_LONGER_MM = 40.0
"""Half of what a head is longer from front to back, or high, than it is wide."""


@dataclass(frozen=True)
class Rescan:
    """How a head is scanned again.

    Args:
        rotation_deg, translation_mm: Largest rotation about, and shift along, each axis.
        noise: Standard deviation of the noise that is added, as a share of the bright tissue.
        repetitions: How often.
        seed: What everything is drawn from.
        survey: Whether it is a survey this time (`imaging.survey`).
    """

    rotation_deg: float = 15.0
    translation_mm: float = 10.0
    noise: float = 0.03
    repetitions: int = 10
    seed: int = 0
    survey: bool = False

    def again(
        self, volume: Volume, landmarks: LandmarkSet, number: int
    ) -> tuple[Volume, FloatArray]:
        """One more scan of a head, and where its landmarks are in it, (K, 3) RAS mm.

        The image gets a margin first, so that the head does not leave it.
        """
        turn, shift = self.rotation_deg, self.translation_mm
        pose = _alone("affine", affine=Affine((1.0, 1.0), (-turn, turn), (-shift, shift)))
        noise = _alone("noise", noise=Noise((self.noise, self.noise)))
        seed = int(np.random.default_rng([self.seed, number]).integers(2**31))
        padded = with_margin(volume, self.margin_mm)
        moved = AugmentWithLandmarks(pose)(padded, landmarks, seed)
        seen = to_survey(moved.volume) if self.survey else moved.volume
        varied = AugmentWithLandmarks(noise)(seen, moved.landmarks, seed)
        return varied.volume, moved.landmarks.points

    @property
    def margin_mm(self) -> float:
        """How far beyond a tight image the surface of a head can move, mm."""
        turned = _LONGER_MM * np.sin(np.deg2rad(min(2 * self.rotation_deg, 90.0)))
        return float(turned + self.translation_mm)


def _alone(name: str, **settings: Any) -> AugmentationConfig:
    """What applies one transform, always."""
    return AugmentationConfig(policies={name: Policy(1.0, (name,))}, **settings)


def with_margin(volume: Volume, margin_mm: float) -> Volume:
    """The image with a margin of its lowest value on all sides."""
    width = np.ceil(margin_mm / volume.grid.spacing).astype(int)
    data = np.pad(volume.data, [(n, n) for n in width], constant_values=float(volume.data.min()))
    i, j, k = (int(n) for n in data.shape)
    return Volume(data, volume.grid.window(-width, (i, j, k)))


@dataclass(frozen=True)
class Retest:
    """Displacements of the landmarks of images, mm.

    Args:
        protocol: The landmarks.
        images: Names of the n images.
        displacements: (n, R, K) distance from where the landmark of the image as it is was carried
            to; NaN where it was not found either time.
        angles: (n, R, P) degrees that the scan planes of the protocol were turned; None for a
            protocol without.
    """

    protocol: Protocol
    images: tuple[str, ...]
    displacements: FloatArray
    angles: FloatArray | None = None

    def of_image(self, number: int) -> Table:
        """Median and 90th percentile of each group, and of all."""
        moved = self.displacements[number]
        groups = [(g.name, moved[:, g.first - 1 : g.last]) for g in self.protocol.groups]
        rows = [(name, *_numbers(values)) for name, values in (*groups, (ALL, moved))]
        return Table(("group", "n", "median", "p90", "largest"), rows)

    def planes(self, number: int) -> Table | None:
        """Median and 90th percentile of the angle of each scan plane; None if there are none."""
        if self.angles is None:
            return None
        names = [plane.name for plane in self.protocol.scan_planes]
        columns = self.angles[number].T
        rows = [(name, *_numbers(column)) for name, column in zip(names, columns, strict=True)]
        return Table(("plane", "n", "median", "p90", "largest"), rows)

    def worst(self, number: int) -> Table:
        """The landmarks that move most."""
        table = self.landmarks(number)
        order = sorted(table.rows, key=lambda row: -np.nan_to_num(row[3], nan=-1.0))
        return Table(table.header[1:], [row[1:] for row in order[:WORST]])

    def landmarks(self, number: int) -> Table:
        """Every landmark of an image."""
        rows = [
            (self.images[number], landmark.label, landmark.group, float(np.nanmedian(column)),
             *_numbers(column)[2:], int(np.isnan(column).sum()))
            if np.isfinite(column).any()
            else (self.images[number], landmark.label, landmark.group, *(float("nan"),) * 3,
                  len(column))
            for landmark, column in zip(
                self.protocol.landmarks, self.displacements[number].T, strict=True
            )
        ]  # fmt: skip
        return Table(("image", "landmark", "group", "median", "p90", "largest", "missed"), rows)


def _numbers(values: FloatArray) -> tuple[int, float, float, float]:
    good = values[np.isfinite(values)]
    if len(good) == 0:
        return 0, float("nan"), float("nan"), float("nan")
    median, p90 = np.quantile(good, (0.5, 0.9))
    return len(good), float(median), float(p90), float(good.max())


def retest(
    detector: Detector,
    images: Sequence[tuple[str, Volume]],
    rescan: Rescan,
    *,
    quality: str = "standard",
    on_scan: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Retest:
    """Find the landmarks of each image as it is and on every repetition.

    Args:
        images: Names and images.
        on_scan: Called before each detection with the number done, of all, and the image's name.

    Raises:
        UserError: no head is recognised on an image as it is, or it is coarser than a survey.
    """
    total = len(images) * (rescan.repetitions + 1)
    moved, turned = [], []
    protocol = detector.model.protocol
    for count, (name, volume) in enumerate(images):
        first = count * (rescan.repetitions + 1)
        on_scan(first, total, name)
        landmarks = detector.detect(volume, quality=quality).landmarks
        rows, angles = [], []
        for number in range(rescan.repetitions):
            on_scan(first + number + 1, total, name)
            again, expected = rescan.again(volume, landmarks, number)
            try:
                found = detector.detect(again, quality=quality).landmarks.points
            except UserError:  # no head recognised: all of its landmarks are missed
                found = np.full_like(expected, np.nan)
            rows.append(np.linalg.norm(found - expected, axis=1))
            angles.append(plane_angles(protocol, found, expected))
        moved.append(rows)
        turned.append(angles)
    on_scan(total, total, "")
    names = tuple(name for name, _ in images)
    return Retest(
        protocol, names, np.array(moved), np.array(turned) if protocol.scan_planes else None
    )


def write_retest(result: Retest, folder: Path, title: str, about: str) -> str:
    """Write ``retest.md``, ``retest_groups.csv`` and ``retest_landmarks.csv``; returns the page.

    For a protocol with scan planes also ``retest_planes.csv``.

    Raises:
        UserError: a file cannot be written.
    """
    page = [f"# {title}", about]
    groups: list[Sequence[Any]] = []
    landmarks: list[Sequence[Any]] = []
    planes: list[Sequence[Any]] = []
    for number, name in enumerate(result.images):
        table = result.of_image(number)
        page += [f"## {name}", table.markdown(), "The landmarks that move most:",
                 result.worst(number).markdown()]  # fmt: skip
        turned = result.planes(number)
        if turned is not None:
            page += ["Degrees that scan planes are turned:", turned.markdown()]
            planes += [(name, *row) for row in turned.rows]
        groups += [(name, *row) for row in table.rows]
        landmarks += result.landmarks(number).rows
    Table(("image", *table.header), groups).write_csv(folder / "retest_groups.csv")
    if planes:
        of_planes = ("image", "plane", "n", "median", "p90", "largest")
        Table(of_planes, planes).write_csv(folder / "retest_planes.csv")
    header = result.landmarks(0).header
    Table(header, landmarks).write_csv(folder / "retest_landmarks.csv")
    text = "\n\n".join(page)
    (folder / "retest.md").write_text(text + "\n", encoding="utf-8")
    return text
