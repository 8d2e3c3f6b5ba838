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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from lightning_fabric import Fabric
from torch import nn

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet, channels_last
from BrainLandmarksLib.network.inference import keep_freed_memory

from .batches import Loader, Maker, Sampler, lost_worker_told, make_batches
from .checkpoint import (
    PREFIX,
    TrainingState,
    latest_checkpoint,
    load_weights,
    write_best,
    write_checkpoint,
)
from .config import MachineConfig, RunConfig, TrainingConfig
from .distributed import make_fabric, share, summed
from .ema import ExponentialMovingAverage
from .logs import Log, RunLog
from .optimizer import make_optimizer
from .schedule import learning_rate
from .step import TrainingStep, average_statistics
from .tasks import HeatmapTask, Task

EPOCH_STEPS = 200
"""Steps of an epoch where nothing says how many scans there are."""

#: Steps that no run reaches: samples for validation, and those that batch norm is averaged over.
VALIDATION_STEP = 2**31
_RECALIBRATION_STEP = VALIDATION_STEP + 1


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

    ``trainer.ema.network`` is the network to ship. A checkpoint in ``folder`` is resumed;
    Ctrl-C and SIGTERM write one and return.

    Args:
        network: trained in place.
        sampler: makes one sample from a step and a random generator; must draw from nothing else.
        config: the settings of the training.
        folder: of the run.
        task: what the network learns; by default to find landmarks.
        validation: makes the samples that the validation error is measured on; by default unseen
            ones of ``sampler``.
        fabric: the processes (`distributed.make_fabric`); by default this one.
        machine: how samples are made ahead.
        seed: of everything random.
        made_of: what else the weights follow from, by its name in a sentence, such as the scans;
            a run with another value is not gone on with.
        on_log: called with every row of the log, in the first process.

    Raises:
        UserError: ``init_from`` or a checkpoint does not fit the network, a checkpoint is of other
            settings, or the batch cannot be shared among the processes.
    """

    def __init__(
        self,
        network: HighRes3DNet,
        sampler: Sampler,
        config: RunConfig,
        folder: str | Path,
        *,
        task: Task | None = None,
        validation: Sampler | None = None,
        fabric: Fabric | None = None,
        machine: MachineConfig | None = None,
        seed: int = 0,
        made_of: Mapping[str, str | int] | None = None,
        on_log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.config = config
        self.machine = machine or MachineConfig()
        self.sampler = sampler
        self.validation = validation or sampler
        self.seed = seed
        self.made_of = {"seed": seed, **(made_of or {})}
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
        newest = latest_checkpoint(self.folder)
        if config.init_from and newest is None:
            load_weights(self.network, config.init_from)
        self.ema = ExponentialMovingAverage(self.network, config.ema_decay)
        self.task = task or _to_find_landmarks(config)
        self.state = TrainingState(self.network, self.ema, make_optimizer(self.network, config))
        self.take_step = TrainingStep(self.state, self.task, config, self.fabric, seed)
        self.epoch_steps = config.epoch_steps or EPOCH_STEPS
        self._stop_asked = False
        if newest is not None:
            self.state.load(newest, config, self.made_of)

    def stop(self) -> None:
        """Ask :meth:`train` to stop after the present step; callable from another thread."""
        self._stop_asked = True

    def progress(self) -> float:
        """How much of the run is done, 0 to 1, by steps or by time, whichever is further."""
        parts = []
        if self.config.steps:
            parts.append(self.state.step / self.config.steps)
        if self.config.minutes:
            parts.append(self.state.seconds / (60.0 * self.config.minutes))
        return min(max(parts), 1.0)

    def learning_rate(self) -> float:
        """Learning rate of the coming step."""
        return learning_rate(self.config, self.state.step, self.progress(), self.state.plateau)

    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress() >= 1.0 or self.state.plateau.exhausted(self.config.patience)

    def train(self, until: int | None = None) -> TrainingResult:
        """Train to the end of the run, or until interrupted; a checkpoint is written either way.

        Args:
            until: The step before which to pause, as at the end of a round of a federation.

        Raises:
            UserError: a checkpoint cannot be written, or a process that makes samples has died.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        seconds_before, step_before = self.state.seconds, self.state.step
        saved_at, saved_step = started, -1
        last = self.config.steps if self.config.steps is not None else VALIDATION_STEP
        last = last if until is None else min(last, until)
        stopping = False
        self._stop_asked = False
        with (
            _on_signals(self.stop),
            lost_worker_told(),
            self._log() as log,
            self._samples(range(self.state.step, last)) as samples,
        ):
            for _, batches in samples:
                if stopping or self.finished():
                    break
                if not self.state.norm_frozen and self.progress() >= self.config.freeze_norm_at:
                    self.freeze_norm()
                row = self.take_step(batches, self.learning_rate())
                now = time.monotonic()
                own = {"seconds": seconds_before + now - started}
                stopping, row = self._agreed(row, own)
                self.state.seconds = row["seconds"]
                elapsed = max(now - started, 1e-9)
                samples_made = (self.state.step - step_before) * self.config.batch_size
                row["samples_per_second"] = samples_made / elapsed
                row["waiting_share"] = min(samples.waited / elapsed, 1.0)
                row["progress"] = self.progress()
                log.step(row)
                sums = self.state.epoch_sums
                for name in self.take_step.sums:
                    sums[name] = sums.get(name, 0.0) + row[name] / self.epoch_steps
                if self.state.step % self.epoch_steps == 0:
                    self._end_epoch(row, log)
                    saved_at, saved_step = now, self._save_if_first()
                elif now - saved_at > 60.0 * self.config.checkpoint_minutes:
                    saved_at, saved_step = now, self._save_if_first()
        if saved_step != self.state.step:
            self._save_if_first()
        self.fabric.barrier()
        return TrainingResult(
            self.state.step,
            self.state.seconds,
            self.finished(),
            self.folder / f"{PREFIX}{self.state.step:08d}",
        )

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
            *(row[name] / self._processes for name in self.take_step.sums),
            *(value if leads else 0.0 for value in first.values()),
        ]
        stop, *rest = summed(self.fabric, values)
        return stop > 0, {**row, **dict(zip((*self.take_step.sums, *first), rest, strict=True))}

    def freeze_norm(self) -> None:
        """Average the batch-norm statistics over some batches, then keep them fixed.

        With one cube a step, training statistics are those of that cube and the running ones only
        approximate them; the rest of the run trains the very function that detection evaluates.
        """
        count = self.config.recalibration_batches
        whole = range(self.config.batch_size)
        cubes = (
            cubes
            for step in range(_RECALIBRATION_STEP, _RECALIBRATION_STEP + count)
            for cubes, *_ in make_batches(self.sampler, self.seed, step, whole)
        )
        average_statistics(self.network, cubes, self.fabric)
        self.state.norm_frozen = True
        self.ema.restart(self.network)

    @torch.no_grad()
    def validate(self) -> float:
        """Error of the averaged network on scans that no step sees, such as mm (`Task.error`)."""
        tally = [0.0] * self.task.tallied
        for index in share(self.fabric, self.config.validation_scans):
            batches = make_batches(self.validation, self.seed, VALIDATION_STEP, [index])
            for batch in batches:
                own = self.task.tally(*self.take_step.answers(self.ema.network, batch))
                tally = [total + value for total, value in zip(tally, own, strict=True)]
        return self.task.error(summed(self.fabric, tally))

    def _end_epoch(self, row: dict[str, float], log: Log) -> None:
        error = self.validate() if self.config.validation_scans else math.nan
        if not math.isnan(error):
            patience = self.config.plateau_patience if self.config.schedule == "plateau" else None
            better = self.state.plateau.see(error, patience)
            if better and self.config.patience and self.fabric.is_global_zero:
                write_best(self.folder, self.ema.network)
        epoch = {**row, **self.state.epoch_sums, "epoch": self.state.step // self.epoch_steps}
        if not math.isnan(error):
            epoch[self.task.validation] = error
        log.epoch(epoch)
        self.state.epoch_sums = {}

    def save(self) -> Path:
        """Write a checkpoint folder; it appears whole or not at all. Older ones are removed.

        Raises:
            UserError: it cannot be written; the older ones are untouched.
        """
        state = self.state
        checkpoint = state.to_checkpoint(self.config, self.made_of)
        return write_checkpoint(self.folder, state.step, checkpoint, self.config.keep_checkpoints)

    def _save_if_first(self) -> int:
        """Write a checkpoint in the first process; the step that it is of."""
        if self.fabric.is_global_zero:
            self.save()
        return self.state.step

    def _samples(self, steps: Sequence[int]) -> Loader:
        depth = self.machine.prefetch
        if depth is None:  # on a CPU the thread would only take time from the network's threads
            depth = 2 if self.device.type == "cuda" else 0
        maker = Maker(self.sampler, self.seed, share(self.fabric, self.config.batch_size))
        return Loader(maker, steps, depth, self.machine.workers)

    def _log(self) -> Log:
        if not self.fabric.is_global_zero:
            return Log()
        return RunLog(
            self.folder,
            self.state.step,
            self.config.log_every,
            self.config.tensorboard,
            self.task,
            self.on_log,
            self.state.unlogged,
        )


def _to_find_landmarks(config: RunConfig) -> Task:
    assert isinstance(config, TrainingConfig)  # what else there is to learn, the caller says
    return HeatmapTask(config)


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a call of ``stop``."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
