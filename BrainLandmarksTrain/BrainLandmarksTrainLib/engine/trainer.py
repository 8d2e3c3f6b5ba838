"""The training loop: resumable at any moment, the same on one processor and on many.

A run is a folder: tables of steps and epochs, TensorBoard's events, the newest checkpoints.
Starting the trainer on a folder with a checkpoint goes on from there. Every random number of step s
comes from the seed and s alone, so a run that was stopped and resumed takes exactly the steps of a
run that never stopped, and several processes take those of one.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from BrainLandmarksLib.detection.refinement import with_prior
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet, channels_last
from BrainLandmarksLib.network.inference import keep_freed_memory

from .batches import Batch, Loader, Maker, Sampler, make_batches
from .checkpoint import (
    PREFIX,
    Checkpoint,
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    write_best,
    write_checkpoint,
)
from .config import MachineConfig, TrainingConfig
from .distributed import make_fabric
from .ema import ExponentialMovingAverage
from .logs import Log, RunLog
from .losses import LossParts, MixedLoss, visible
from .optimizer import make_optimizer
from .schedule import PlateauMonitor, learning_rate

EPOCH_STEPS = 200
"""Steps of an epoch where nothing says how many scans there are."""

#: Steps that no run reaches: samples for validation, and those that batch norm is averaged over.
VALIDATION_STEP = 2**31
_RECALIBRATION_STEP = VALIDATION_STEP + 1

_SUMS = ("total", "heatmap", "coordinate", "error_voxels")


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

    >>> config = TrainingConfig(size=32, steps=2000)
    >>> trainer = Trainer(HighRes3DNet(out_channels=88), sampler, config, "run")
    >>> trainer.train().finished
    True

    ``trainer.average.network`` is the network to ship. A checkpoint in ``folder`` is resumed;
    Ctrl-C and SIGTERM write one and return.

    Args:
        network: trained in place.
        sampler: makes one sample from a step and a random generator; must draw from nothing else.
        config: the settings of the training.
        folder: of the run.
        validation: makes the samples that the validation error is measured on; by default unseen
            ones of ``sampler``.
        fabric: the processes (`machine.make_fabric`); by default this one.
        machine: how samples are made ahead.
        seed: of everything random.
        on_log: called with every row of the log, in the first process.

    Raises:
        UserError: ``init_from`` or a checkpoint does not fit the network, or the batch cannot be
            shared among the processes.
    """

    def __init__(
        self,
        network: HighRes3DNet,
        sampler: Sampler,
        config: TrainingConfig,
        folder: str | Path,
        *,
        validation: Sampler | None = None,
        fabric: Fabric | None = None,
        machine: MachineConfig | None = None,
        seed: int = 0,
        on_log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.config = config
        self.machine = machine or MachineConfig()
        self.sampler = sampler
        self.validation = validation or sampler
        self.seed = seed
        self.on_log = on_log
        self.folder = Path(folder)
        self.fabric = fabric or make_fabric(self.machine)
        self.device = self.fabric.device
        self._processes = self.fabric.world_size
        if config.batch_size % self._processes:
            raise UserError(
                f"a batch of {config.batch_size} scans cannot be shared by {self._processes} "
                "processes; make 'batch_size' a multiple of them."
            )
        if self.device.type == "cpu":
            keep_freed_memory()
        elif self._processes > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = channels_last(network.to(self.device))
        self.loss = MixedLoss(config.alpha, config.sigma, config.coordinate_loss)  # type: ignore[arg-type]
        if config.init_from:
            load_weights(self.network, config.init_from)
        self.average = ExponentialMovingAverage(self.network, config.average_decay)
        self.optimizer = make_optimizer(self.network, config)
        self._module, self._optimizer = self.fabric.setup(self.network, self.optimizer)
        self.epoch_steps = config.epoch_steps or EPOCH_STEPS
        self.step = 0
        self.seconds = 0.0
        self.norm_frozen = False
        self.watch = PlateauMonitor()
        self._epoch_sums = dict.fromkeys(_SUMS, 0.0)
        self._unlogged: list[dict[str, float]] = []
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
        """Learning rate of the coming step."""
        return learning_rate(self.config, self.step, self.progress(), self.watch)

    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress() >= 1.0 or self.watch.exhausted(self.config.patience)

    def train(self) -> TrainingResult:
        """Train to the end of the run, or until interrupted; a checkpoint is written either way.

        Raises:
            UserError: a checkpoint cannot be written, or a process that makes samples has died.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        seconds_before, step_before = self.seconds, self.step
        saved_at, saved_step = started, -1
        last = self.config.steps if self.config.steps is not None else VALIDATION_STEP
        stopping = False
        with self._signals(), self._log() as log, self._samples(range(self.step, last)) as samples:
            for _, batches in samples:
                if stopping or self.finished():
                    break
                if not self.norm_frozen and self.progress() >= self.config.freeze_norm_at:
                    self.freeze_norm()
                row = self._train_step(batches)
                now = time.monotonic()
                own = {"seconds": seconds_before + now - started}
                stopping, row = self._agreed(row, own)
                self.seconds = row["seconds"]
                elapsed = max(now - started, 1e-9)
                samples_made = (self.step - step_before) * self.config.batch_size
                row["samples_per_second"] = samples_made / elapsed
                row["waiting_share"] = min(samples.waited / elapsed, 1.0)
                row["progress"] = self.progress()
                log.step(row)
                for name in _SUMS:
                    self._epoch_sums[name] += row[name] / self.epoch_steps
                if self.step % self.epoch_steps == 0:
                    self._end_epoch(row, log)
                    saved_at, saved_step = now, self._save_if_first()
                elif now - saved_at > 60.0 * self.config.checkpoint_minutes:
                    saved_at, saved_step = now, self._save_if_first()
        if saved_step != self.step:
            self._save_if_first()
        self.fabric.barrier()
        return TrainingResult(
            self.step, self.seconds, self.finished(), self.folder / f"{PREFIX}{self.step:08d}"
        )

    def _train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One step; the values of this process alone."""
        config = self.config
        # Dropout draws from torch's generator; seeding it by the step makes resuming exact.
        torch.manual_seed((self.seed * 1_000_003 + self.step) * 1009 + self.fabric.global_rank)
        self._set_mode(self.network)
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        # The loss is the mean over all landmarks of the whole batch, wherever its parts are: DDP
        # divides by the number of processes.
        divisor = self._landmarks(batches) / self._processes
        sums = dict.fromkeys(_SUMS, 0.0)
        for number, batch in enumerate(batches, start=1):
            with self._gradients_summed(number == len(batches)):
                parts = self._loss(self._module, batch, divisor)
                self.fabric.backward(parts.total)
            sums["total"] += float(parts.total.detach())
            sums["heatmap"] += float(parts.heatmap)
            sums["coordinate"] += float(parts.coordinate)
            sums["error_voxels"] += float(parts.radial_error)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm))
        # One broken sample (an overflow in bfloat16) must not poison the weights for good.
        if math.isfinite(norm):
            self._optimizer.step()
            self.average.update(self.network)
        self.step += 1
        return {"step": float(self.step), **sums, "learning_rate": rate, "gradient_norm": norm}

    def _gradients_summed(self, now: bool) -> AbstractContextManager[object]:
        """Let the gradients of all processes be summed with the last part of a step only."""
        if now or self._processes == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self._module)

    def _landmarks(self, batches: list[Batch]) -> float:
        """How many landmarks the batch of all processes shows; at least one."""
        count = 0.0
        for cubes, points, *_ in batches:
            d, h, w = cubes.shape[2:]
            count += float(visible(points, (d, h, w)).sum())
        return max(self._summed([count])[0], 1.0)

    def _summed(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self._processes == 1:
            return list(values)
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self.fabric.all_reduce(own, reduce_op="sum").tolist()  # type: ignore[union-attr]

    def _agreed(
        self, row: dict[str, float], first: Mapping[str, float]
    ) -> tuple[bool, dict[str, float]]:
        """Whether any process was asked to stop, and the row of the whole batch.

        Args:
            first: values that the first process says for all.
        """
        leads = self.fabric.is_global_zero
        values = [
            float(self._stop_asked),
            *(row[name] / self._processes for name in _SUMS),
            *(value if leads else 0.0 for value in first.values()),
        ]
        stop, *rest = self._summed(values)
        row = {**row, **dict(zip((*_SUMS, *first), rest, strict=True))}
        row["error_mm"] = row["error_voxels"] * self.config.voxel_mm
        return stop > 0, row

    def _loss(self, network: nn.Module, batch: Batch, divisor: float | None = None) -> LossParts:
        cubes, points, *guesses = batch
        cubes = cubes.to(self.device, memory_format=torch.channels_last_3d)
        points = points.to(self.device)
        with self.fabric.autocast():
            heatmaps = network(cubes)
        for guess in guesses:
            sigma = (self.config.prior_mm or math.inf) / self.config.voxel_mm
            heatmaps = with_prior(heatmaps, guess.to(self.device), sigma)
        return self.loss(heatmaps, points, divisor)

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
            everything = range(self.config.batch_size)
            step = _RECALIBRATION_STEP + index
            for cubes, *_ in make_batches(self.sampler, self.seed, step, everything):
                with self.fabric.autocast():
                    self.network(cubes.to(self.device))
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        self.norm_frozen = True
        self.average.restart(self.network)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean radial error of the averaged network on scans that no step sees, mm."""
        distance = count = 0.0
        for index in self._share(self.config.validation_scans):
            batches = make_batches(self.validation, self.seed, VALIDATION_STEP, [index])
            for batch in batches:
                parts = self._loss(self.average.network, batch)
                distance += float(parts.radial_error) * parts.count
                count += parts.count
        distance, count = self._summed([distance, count])
        return distance / count * self.config.voxel_mm if count else math.nan

    def _end_epoch(self, row: dict[str, float], log: Log) -> None:
        error = self.validate() if self.config.validation_scans else math.nan
        if not math.isnan(error):
            patience = self.config.plateau_patience if self.config.schedule == "plateau" else None
            better = self.watch.see(error, patience)
            if better and self.config.patience and self.fabric.is_global_zero:
                write_best(self.folder, self.average.network)
        sums = self._epoch_sums
        epoch = {
            **row,
            **sums,
            "epoch": self.step // self.epoch_steps,
            "error_mm": sums["error_voxels"] * self.config.voxel_mm,
        }
        if not math.isnan(error):
            epoch["validation_mm"] = error
        log.epoch(epoch)
        self._epoch_sums = dict.fromkeys(_SUMS, 0.0)

    def save(self) -> Path:
        """Write a checkpoint folder; it appears whole or not at all. Older ones are removed.

        Raises:
            UserError: it cannot be written; the older ones are untouched.
        """
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items()}
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "norm_frozen": self.norm_frozen,
            "average_updates": self.average.updates,
            "watch": self.watch.to_dict(),
            "epoch_sums": self._epoch_sums,
            "unlogged": self._unlogged,
            "network": self.network.spec(),
            "config": self.config.to_dict(),
        }
        checkpoint = Checkpoint(state, tensors)
        return write_checkpoint(self.folder, self.step, checkpoint, self.config.keep_checkpoints)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint folder.

        Raises:
            UserError: it belongs to another network.
        """
        checkpoint = read_checkpoint(folder)
        try:
            self.network.load_state_dict(checkpoint.part("network"))
            self.average.network.load_state_dict(checkpoint.part("average"))
        except RuntimeError:
            raise UserError(
                f"checkpoint {folder} belongs to another network than these settings describe; "
                "use another output folder."
            ) from None
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
        self.average.updates = state["average_updates"]
        self.watch = PlateauMonitor.from_dict(state["watch"])
        self._epoch_sums = state["epoch_sums"]
        self._unlogged = state["unlogged"]

    def _save_if_first(self) -> int:
        """Write a checkpoint in the first process; the step that it is of."""
        if self.fabric.is_global_zero:
            self.save()
        return self.step

    def _share(self, count: int) -> range:
        """This process' part of ``count`` things."""
        return range(self.fabric.global_rank, count, self._processes)

    def _samples(self, steps: Sequence[int]) -> Loader:
        depth = self.machine.prefetch
        if depth is None:  # on a CPU the thread would only take time from the network's threads
            depth = 2 if self.device.type == "cuda" else 0
        maker = Maker(self.sampler, self.seed, self._share(self.config.batch_size))
        return Loader(maker, steps, depth, self.machine.workers)

    def _log(self) -> Log:
        if not self.fabric.is_global_zero:
            return Log()
        return RunLog(
            self.folder,
            self.step,
            self.config.log_every,
            self.config.tensorboard,
            self.on_log,
            self._unlogged,
        )

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


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm)]
