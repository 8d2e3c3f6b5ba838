"""The training loop: plain PyTorch, resumable at any moment, the same on a CPU and on a GPU.

A run is a folder. It holds ``log.csv`` and the newest checkpoints; starting the trainer on a folder
with a checkpoint goes on from there. Every random number of step s comes from the seed and s alone,
so a run that was stopped and resumed takes exactly the steps of a run that never stopped.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network import (
    HighRes3DNet,
    bfloat16_is_fast,
    channels_last,
    keep_freed_memory,
)
from BrainLandmarksTrainLib.config import TrainingConfig
from BrainLandmarksTrainLib.losses import LossParts, MixedLoss
from BrainLandmarksTrainLib.optimizer import Muon

#: Makes one sample: (step, generator) -> cube (1, D, H, W) float32, ijk points (K, 3), NaN missing.
Sampler = Callable[[int, np.random.Generator], tuple[Tensor, Tensor]]
#: Cubes (B, 1, D, H, W) of one shape and their points (B, K, 3).
Batch = tuple[Tensor, Tensor]

CHECKPOINT_PREFIX = "checkpoint-"
LOG_FIELDS = (
    "step", "seconds", "total", "heatmap", "coordinate", "error_voxels", "error_mm",
    "learning_rate", "gradient_norm",
)  # fmt: skip


def sample_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """The random generator of sample ``index`` of step ``step``: a function of the three alone."""
    return np.random.default_rng([seed, step, index])


def make_batches(sampler: Sampler, seed: int, step: int, batch_size: int) -> list[Batch]:
    """The samples of one step, stacked by cube shape (one batch when all shapes agree)."""
    groups: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for index in range(batch_size):
        cube, points = sampler(step, sample_rng(seed, step, index))
        groups.setdefault(tuple(cube.shape), []).append((cube, points))
    return [
        (torch.stack([c for c, _ in group]), torch.stack([p for _, p in group]))
        for group in groups.values()
    ]


class Prefetcher:
    """Makes the batches of coming steps in one background thread.

    >>> with Prefetcher(make, range(10), depth=2) as batches:
    ...     for step, batch in batches:
    ...         ...

    Args:
        make: step to batches; called in order, in the thread.
        steps: the steps to make.
        depth: how many steps may wait; 0 makes each one when it is asked for, without a thread.
    """

    def __init__(self, make: Callable[[int], list[Batch]], steps: Sequence[int], depth: int):
        self._make = make
        self._steps = steps
        self._queue: queue.Queue[tuple[int, list[Batch] | BaseException]] = queue.Queue(
            max(depth, 1)
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True) if depth else None

    def __enter__(self) -> Prefetcher:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __iter__(self) -> Iterator[tuple[int, list[Batch]]]:
        for expected in self._steps:
            if self._thread is None:
                yield expected, self._make(expected)
                continue
            step, made = self._queue.get()
            if isinstance(made, BaseException):
                raise made
            yield step, made

    def _work(self) -> None:
        for step in self._steps:
            made: list[Batch] | BaseException
            try:
                made = self._make(step)
            except BaseException as error:
                made = error  # raised again in the training loop
            while not self._stop.is_set():
                with suppress(queue.Full):
                    self._queue.put((step, made), timeout=0.1)
                    break
            if self._stop.is_set() or isinstance(made, BaseException):
                return


class Average:
    """Exponential moving average of a network's weights (Polyak averaging).

    The average starts as a plain mean and turns into the exponential one, so early weights are
    forgotten quickly. Batch-norm statistics are averaged along.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        source = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.dtype.is_floating_point:
                mean.lerp_(source[name], 1.0 - decay)
            else:
                mean.copy_(source[name])

    def restart(self, network: nn.Module) -> None:
        """Begin again at the network's present weights."""
        self.network.load_state_dict(network.state_dict())
        self.updates = 0


@dataclass(frozen=True)
class TrainingResult:
    """How a call of :meth:`Trainer.train` ended."""

    step: int
    seconds: float
    """Training time over all sessions of the run."""
    finished: bool
    """False when it was interrupted; starting again goes on."""
    checkpoint: Path


