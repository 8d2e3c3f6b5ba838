"""What training a network is made of, and the machine that it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network import ATTENTION
from BrainLandmarksLib.network.device import DEVICES
from BrainLandmarksTrainLib.settings import setting, to_values

WHAT = "training setting"


@dataclass(frozen=True)
class RunConfig:
    """Settings of the training of any network.

    The run ends at ``steps`` steps or after ``minutes`` minutes of training, whichever comes first;
    at least one of them is given. The learning rate, the freezing of batch norm and the end all
    follow the same fraction of the run, so a run with a time budget anneals as it should.

    Raises:
        UserError: the settings give no end.
    """

    features: int = setting(16, "Features of the network's first stage.", low=1)
    dropout: float = setting(
        0.0, "Share of the last features that are dropped in a step.", low=0, high=1
    )

    steps: int | None = setting(None, "Steps of the whole run.", low=1)
    minutes: float | None = setting(
        None, "Minutes of training of the whole run, summed over its sessions.", low=0.001
    )
    batch_size: int = setting(1, "Scans in a step, over all processes together.", low=1)
    epoch_steps: int | None = setting(
        None, "Steps after which validation runs and a checkpoint is written; by default each scan "
        "of a dataset is seen once, or 200 steps.", low=1,
    )  # fmt: skip
    validation_scans: int = setting(
        16,
        "Scans over which the validation error of each epoch is averaged; 0: no validation.",
        low=0,
    )
    patience: int | None = setting(
        None, "Epochs without a better validation error after which training stops early; the best "
        "weights are kept. By default training runs to the end.", low=1,
    )  # fmt: skip

    optimizer: str = setting(
        "muon", "Muon for convolution kernels with AdamW for the rest, or AdamW.",
        choices=("muon", "adamw"),
    )  # fmt: skip
    learning_rate: float = setting(2e-3, "Highest learning rate.", low=1e-9)
    schedule: str = setting(
        "cosine", "cosine: falls to final_learning_rate at the end of the run; plateau: falls to a "
        "third whenever the validation error has not improved for plateau_patience epochs.",
        choices=("cosine", "plateau"),
    )  # fmt: skip
    plateau_patience: int = setting(
        5, "Epochs without improvement that schedule plateau waits for.", low=1
    )
    warmup_steps: int = setting(100, "Steps in which the learning rate rises from 0.", low=0)
    final_learning_rate: float = setting(
        0.01, "Lowest learning rate, as a fraction of the highest.", low=0, high=1
    )
    weight_decay: float = setting(1e-2, "Decay of the convolution kernels.", low=0)
    clip_norm: float = setting(
        1.0, "Maximum norm of the gradient; a longer one is scaled down.", low=1e-9
    )
    ema_decay: float = setting(
        0.998, "Decay of the exponential moving average (EMA) of the weights, which is what ships.",
        low=0, high=1, formerly="average_decay",
    )  # fmt: skip
    freeze_norm_at: float = setting(
        0.75, "Fraction of the run after which batch norm uses fixed statistics; 0: from the "
        "start.", low=0, high=1,
    )  # fmt: skip
    recalibration_batches: int = setting(
        30, "Batches whose statistics are averaged when batch norm is frozen.", low=0
    )

    init_from: str | None = setting(
        None, "Initial weights: a .safetensors file, or the folder of another run."
    )
    checkpoint_minutes: float = setting(
        5.0, "Minutes between checkpoints; one is also written after every epoch.", low=0
    )
    keep_checkpoints: int = setting(
        3, "Number of checkpoints that are kept, the newest ones.", low=1
    )
    log_every: int = setting(20, "Steps between two rows of the log.", low=1)
    tensorboard: bool = setting(True, "Whether the losses are written for TensorBoard as well.")

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise UserError("the training settings give no end: set 'steps', 'minutes' or both.")

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return to_values(self)


@dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """Settings of the training of a network that finds landmarks.

    >>> config = TrainingConfig(size=32, steps=2000)

    Raises:
        UserError: the settings give no end, or a cube that the network cannot take.
    """

    size: int = setting(
        64, "Voxels along each side of the cube, N in the paper; a multiple of 4.", low=8
    )
    field_of_view_mm: float = setting(
        208.0, "Side of the cube in mm; with size it gives the voxel size.", low=1.0
    )
    crop: tuple[int, int, int] | None = setting(
        None, "Voxels of the cube that are trained on, all by default. The network is fully "
        "convolutional: a box around the landmarks trains it as well at a lower cost.", low=8,
    )  # fmt: skip
    long_skips: bool = setting(
        False, "Whether the first 1x1x1 convolution sees the features of every stage."
    )
    attention: str = setting(
        "none", "squeeze_excitation: the features of every residual block are weighed by their "
        "means over the cube; only without crop, except for the refinement network.",
        choices=ATTENTION,
    )  # fmt: skip

    alpha: float = setting(
        0.4, "Weight of the heatmap loss in the mixed loss, section III-E; 0 is the coordinate "
        "loss alone, 1 the heatmap loss alone.", low=0, high=1,
    )  # fmt: skip
    sigma: float = setting(1.5, "Standard deviation of the target Gaussian, in voxels.", low=0.1)
    prior_mm: float | None = setting(
        None, "Standard deviation of the prior around an initial estimate of each landmark, which "
        "is added to the heatmaps of the refinement network; required there, unused elsewhere.",
        low=0.1,
    )  # fmt: skip
    coordinate_loss: str = setting(
        "mse", "mse: the squared distance, as in the paper; euclidean: the distance, whose "
        "gradient does not fade as a landmark gets close.", choices=("mse", "euclidean"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        need_multiples_of_four("size", self.size)
        need_multiples_of_four("crop", *(self.crop or ()))

    @property
    def kind(self) -> tuple[int, bool, str]:
        """What the shapes of the weights depend on, besides the number of landmarks."""
        return self.features, self.long_skips, self.attention

    @property
    def voxel_mm(self) -> float:
        """Side of a voxel in mm."""
        return self.field_of_view_mm / self.size

    @property
    def cube(self) -> tuple[int, int, int]:
        """Voxels of a training cube."""
        return self.crop or (self.size, self.size, self.size)


def need_multiples_of_four(name: str, *sizes: int) -> None:
    """Check that the dilated stages of the network can split a cube.

    Raises:
        UserError: they cannot.
    """
    for size in sizes:
        if size % 4:
            raise UserError(f"{WHAT} {name!r} must be a multiple of 4, not {size}.")


@dataclass(frozen=True)
class MachineConfig:
    """Where training runs. None of these settings changes what is learnt, apart from rounding."""

    device: str = setting("auto", "auto: a GPU that works, otherwise the CPU.", choices=DEVICES)
    devices: int | None = setting(
        None, "Processes on each node, each with its GPU or its share of the CPU. By default all "
        "GPUs, one process on a CPU, or what torchrun or Slurm has started.", low=1,
    )  # fmt: skip
    nodes: int | None = setting(
        None, "Machines; by default one, or what torchrun or Slurm has started.", low=1
    )
    precision: str = setting(
        "auto", "bfloat16 (mixed, float32 weights), float32, or auto: bfloat16 where it is fast.",
        choices=("auto", "bfloat16", "float32"),
    )  # fmt: skip
    threads: int | None = setting(None, "CPU threads of each process.", low=1)
    prefetch: int | None = setting(
        None, "Steps whose samples are made in advance; 0 makes them in the loop. By default 2 on "
        "a GPU and 0 on a CPU.", low=0,
    )  # fmt: skip
    workers: int = setting(
        0, "Additional processes that make samples, for each process that trains; 0: a thread of "
        "that process makes them.", low=0,
    )  # fmt: skip
