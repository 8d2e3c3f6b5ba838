"""What a site does in a round: train the recipe from the server's weights, or measure them.

Flower is unknown here. A site has a folder: ``rounds/`` holds the round in progress, so that a site
that died goes on inside it, and the one that was finished last, so that the same question gets the
same answer; ``batch_norm/`` holds what stays here of each federation; ``cache/`` holds the
resampled scans; ``progress.json`` says how far it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Model, load_model, save_model
from BrainLandmarksTrainLib.config.federation import STATISTICS_BATCHES, Federation
from BrainLandmarksTrainLib.engine.checkpoint import averaged_weights, latest_checkpoint
from BrainLandmarksTrainLib.engine.config import MachineConfig, TrainingConfig
from BrainLandmarksTrainLib.engine.distributed import make_fabric
from BrainLandmarksTrainLib.engine.trainer import Trainer
from BrainLandmarksTrainLib.evaluation.comparison import Comparison
from BrainLandmarksTrainLib.evaluation.model_comparison import fair_entries
from BrainLandmarksTrainLib.pipeline.prepare import TrainingData, prepare
from BrainLandmarksTrainLib.pipeline.progress import read_progress
from BrainLandmarksTrainLib.pipeline.samplers import samplers
from BrainLandmarksTrainLib.pipeline.transfer import start_network

from .model import federated_model, fresh_network
from .progress import SiteProgress, write_progress
from .stage import Refused, Stage
from .weights import (
    Arrays,
    need_same_names,
    networks_of,
    norm_names,
    part_of,
    put,
    shared_arrays,
)

ROUNDS, CACHE, PERSONAL = "rounds", "cache", "batch_norm"
_HASH = 16
"""Characters of a hash in the name of a folder."""


@dataclass(frozen=True)
class Trained:
    """What a site answers to a round of training; nothing else of it leaves the site."""

    arrays: Arrays
    scans: int
    """Scans that were learnt from, by which the server weights the answer."""
    loss: float
    error_mm: float
    """Means over the round's steps, of the scans that were trained on."""


@dataclass(frozen=True)
class Measured:
    """Errors of the start model and of the present one on the site's held-out scans, mm."""

    scans: int
    before_mm: float
    after_mm: float
    missed_before: int
    missed_after: int