class Trainer:
    """Trains a network on the samples of a callable.

    >>> config = TrainingConfig(output="run", size=32, steps=2000)
    >>> trainer = Trainer(HighRes3DNet(out_channels=88), sampler, config)
    >>> trainer.train().finished
    True

    ``trainer.average.network`` is the network to ship. A checkpoint in ``config.output`` is
    resumed; Ctrl-C and SIGTERM write one and return.

    Args:
        network: trained in place.
        sampler: makes one sample from a step and a random generator; must draw from nothing else.
        config: the settings of the run.
        on_log: called with every row of the log.

    Raises:
        UserError: ``init_from`` or a checkpoint does not fit the network.
    """

    def __init__(
        self,
        network: HighRes3DNet,
        sampler: Sampler,
        config: TrainingConfig,
        *,
        on_log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.config = config
        self.sampler = sampler
        self.on_log = on_log
        self.folder = Path(config.output)
        self.device = _device(config.device)
        self.bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and bfloat16_is_fast(self.device)
        )
        if config.threads:
            torch.set_num_threads(config.threads)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.network = channels_last(network.to(self.device))
        self.loss = MixedLoss(config.alpha, config.sigma, config.coordinate_loss)  # type: ignore[arg-type]
        if config.init_from:
            load_weights(self.network, config.init_from)
        self.average = Average(self.network, config.average_decay)
        self.optimizer = _optimizer(self.network, config)
        self.step = 0
        self.seconds = 0.0
        self.norm_frozen = False
        self._stop_asked = False
        newest = latest_checkpoint(self.folder)
        if newest is not None:
            self.load(newest)

    def stop(self) -> None:
        """Ask :meth:`train` to stop after the present step; callable from another thread."""
        self._stop_asked = True

    def progress(self) -> float:
        """How much of the run is done, 0 to 1, by steps or by time, whichever is further."""
        parts = []
        if self.config.steps:
            parts.append(self.step / self.config.steps)
        if self.config.minutes:
            parts.append(self.seconds / (60.0 * self.config.minutes))
        return min(max(parts), 1.0)

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to ``final_learning_rate``."""
        config = self.config
        warm = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        low = config.final_learning_rate
        cosine = 0.5 * (1.0 + math.cos(math.pi * self.progress()))
        return config.learning_rate * warm * (low + (1.0 - low) * cosine)

    def train(self) -> TrainingResult:
        """Train to the end of the run, or until interrupted; a checkpoint is written either way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint: Path | None = None
        saved_at = started = time.monotonic()
        seconds_before = self.seconds
        last = self.config.steps if self.config.steps is not None else 2**31
        steps = range(self.step, last)
        with self._signals(), self._log() as log, self._batches(steps) as batches:
            for _, batch in batches:
                if self._stop_asked or self.progress() >= 1.0:
                    break
                if not self.norm_frozen and self.progress() >= self.config.freeze_norm_at:
                    self.freeze_norm()
                checkpoint = None
                row = self._train_step(batch)
                now = time.monotonic()
                self.seconds = seconds_before + now - started
                log(row)
                if now - saved_at > 60.0 * self.config.checkpoint_minutes:
                    checkpoint = self.save()
                    saved_at = now
        finished = not self._stop_asked or self.progress() >= 1.0
        return TrainingResult(self.step, self.seconds, finished, checkpoint or self.save())

    def _train_step(self, batches: list[Batch]) -> dict[str, float]:
        config = self.config
        # Dropout draws from torch's generator; seeding it by the step makes resuming exact.
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        self._set_mode(self.network)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(len(cubes) for cubes, _ in batches)
        sums = dict.fromkeys(("total", "heatmap", "coordinate", "error_voxels"), 0.0)
        for cubes, points in batches:
            share = len(cubes) / total
            parts = self._loss(self.network, cubes, points)
            (parts.total * share).backward()
            sums["total"] += share * float(parts.total.detach())
            sums["heatmap"] += share * float(parts.heatmap)
            sums["coordinate"] += share * float(parts.coordinate)
            sums["error_voxels"] += share * float(parts.radial_error)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm))
        # One broken sample (an overflow in bfloat16) must not poison the weights for good.
        if math.isfinite(norm):
            self.optimizer.step()
            self.average.update(self.network)
        self.step += 1
        return {
            **sums,
            "error_mm": sums["error_voxels"] * config.voxel_mm,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": norm,
        }

    def _loss(self, network: nn.Module, cubes: Tensor, points: Tensor) -> LossParts:
        cubes = cubes.to(self.device, memory_format=torch.channels_last_3d)
        points = points.to(self.device)
        with self._autocast():
            heatmaps = network(cubes)
        return self.loss(heatmaps, points)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _set_mode(self, network: nn.Module) -> None:
        network.train()
        if self.norm_frozen:
            for module in _norms(network):
                module.eval()

    @torch.no_grad()
    def freeze_norm(self) -> None:
        """Average the batch-norm statistics over some batches, then keep them fixed.

        With one cube a step, training statistics are those of that cube and the running ones only
        approximate them; the rest of the run trains the very function that detection evaluates.
        """
        norms = _norms(self.network)
        momenta = [module.momentum for module in norms]
        self.network.train()
        for module in norms:
            if self.config.recalibration_batches:
                module.reset_running_stats()
            module.momentum = None  # cumulative mean instead of an exponential one
        for index in range(self.config.recalibration_batches):
            # No run has so many steps: these samples are seen by no training step.
            step = 2**31 + index
            for cubes, _ in make_batches(
                self.sampler, self.config.seed, step, self.config.batch_size
            ):
                with self._autocast():
                    self.network(cubes.to(self.device))
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        self.norm_frozen = True
        self.average.restart(self.network)

    def save(self) -> Path:
        """Write a checkpoint folder; it appears whole or not at all. Older ones are removed."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "norm_frozen": self.norm_frozen,
            "average_updates": self.average.updates,
            "network": self.network.spec(),
            "config": self.config.to_dict(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{CHECKPOINT_PREFIX}{self.step:08d}"
        unfinished = self.folder / f".{target.name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        save_file(tensors, unfinished / "tensors.safetensors")
        (unfinished / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        for path in unfinished.iterdir():
            _flush(path)
        if target.exists():  # the same step, saved again after a resume without progress
            os.replace(target, self.folder / f".{target.name}.old")
        os.replace(unfinished, target)
        for old in checkpoints(self.folder)[: -self.config.keep_checkpoints]:
            shutil.rmtree(old, ignore_errors=True)
        # What was replaced, and what a killed process left unfinished.
        for stale in self.folder.glob(f".{CHECKPOINT_PREFIX}*"):
            shutil.rmtree(stale, ignore_errors=True)
        return target

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint folder.

        Raises:
            UserError: it belongs to another network.
        """
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(checkpoint / "tensors.safetensors")
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, key = name.split(".", 1)
            parts[part][key] = tensor
        try:
            self.network.load_state_dict(parts["network"])
            self.average.network.load_state_dict(parts["average"])
        except RuntimeError:
            raise UserError(
                f"checkpoint {checkpoint} belongs to another network than these settings describe; "
                "use another output folder."
            ) from None
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for name, tensor in parts["optimizer"].items():
            index, key = name.split(".", 1)
            optimizer["state"].setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(optimizer)
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.norm_frozen = state["norm_frozen"]
        self.average.updates = state["average_updates"]

    def _batches(self, steps: Sequence[int]) -> Prefetcher:
        config = self.config

        def make(step: int) -> list[Batch]:
            return make_batches(self.sampler, config.seed, step, config.batch_size)

        depth = config.prefetch
        if depth is None:  # on a CPU the thread would only take time from the network's threads
            depth = 2 if self.device.type == "cuda" else 0
        return Prefetcher(make, steps, depth)

    @contextmanager
    def _log(self) -> Iterator[Callable[[dict[str, float]], None]]:
        """Append to log.csv the mean over every ``log_every`` steps."""
        path = self.folder / "log.csv"
        _drop_rows_after(path, self.step)
        rows: list[dict[str, float]] = []
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            if file.tell() == 0:
                writer.writeheader()

            def log(row: dict[str, float]) -> None:
                rows.append(row)
                if self.step % self.config.log_every:
                    return
                mean = {k: sum(r[k] for r in rows) / len(rows) for k in row}
                line = {"step": self.step, "seconds": self.seconds, **mean}
                writer.writerow(
                    {k: line[k] if k == "step" else f"{line[k]:.6g}" for k in LOG_FIELDS}
                )
                file.flush()
                rows.clear()
                if self.on_log is not None:
                    self.on_log(line)

            yield log

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a stop after the present step."""
        self._stop_asked = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    return sorted(Path(folder).glob(f"{CHECKPOINT_PREFIX}*"))


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest readable checkpoint of a run; None when there is none."""
    for path in reversed(checkpoints(folder)):
        try:
            json.loads((path / "state.json").read_text(encoding="utf-8"))
            load_file(path / "tensors.safetensors")
        except (OSError, ValueError, SafetensorError):
            continue  # a disk that lost power: the one before it is complete
        return path
    return None


