"""From a recipe to a model that ships: prepare, train the networks, measure, save.

Each network is an ordinary training run (:mod:`.engine`), so an interrupted recipe goes on where it
stopped. With several processes the first one prepares what all of them read, and measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksTrainLib.config.parcellation import ParcellationConfig
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.engine.batches import Sampler
from BrainLandmarksTrainLib.engine.checkpoint import checkpoints
from BrainLandmarksTrainLib.engine.config import TrainingConfig
from BrainLandmarksTrainLib.engine.distributed import make_fabric
from BrainLandmarksTrainLib.engine.segmentation import SegmentationTask
from BrainLandmarksTrainLib.engine.tasks import HeatmapTask, Task
from BrainLandmarksTrainLib.engine.trainer import Trainer

from .finish import assembled, finish, need_startable, network_of
from .parcellation import parcellation_network, parcellation_samplers
from .prepare import Report, TrainingData, prepare
from .samplers import samplers


def train_model(
    recipe: Recipe,
    report: Report = print,
    *,
    command: str = "",
    on_log: Callable[[str, dict[str, float]], None] | None = None,
    vary: Callable[[str, TrainingData], TrainingData] = lambda part, data: data,
) -> Path | None:
    """Run a recipe; returns the model's folder, or None when training was interrupted.

    Args:
        report: takes lines for the user, in the first process only.
        command: what the model will say that it was made with.
        on_log: called with the network's name and every row of its log, in the first process.
        vary: changes what a network, one of `Recipe.trained`, is trained on.

    Raises:
        UserError: the data, the settings or a checkpoint cannot be used.
    """
    fabric = make_fabric(recipe.machine)
    announce: Report = report if fabric.is_global_zero else lambda line: None
    output = Path(recipe.output)
    with fabric.rank_zero_first():
        data = prepare(recipe, fabric.device.type, announce)
    need_startable(data, recipe)
    for part, config in recipe.trained.items():
        announce(f"training the {part} network")
        seen = vary(part, data)
        if isinstance(config, TrainingConfig):
            config = _with_epochs(config, data)
            task: Task = HeatmapTask(config)
            network = network_of(data, recipe, part, config)
            sampler, validation = samplers(seen, recipe, part, config)
        else:
            assert isinstance(config, ParcellationConfig)
            task = SegmentationTask(config.weights())
            network, sampler, validation = _parcellation(seen, recipe, config)
        trainer = Trainer(
            network,
            sampler,
            config,
            output / part,
            task=task,
            validation=validation,
            fabric=fabric,
            machine=recipe.machine,
            seed=recipe.seed,
            made_of={"training set": _fingerprint(data)},
            on_log=None if on_log is None else lambda row, part=part: on_log(part, row),  # type: ignore[misc]
        )
        if not trainer.train().finished:
            announce("interrupted; the same command resumes from here")
            return None
    folder = output / "model"
    if fabric.is_global_zero:
        model = assembled(data, recipe, command)
        report("measuring on held-out scans")
        finish(model, data, recipe, folder, report)
        report(f"model written to {folder}")
    fabric.barrier()
    return folder


def _fingerprint(data: TrainingData) -> str:
    """SHA-256 of what is learnt from: heads by name, scans by their voxels and landmarks."""
    parts = [f"{name}\n" for name in dict.fromkeys(head.name for head in data.rendered)]
    entries = data.dataset.entries if data.dataset is not None else []
    images = {entry.identity: entry.image_hash for entry in entries}
    for scan in data.scans:
        parts.append(f"{images[scan.name]} {scan.landmarks.round(4).tolist()}\n")
    return sha256(parts)


def need_no_run(recipe: Recipe) -> None:
    """Check that a recipe's output folder holds no run that it would go on with.

    Raises:
        UserError: there is one.
    """
    for part in recipe.trained:
        if checkpoints(Path(recipe.output) / part):
            raise UserError(
                f"{recipe.output} holds a run already; choose another --output, or --resume "
                "auto to go on with it."
            )


def _parcellation(
    data: TrainingData, recipe: Recipe, config: ParcellationConfig
) -> tuple[HighRes3DNet, Sampler, Sampler | None]:
    assert data.parcellation is not None
    network = parcellation_network(config, data.parcellation.classes, data.base, recipe.seed)
    return network, *parcellation_samplers(data.parcellation, recipe, config)


def _with_epochs(config: TrainingConfig, data: TrainingData) -> TrainingConfig:
    """An epoch of a dataset: each scan seen once."""
    if config.epoch_steps or not data.scans or data.heads:
        return config
    return replace(config, epoch_steps=max(1, -(-len(data.scans) // config.batch_size)))