class Site:
    """A dataset, and a folder to work in.

    >>> site = Site(federation, dataset="scans", folder="runs/joined")
    >>> site.need_same(config)
    >>> site.train(1, arrays).scans
    40

    Args:
        federation: What the app says.
        dataset: Folder of the dataset.
        folder: To work in.
        model: Folder or name of the start model; by default the shipped one of the app's name.
        machine: Where to compute.
        seed: Added to the recipe's, so that sites do not draw the same.
        report: Takes lines for the person at the site.

    Raises:
        UserError: the dataset, the model or the recipe cannot be used.
        Refused: the site's dataset has other landmarks than the model.
    """

    def __init__(
        self,
        federation: Federation,
        dataset: str | Path,
        folder: str | Path,
        model: str | Path,
        machine: MachineConfig | None = None,
        seed: int = 0,
        report: Callable[[str], None] = print,
    ) -> None:
        self.federation = federation
        self.settings = federation.settings
        self.folder = Path(folder)
        self.report = report
        self.base = load_model(model)
        self.dataset = Dataset.open(dataset)
        self.stage = replace(Stage.of(self.base), protocol=self.dataset.protocol.hash)
        # A site is one process, whatever other GPUs or a job of Slurm are there.
        alone = replace(machine or MachineConfig(), devices=1, nodes=1)
        recipe = federation.at(model, self.folder, dataset, alone)
        self.recipe = replace(recipe, seed=(recipe.seed + seed) % 2**31)
        # What was begun by other settings is no part of this federation.
        about = {"name": federation.model, **self.stage.to_config(), **federation.lasting()}
        self._about = sha256([json.dumps(about, sort_keys=True)])[:_HASH]
        self._own_norms = self.folder / PERSONAL / self._about

    def need_same(self, config: Mapping[str, Any]) -> None:
        """Check that the server is of the same stage.

        Raises:
            Refused: it is not.
        """
        self.stage.need_same(config)
        if self.base.protocol.hash != self.stage.protocol:
            raise Refused(
                "the start model of this site finds other landmarks than its dataset has; nothing "
                "was trained."
            )

    @property
    def names(self) -> list[str]:
        """Of the weights that are exchanged."""
        nets = networks_of(self.base)
        return list(shared_arrays(nets, self.recipe.trained, self.settings.batch_norm))

    # Training -------------------------------------------------------------------------------------

    def train(self, number: int, arrays: Mapping[str, Any]) -> Trained:
        """Train a round.

        The answer to the same weights is the same: what is finished is read again, what was
        interrupted goes on.

        Args:
            number: Of the round, from 1.
            arrays: The server's weights.

        Raises:
            UserError: the data cannot be used, the weights are of another network, or the disk is
                full; the rounds before are untouched.
            Refused: the site has more scans than secure aggregation can weigh.
        """
        need_same_names(arrays, self.names)
        work = self.folder / ROUNDS / f"{number:05d}-{self._about}-{_digest(arrays)}"
        self._forget_other_rounds(work)
        self._says(number, "reading")
        recipe = replace(self.recipe, output=str(self.folder))
        data = prepare(recipe, _device(recipe.machine), self.report)
        most = self.settings.most_scans
        if self.settings.secure_aggregation and len(data.scans) > most:
            raise Refused(
                f"this site has more scans to learn from than the {most} that the federation's "
                "most_scans allows; nothing was trained."
            )
        for part, config in recipe.trained.items():
            assert isinstance(config, TrainingConfig)  # `Federation.at` has no others
            self._train_part(number, part, config, arrays, data, work)
        networks = {part: self._network(part, work) for part in recipe.trained}
        answer = shared_arrays(networks, recipe.trained, self.settings.batch_norm)
        if self.settings.batch_norm == "local":
            self._keep_norms(networks)
        loss, error = _means(work)
        self._says(number, "waiting", loss, error)
        return Trained(answer, len(data.scans), loss, error)

    def _train_part(
        self,
        number: int,
        part: str,
        config: TrainingConfig,
        arrays: Mapping[str, Any],
        data: TrainingData,
        work: Path,
    ) -> None:
        assert config.steps is not None  # `Federation.at` needs it
        steps, rounds = config.steps, self.settings.rounds
        local = self.settings.batch_norm == "local"
        whole = replace(
            config, steps=steps * rounds, epoch_steps=steps, validation_scans=0, tensorboard=False,
            patience=None, log_every=min(config.log_every, steps), keep_checkpoints=1,
            recalibration_batches=max(config.recalibration_batches, STATISTICS_BATCHES * local),
        )  # fmt: skip
        protocol, seed = self.base.protocol, self.recipe.seed
        network = start_network(self.base, part, protocol, config.dropout, seed)
        first = (number - 1) * steps
        norms = self._norms(part) if local else {}
        begun = latest_checkpoint(work / part) is not None
        if not begun:
            put(network, part_of(arrays, part))
            put(network, norms)
        sampler, _ = samplers(data, self.recipe, part, whole)
        trainer = Trainer(
            network,
            sampler,
            whole,
            work / part,
            machine=self.recipe.machine,
            seed=seed,
            on_log=lambda row: self._says(
                number, f"training the {part} network", row["total"], row.get("error_mm")
            ),
        )
        if not begun:
            trainer.state.step = first
            # What earlier rounds have frozen stays so; a site whose batch norm is its own measures
            # it in the first round that it takes part in.
            past = trainer.progress() > whole.freeze_norm_at
            trainer.state.norm_frozen = past and (bool(norms) or not local)
        if self.settings.strategy == "fedprox":
            hold_near(trainer, part_of(arrays, part), self.settings.proximal_mu)
        trainer.train(until=first + steps)
        if trainer.state.step < first + steps:
            raise UserError("the site was stopped inside a round; the same command goes on in it.")

    def _network(self, part: str, work: Path) -> HighRes3DNet:
        network = fresh_network(self.base, part)
        network.load_state_dict(averaged_weights(work / part))
        return network

    def _forget_other_rounds(self, work: Path) -> None:
        for other in (self.folder / ROUNDS).glob("*"):
            if other != work:
                shutil.rmtree(other, ignore_errors=True)

    # Batch norm that stays here -------------------------------------------------------------------

    def _norms(self, part: str) -> dict[str, torch.Tensor]:
        """Batch norm as this site had it last; nothing before its first round."""
        try:
            return load_file(self._own_norms / f"{part}.safetensors")
        except (OSError, SafetensorError):
            return {}

    def _keep_norms(self, networks: Mapping[str, HighRes3DNet]) -> None:
        self._own_norms.mkdir(parents=True, exist_ok=True)
        for part, network in networks.items():
            state = network.state_dict()
            kept = {name: state[name].cpu().contiguous() for name in sorted(norm_names(network))}
            with atomic_write(self._own_norms / f"{part}.safetensors") as unfinished:
                save_file(kept, unfinished)

    # Measuring ------------------------------------------------------------------------------------

    def measure(self, number: int, arrays: Mapping[str, Any]) -> Measured:
        """Measure the start model and the present one on the site's held-out scans.

        These are the test split, or the validation split where there is none. The present model is
        written to the site's folder ``model``.

        Raises:
            UserError: a scan cannot be read, or the weights are of another network.
        """
        need_same_names(arrays, self.names)
        self._says(number, "measuring")
        model = self.model(number, arrays)
        # First, for a scan that cannot be read must not cost the model.
        save_model(model, self.folder / "model", overwrite=True)
        entries, _ = fair_entries(self.dataset)
        device = self.recipe.machine.device
        before, after = (
            Comparison.of_model(each, self.dataset, entries, device) for each in (self.base, model)
        )
        done = number >= self.settings.rounds
        self._says(number, "finished" if done else "waiting")
        return Measured(
            len(entries),
            _mean(before.errors),
            _mean(after.errors),
            int(before.missed.sum()),
            int(after.missed.sum()),
        )

    def model(self, number: int, arrays: Mapping[str, Any]) -> Model:
        """The model of some weights at this site; with local batch norm, with its own."""
        own = {}
        if self.settings.batch_norm == "local":
            own = {part: self._norms(part) for part in self.recipe.trained}
        return federated_model(self.base, self.federation, self.recipe, number, arrays, own)

    def _says(
        self, number: int, doing: str, loss: float | None = None, error_mm: float | None = None
    ) -> None:
        said = SiteProgress(number, self.settings.rounds, doing, loss, error_mm)
        write_progress(self.folder, said)