def averaged_weights(checkpoint: str | Path) -> dict[str, Tensor]:
    """The averaged network weights of a checkpoint folder, or of a run folder's newest one.

    Raises:
        UserError: there is no checkpoint.
    """
    path = Path(checkpoint)
    newest = path if (path / "state.json").is_file() else latest_checkpoint(path)
    if newest is None:
        raise UserError(f"{path} holds no training checkpoint; check the path.")
    tensors = load_file(newest / "tensors.safetensors")
    prefix = "average."
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Start a network at the weights of a ``.safetensors`` file or of a checkpoint folder.

    Raises:
        UserError: the source is missing or holds the weights of another network.
    """
    path = Path(source)
    try:
        weights = averaged_weights(path) if path.is_dir() else load_file(path)
        network.load_state_dict(weights)
    except (OSError, SafetensorError):
        raise UserError(f"start weights {path} cannot be read; check the path.") from None
    except RuntimeError:
        raise UserError(f"start weights {path} belong to another network.") from None


def _norms(network: nn.Module) -> list[nn.BatchNorm3d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Weight decay for convolution kernels only: batch norm and biases have none to spare.

    Muon takes the kernels between the first and the last layer; those two map to and from the
    image and the landmarks, whose directions have sizes of their own.
    """
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    decay = config.weight_decay
    if config.optimizer == "muon":
        groups: list[dict[str, Any]] = [
            {"params": kernels[1:-1], "weight_decay": decay, "orthogonal": True},
            {"params": [kernels[0], kernels[-1]], "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return Muon(groups, lr=config.learning_rate)
    groups = [
        {"params": kernels, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; choose auto, cpu or cuda.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no usable CUDA GPU; choose device auto or cpu.")
    return device


def _drop_rows_after(path: Path, step: int) -> None:
    """Remove log rows of steps that the run is going to take again (it was killed after them)."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    kept = rows[:1] + [r for r in rows[1:] if r and r[0].isdigit() and int(r[0]) <= step]
    if kept != rows:
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(kept)
        os.replace(unfinished, path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
