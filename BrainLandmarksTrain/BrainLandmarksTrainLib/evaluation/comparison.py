"""Found against true landmarks of a set of scans, wherever the two come from.

>>> comparison = Comparison.of_folders("predictions", "truth", load_protocol("brain88"))
>>> comparison = Comparison.of_model(load_model("brain88"), dataset, dataset.of_split("test"))
>>> comparison.errors.shape                      # (scans, landmarks), mm
(50, 88)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.pairing import in_common
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.alignment import common_pose
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

from .held_out import HeldOut

if TYPE_CHECKING:
    from BrainLandmarksLib.network.model_files import Model


@dataclass(frozen=True)
class Comparison:
    """Found and true landmarks, RAS mm, NaN where missing.

    Args:
        protocol: The landmarks.
        scans: Names of the n scans.
        found: (n, K, 3).
        truth: (n, K, 3).
        notes: Sentences on what was left out.
    """

    protocol: Protocol
    scans: tuple[str, ...]
    found: FloatArray
    truth: FloatArray
    notes: tuple[str, ...] = ()

    @classmethod
    def of_folders(
        cls,
        predictions: str | os.PathLike[str],
        truth: str | os.PathLike[str],
        protocol: Protocol,
    ) -> Comparison:
        """Landmark files of two folders; those of one scan have one name.

        ``0001_landmarks.csv``, as ``brainlandmarks detect`` calls it, is of the scan ``0001``.

        Raises:
            UserError: the folders have no scan in common, or a file cannot be read.
        """
        notes: list[str] = []
        files, alone = in_common([predictions, truth], protocol, notes)
        pairs = [
            [read_landmarks(file, protocol).points for file in each] for each in files.values()
        ]
        found, true = np.array(pairs).transpose(1, 0, 2, 3)
        if alone:
            notes.append(f"in one of the folders only: {', '.join(alone)}")
        return cls(protocol, tuple(files), found, true, tuple(notes))

    @classmethod
    def of_model(
        cls,
        model: Model,
        dataset: Dataset,
        entries: Sequence[Entry],
        device: str = "auto",
        on_scan: Callable[[int, int, str], None] = lambda done, total, name: None,
        quality: str = "standard",
    ) -> Comparison:
        """A model's landmarks on scans of a dataset.

        Points of the dataset that only a model placed are no truth and are left out. On a scan in
        which no head is recognised all landmarks are missed.

        Args:
            entries: Which scans.
            on_scan: Called before each scan with the number done, of all, and its name.
            quality: One of `detection.QUALITIES`.

        Raises:
            UserError: the model finds other landmarks, a scan cannot be read, or nothing true is
                in the dataset.
        """
        if model.protocol.hash != dataset.protocol.hash:
            raise UserError(
                f"the model finds {model.protocol.name} and the dataset has "
                f"{dataset.protocol.name}; choose a model with --model."
            )
        detector = Detector(model, device)
        found, true, unread = [], [], 0
        notes = []
        for number, entry in enumerate(entries):
            on_scan(number, len(entries), f"head {entry.identity}")
            sample = dataset.read(entry)
            truth, uncertain = true_points(sample.review.current)
            unread += uncertain
            true.append(truth)
            try:
                found.append(detector.detect(sample.volume, quality=quality).landmarks.points)
            except UserError as error:
                notes.append(f"{entry.identity}: {str(error).rstrip('.')}")
                found.append(np.full_like(truth, np.nan))
        on_scan(len(entries), len(entries), "")
        if not np.isfinite(true).any():
            raise UserError(
                f"no point of {dataset.folder} is truth: a model placed all of them; confirm or "
                "correct them first."
            )
        if unread:
            notes.append(f"{unread} points that only a model placed are no truth and left out")
        names = tuple(entry.identity for entry in entries)
        return cls(model.protocol, names, np.array(found), np.array(true), tuple(notes))

    @classmethod
    def of_held_out(cls, protocol: Protocol, result: HeldOut) -> Comparison:
        """The scans of `evaluation.measure`, numbered."""
        names = tuple(f"{number} {head}" for number, head in enumerate(result.heads, start=1))
        return cls(protocol, names, result.found, result.truth)

    @property
    def differences(self) -> FloatArray:
        """Found minus true, (n, K, 3) mm."""
        return self.found - self.truth

    @property
    def errors(self) -> FloatArray:
        """Radial errors, the Euclidean distances, (n, K) mm."""
        return np.asarray(np.linalg.norm(self.differences, axis=-1))

    @property
    def missed(self) -> npt.NDArray[np.bool_]:
        """(n, K) landmarks that are there and were not found."""
        return np.asarray(np.isfinite(self.truth).all(-1) & ~np.isfinite(self.found).all(-1))

    @property
    def extra(self) -> npt.NDArray[np.bool_]:
        """(n, K) landmarks that were found and have no truth."""
        return np.asarray(~np.isfinite(self.truth).all(-1) & np.isfinite(self.found).all(-1))

    def mean_head(self) -> FloatArray | None:
        """Mean of the true landmarks in one pose, (K, 3) mm; None if there are too few."""
        try:
            return common_pose(self.protocol, self.truth)[1]
        except ValueError:
            return None


def true_points(landmarks: LandmarkSet) -> tuple[FloatArray, int]:
    """The points that a person or a rule answers for, and how many only a model placed."""
    uncertain = np.array([status == "model" for status in landmarks.status])
    return np.where(uncertain[:, None], np.nan, landmarks.points), int(uncertain.sum())
