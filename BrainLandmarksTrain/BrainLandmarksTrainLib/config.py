"""What a training run is made of: one dataclass, read from a JSON or YAML file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError

from .settings import from_values, read_settings

CHOICES: dict[str, tuple[str, ...]] = {
    "coordinate_loss": ("mse", "euclidean"),
    "optimizer": ("muon", "adamw"),
    "precision": ("auto", "bfloat16", "float32"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run.

    >>> config = TrainingConfig(output="run32", size=32, steps=2000)
    >>> config = load_config("train.json")

    The run ends at ``steps`` steps or after ``minutes`` minutes of training, whichever comes first;
    at least one of them is given. The learning rate, the freezing of batch norm and the end all
    follow the same fraction of the run, so a run with a time budget anneals as it should.
    """

    output: str = "run"
    """Folder of the checkpoints and the log."""
    protocol: str = "brain88"
    """Landmark protocol: a name or a file; it gives the number of heatmaps."""
    label_maps: tuple[str, ...] = ()
    """Head label maps (files) that training heads are generated from."""
    seed: int = 0

    size: int = 64
    """Voxels along each side of the cube, N; divisible by 4."""
    field_of_view_mm: float = 208.0
    """Side of the cube in mm; with ``size`` it gives the voxel size."""
    features: int = 16
    """Features of the network's first stage."""
    dropout: float = 0.0

    steps: int | None = None
    minutes: float | None = None
    """Time budget in minutes of training, summed over resumed sessions."""
    batch_size: int = 1
    optimizer: str = "muon"
    """muon (convolution kernels; AdamW for the rest) or adamw."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    final_learning_rate: float = 0.01
    """Learning rate at the end, as a fraction of ``learning_rate``."""
    clip_norm: float = 1.0
    average_decay: float = 0.998
    """Decay of the exponential moving average of the weights, which is what ships."""
    freeze_norm_at: float = 0.75
    """Fraction of the run after which batch norm uses fixed statistics."""
    recalibration_batches: int = 30
    """Batches whose statistics are averaged when batch norm is frozen."""

    alpha: float = 0.5
    """Weight of the heatmap loss in the mixed loss."""
    sigma: float = 1.5
    """Standard deviation of the target Gaussian, in voxels."""
    coordinate_loss: str = "euclidean"

    device: str = "auto"
    precision: str = "auto"
    """bfloat16 (mixed, float32 weights), float32, or auto: bfloat16 where the device is fast."""
    threads: int | None = None
    prefetch: int | None = None
    """Steps whose samples one background thread makes ahead; 0 makes them in the loop, null is 2 on
    a GPU and 0 on a CPU."""
    init_from: str | None = None
    """Start weights: a .safetensors file or a checkpoint folder (its averaged weights)."""
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UserError(
                    f"training setting {name!r} is {value!r}; choose one of {', '.join(choices)}."
                )
        if self.steps is None and self.minutes is None:
            raise UserError("the training settings give no end: set 'steps', 'minutes' or both.")
        for name in ("steps", "minutes", "batch_size", "learning_rate", "sigma", "clip_norm",
                     "field_of_view_mm", "keep_checkpoints", "log_every", "features"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"training setting {name!r} must be above zero, not {value}.")
        for name in ("prefetch", "warmup_steps", "weight_decay", "recalibration_batches"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"training setting {name!r} must not be negative.")
        for name in ("alpha", "dropout", "average_decay", "freeze_norm_at", "final_learning_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"training setting {name!r} must lie between 0 and 1.")
        if self.size % 4 or self.size <= 0:
            raise UserError(f"training setting 'size' must be a multiple of 4, not {self.size}.")

    @property
    def voxel_mm(self) -> float:
        """Side of a voxel in mm."""
        return self.field_of_view_mm / self.size

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return dataclasses.asdict(self)


def config_from_dict(values: dict[str, Any]) -> TrainingConfig:
    """Build the settings from plain values.

    Raises:
        UserError: an unknown setting (the message names the nearest known one) or a wrong value.
    """
    return from_values(TrainingConfig, values, "training setting")


def load_config(path: str | Path) -> TrainingConfig:
    """Read the settings of one training run from a ``.json``, ``.yaml`` or ``.yml`` file.

    Raises:
        UserError: the file is missing, cannot be parsed, or holds an unknown or wrong setting.
    """
    return config_from_dict(read_settings(path))