def hold_near(trainer: Trainer, weights: Mapping[str, torch.Tensor], mu: float) -> None:
    """FedProx: let every step pull the weights back to those that the round began with.

    Adds ``mu / 2 |w - w0|^2`` to the loss, by its gradient.
    """
    pairs = [
        (parameter, weights[name].to(parameter.device))
        for name, parameter in trainer.network.named_parameters()
        if name in weights
    ]

    def pull(*_: object) -> None:
        for parameter, first in pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - first, alpha=mu)

    trainer.state.optimizer.register_step_pre_hook(pull)


def _digest(arrays: Mapping[str, Any]) -> str:
    """Which weights a round began with."""
    parts = [part for name in sorted(arrays) for part in (name, _bytes(arrays[name]))]
    return sha256(parts)[:_HASH]


def _bytes(array: Any) -> bytes:
    return np.ascontiguousarray(array, dtype=np.float32).tobytes()


def _device(machine: MachineConfig) -> str:
    return str(make_fabric(machine).device.type)


def _means(work: Path) -> tuple[float, float]:
    """Loss and error of the round's last network in training, from its log."""
    curves = read_progress(work)
    if not curves:
        return 0.0, 0.0
    values = [[v for v in curve.values if np.isfinite(v)] for curve in
              (curves[-1].loss, curves[-1].error)]  # fmt: skip
    loss, error = (float(np.mean(v)) if v else 0.0 for v in values)
    return loss, error


def _mean(errors: np.ndarray) -> float:
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if len(known) else float("nan")
