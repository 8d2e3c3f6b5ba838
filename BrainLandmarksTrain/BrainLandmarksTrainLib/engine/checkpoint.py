"""Checkpoints: folders that are there whole or not at all, and the weights that they hold."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet

from .config import RunConfig
from .ema import ExponentialMovingAverage
from .schedule import PlateauMonitor

PREFIX = "checkpoint-"
BEST = "best.safetensors"
"""Averaged weights of the epoch with the lowest validation error, where training may stop early."""

MAY_CHANGE = (
    "steps", "minutes", "epoch_steps", "validation_scans", "patience", "checkpoint_minutes",
    "keep_checkpoints", "log_every", "tensorboard",
)  # fmt: skip
"""Settings that a run may go on with another value of: how long it trains, and what it records."""

_TENSORS = "tensors.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Args:
        state: plain JSON values.
        tensors: by name; those of a part ("network", "average", "optimizer") begin with its name.
    """

    state: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """Tensors of one part, by their names in it."""
        start = f"{name}."
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}


@dataclass
class TrainingState:
    """What a run has come to: all that it goes on from.

    Args:
        network: As the last step left it.
        ema: Its averaged weights.
        optimizer: With its moments.
        step: Steps taken.
        seconds: Training time over all sessions of the run.
        norm_frozen: Whether batch-norm statistics are fixed from now on.
        plateau: The validation error so far.
        epoch_sums: Means of the present epoch, as far as it has come.
        unlogged: Rows of the log that wait for others.
    """

    network: HighRes3DNet
    ema: ExponentialMovingAverage
    optimizer: Optimizer
    step: int = 0
    seconds: float = 0.0
    norm_frozen: bool = False
    plateau: PlateauMonitor = field(default_factory=PlateauMonitor)
    epoch_sums: dict[str, float] = field(default_factory=dict)
    unlogged: list[dict[str, float]] = field(default_factory=list)

    def to_checkpoint(
        self, config: RunConfig, made_of: Mapping[str, str | int] | None = None
    ) -> Checkpoint:
        """All of it, with the settings and what else it came about by."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.ema.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items()}
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "norm_frozen": self.norm_frozen,
            "average_updates": self.ema.updates,
            "watch": self.plateau.to_dict(),
            "epoch_sums": self.epoch_sums,
            "unlogged": self.unlogged,
            "network": self.network.spec(),
            "config": config.to_dict(),
            "made_of": dict(made_of or {}),
        }
        return Checkpoint(state, tensors)

    def load(
        self, folder: Path, config: RunConfig, made_of: Mapping[str, str | int] | None = None
    ) -> None:
        """Go on from a checkpoint folder.

        Args:
            config: The settings to go on with.
            made_of: What else the weights follow from, by its name in a sentence.

        Raises:
            UserError: it belongs to another network, or came about by other settings or data.
        """
        checkpoint = read_checkpoint(folder)
        try:
            self.network.load_state_dict(checkpoint.part("network"))
            self.ema.network.load_state_dict(checkpoint.part("average"))
        except RuntimeError:
            raise UserError(
                f"checkpoint {folder} belongs to another network than these settings describe; "
                "use another output folder."
            ) from None
        _need_same_run(folder.parent, checkpoint.state, config, made_of or {})
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for name, tensor in checkpoint.part("optimizer").items():
            index, key = name.split(".", 1)
            optimizer["state"].setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(optimizer)
        state = checkpoint.state
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.norm_frozen = state["norm_frozen"]
        self.ema.updates = state["average_updates"]
        self.plateau = PlateauMonitor.from_dict(state["watch"])
        self.epoch_sums = state["epoch_sums"]
        self.unlogged = state["unlogged"]


def _need_same_run(
    folder: Path, state: Mapping[str, Any], config: RunConfig, made_of: Mapping[str, str | int]
) -> None:
    """Check that a run goes on with what it began with; what a checkpoint does not say is fine.

    Otherwise its weights would be those of other settings than its model states.

    Raises:
        UserError: it does not.
    """
    before, now = state.get("config", {}), config.to_dict()
    for name in now:
        if name in before and name not in MAY_CHANGE and before[name] != now[name]:
            raise UserError(
                f"{folder} holds a run with {name!r} {json.dumps(before[name])}, and now it is "
                f"{json.dumps(now[name])}; choose another output folder, or set it back."
            )
    kept = state.get("made_of", {})
    for name in made_of.keys() & kept.keys():
        if kept[name] != made_of[name]:
            raise UserError(
                f"{folder} holds a run with another {name} than now; choose another output folder "
                "for a new run."
            )


def write_checkpoint(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint folder; it appears whole or not at all. All but the ``keep`` newest go.

    Raises:
        UserError: the disk is full or cannot be written to; the older checkpoints are untouched.
    """
    target = folder / f"{PREFIX}{step:08d}"
    unfinished = folder / f".{target.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.tensors.items()}
        save_file(tensors, unfinished / _TENSORS)
        (unfinished / _STATE).write_text(json.dumps(checkpoint.state, indent=1), encoding="utf-8")
        for path in unfinished.iterdir():
            _flush(path)
        if target.exists():  # the same step, saved again after a resume without progress
            os.replace(target, folder / f".{target.name}.old")
        os.replace(unfinished, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise UserError(
            f"cannot write a checkpoint to {folder} ({_reason(error)}); the one before it is "
            "untouched: make room, then give the same command again."
        ) from None
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    # What was replaced, and what a killed process left unfinished.
    for stale in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(stale, ignore_errors=True)
    return target


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        OSError, ValueError, SafetensorError: it is damaged.
    """
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    return Checkpoint(state, load_file(path / _TENSORS))


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    return sorted(Path(folder).glob(f"{PREFIX}*"))


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest readable checkpoint of a run; None when there is none."""
    for path in reversed(checkpoints(folder)):
        try:
            read_checkpoint(path)
        except (OSError, ValueError, SafetensorError):
            continue  # a disk that lost power: the one before it is complete
        return path
    return None


def averaged_weights(folder: str | Path) -> dict[str, Tensor]:
    """The averaged network weights of a checkpoint folder, or of a run folder's newest one.

    Raises:
        UserError: there is no checkpoint.
    """
    path = Path(folder)
    newest = path if (path / _STATE).is_file() else latest_checkpoint(path)
    if newest is None:
        raise UserError(f"{path} holds no training checkpoint; check the path.")
    return read_checkpoint(newest).part("average")


def trained_weights(folder: str | Path) -> dict[str, Tensor]:
    """The weights that a run is for: its best epoch's where it may stop early, else its last.

    Raises:
        UserError: there is no checkpoint.
    """
    best, newest = Path(folder) / BEST, latest_checkpoint(folder)
    if best.is_file():
        # A run that goes on without stopping early has left its best epoch behind.
        state = {} if newest is None else read_checkpoint(newest).state
        if state.get("config", {"patience": 1})["patience"]:
            return load_file(best)
    return averaged_weights(folder)


def write_best(folder: Path, network: nn.Module) -> None:
    """Keep the present weights as the best ones.

    Raises:
        UserError: the disk is full or cannot be written to.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    try:
        with atomic_write(folder / BEST) as unfinished:
            save_file(weights, unfinished)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {folder / BEST} ({_reason(error)}); make room.") from None


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Start a network at the weights of a ``.safetensors`` file, or of a run or checkpoint folder.

    Raises:
        UserError: the source is missing or holds the weights of another network.
    """
    path = Path(source)
    try:
        weights = trained_weights(path) if path.is_dir() else load_file(path)
        network.load_state_dict(weights)
    except (OSError, SafetensorError):
        raise UserError(f"start weights {path} cannot be read; check the path.") from None
    except RuntimeError:
        raise UserError(f"start weights {path} belong to another network.") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().rstrip(".")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
