"""What a network can be trained for: the loop is the same, the loss and the error are a task's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from BrainLandmarksLib.detection.refinement import with_prior

from .batches import Batch
from .config import TrainingConfig
from .losses import MixedLoss, visible


class Task(Protocol):
    """The loss of a network's answers, and how far off they are."""

    values: tuple[str, ...]
    """What `loss` tells besides the total; of the parts of a batch these are added."""
    validation: str
    """What the records call the validation error; less is better."""
    tallied: int
    """How many numbers `tally` gives."""

    def amount(self, batch: Batch) -> float:
        """How much of what the loss is a mean over is in a batch, such as landmarks."""

    def loss(
        self, answers: Tensor, targets: Sequence[Tensor], amount: float
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a part of a batch, and its `values`.

        Args:
            answers: what the network says, ``(B, K, D, H, W)``.
            targets: what the samples hold besides their cubes, on the same device.
            amount: that of the whole batch, which the sums are divided by.
        """

    def tally(self, answers: Tensor, targets: Sequence[Tensor]) -> list[float]:
        """What `error` needs of a batch; of several batches these numbers are added."""

    def error(self, tally: Sequence[float]) -> float:
        """The validation error; NaN if nothing was seen."""


class HeatmapTask:
    """Landmarks from heatmaps: the mixed loss, and the radial error in mm."""

    values: tuple[str, ...] = ("heatmap", "coordinate", "error_voxels", "error_mm")
    validation = "validation_mm"
    tallied = 2

    def __init__(self, config: TrainingConfig) -> None:
        self._voxel_mm = config.voxel_mm
        self._prior = (config.prior_mm or math.inf) / config.voxel_mm
        self._mixed = MixedLoss(config.alpha, config.sigma, config.coordinate_loss)  # type: ignore[arg-type]

    def amount(self, batch: Batch) -> float:
        """Landmarks that the cubes show."""
        cubes, points, *_ = batch
        d, h, w = cubes.shape[2:]
        return float(visible(points, (d, h, w)).sum())

    def loss(
        self, answers: Tensor, targets: Sequence[Tensor], amount: float
    ) -> tuple[Tensor, dict[str, float]]:
        """The mixed loss of heatmaps; targets are points, and the guesses of a refinement."""
        parts = self._mixed(self._heatmaps(answers, targets), targets[0], amount)
        error = float(parts.radial_error)
        return parts.total, {
            "heatmap": float(parts.heatmap),
            "coordinate": float(parts.coordinate),
            "error_voxels": error,
            "error_mm": error * self._voxel_mm,
        }

    def tally(self, answers: Tensor, targets: Sequence[Tensor]) -> list[float]:
        """Sum of the radial errors in voxels, and their number."""
        parts = self._mixed(self._heatmaps(answers, targets), targets[0])
        return [float(parts.radial_error) * parts.count, float(parts.count)]

    def error(self, tally: Sequence[float]) -> float:
        """Mean radial error, mm."""
        distance, count = tally
        return distance / count * self._voxel_mm if count else math.nan

    def _heatmaps(self, answers: Tensor, targets: Sequence[Tensor]) -> Tensor:
        for guess in targets[1:]:
            answers = with_prior(answers, guess, self._prior)
        return answers
