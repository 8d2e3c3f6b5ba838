"""From a recipe to a model that ships: prepare, train the networks, measure, save.

Each network is an ordinary training run (:mod:`.engine`), so an interrupted recipe goes on where it
stopped. With several processes the first one prepares what all of them read, and measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib import __version__
from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset_check import require_sound
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import FloatArray
from BrainLandmarksLib.models import Look, Model, ModelSpec, load_model, save_model
from BrainLandmarksLib.network import HighRes3DNet
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.shape_model import ShapeModel

from .comparison import true_points
from .detail import DetailSampler
from .engine.batches import Sampler
from .engine.checkpoint import (
    checkpoints,
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    trained_weights,
)
from .engine.config import TrainingConfig
from .engine.machine import make_fabric
from .engine.trainer import Trainer
from .evaluation import ErrorTable, HeldOut, evaluate_scans, measure
from .generator import ANY_POSE, CANONICAL, Head, HeadGenerator, HeadSampler, Lattice, Variation
from .heads import AnnotatedMap, find_label_maps, read_annotated
from .offspring import breed
from .recipe import HeadsConfig, Recipe, ScansConfig
from .scans import Scan, ScanSampler, read_scans
from .shape import mean_shape
from .start import start_network

Say = Callable[[str], None]

PARTS = ("locator", "fine", "detail")
PROTOCOL = "brain88"
"""Protocol of a recipe that names none and has no dataset: the one that the rules place."""

SHARPNESS = 1.5
"""`ModelSpec.sharpness` of a model that a heatmap loss has made; docs/robustness.md has what others
do."""

_OVERSAMPLING = {"locator": 3, "fine": 2, "detail": 2}
_PACKAGES = (
    "torch", "numpy", "scipy", "nibabel", "safetensors", "lightning-fabric", "torchio",
)  # fmt: skip


@dataclass(frozen=True)
class Kitchen:
    """What a recipe is cooked from, read and ready."""

    protocol: Protocol
    base: Model | None
    """The model to start from."""
    shape: FloatArray
    """(K, 3) mean landmarks in the canonical pose."""
    heads: Sequence[Head] = ()
    held_out: Sequence[AnnotatedMap] = ()
    scans: Sequence[Scan] = ()
    validation: Sequence[Scan] = ()
    dataset: Dataset | None = None

    @property
    def names(self) -> list[str]:
        """What training sees: names of label maps, numbers of scans."""
        return list(dict.fromkeys([h.name for h in self.heads] + [s.name for s in self.scans]))

    @property
    def landmarks(self) -> list[FloatArray]:
        """Landmark sets that training sees, each (K, 3)."""
        return [h.landmarks for h in self.heads] + [s.landmarks for s in self.scans]


@dataclass(frozen=True)
class Mixture:
    """Makes samples of either of two kinds."""

    one: Sampler
    other: Sampler
    share: float
    """Of the first kind."""

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """A sample of a kind that chance decides."""
        return (self.one if rng.random() < self.share else self.other)(step, rng)


def cook(
    recipe: Recipe,
    say: Say = print,
    *,
    command: str = "",
    on_log: Callable[[str, dict[str, float]], None] | None = None,
    vary: Callable[[str, Kitchen], Kitchen] = lambda part, kitchen: kitchen,
) -> Path | None:
    """Run a recipe; returns the model's folder, or None when training was interrupted.

    Args:
        say: takes lines for the user, in the first process only.
        command: what the model will say that it was made with.
        on_log: called with the network's name and every row of its log, in the first process.
        vary: changes what a network, "locator", "fine" or "detail", is trained on.

    Raises:
        UserError: the data, the settings or a checkpoint cannot be used.
    """
    fabric = make_fabric(recipe.machine)
    tell: Say = say if fabric.is_global_zero else lambda line: None
    output = Path(recipe.output)
    with fabric.rank_zero_first():
        kitchen = prepare(recipe, fabric.device.type, tell)
    for part in PARTS:
        config: TrainingConfig | None = getattr(recipe, part)
        if config is None:
            continue
        tell(f"training the {part} network")
        sampler, validation = samplers(vary(part, kitchen), recipe, part, config)
        trainer = Trainer(
            _network(kitchen, recipe, part, config),
            sampler,
            _with_epochs(config, kitchen),
            output / part,
            validation=validation,
            fabric=fabric,
            machine=recipe.machine,
            seed=recipe.seed,
            on_log=None if on_log is None else lambda row, part=part: on_log(part, row),  # type: ignore[misc]
        )
        if not trainer.train().finished:
            tell("interrupted; the same command goes on from here")
            return None
    folder = output / "model"
    if fabric.is_global_zero:
        model = _model(kitchen, recipe, command)
        say("measuring on held-out scans")
        finish(model, kitchen, recipe, folder, say)
        say(f"model written to {folder}")
    fabric.barrier()
    return folder


def need_no_run(recipe: Recipe) -> None:
    """Check that a recipe's output folder holds no run that it would go on with.

    Raises:
        UserError: there is one.
    """
    for part in PARTS:
        if checkpoints(Path(recipe.output) / part):
            raise UserError(
                f"{recipe.output} holds a run already; choose another --output, or --resume "
                "auto to go on with it."
            )


def prepare(recipe: Recipe, device: str = "cpu", say: Say = print) -> Kitchen:
    """Read all that a recipe learns from.

    Raises:
        UserError: a label map, the dataset or the model to start from cannot be used.
    """
    base = load_model(recipe.start_from) if recipe.start_from else None
    dataset = Dataset.open(recipe.scans.dataset) if recipe.scans else None
    protocol = _protocol(recipe, dataset)
    output = Path(recipe.output)
    maps: list[AnnotatedMap] = []
    if recipe.heads is not None:
        say("annotating the label maps")
        found = find_label_maps(recipe.heads.label_maps)
        maps = read_annotated(found, protocol, output / "annotations")
        _need_names(recipe.heads, maps)
    train = [m for m in maps if m.name not in (recipe.heads.held_out if recipe.heads else ())]
    entries: list[Entry] = []
    if dataset is not None:
        say("checking the dataset")
        require_sound(dataset)
        entries = _training_entries(dataset)
    if base is not None and base.protocol.hash == protocol.hash:
        shape = base.spec.mean_shape
    else:
        points = [m.landmarks.points for m in train]
        if dataset is not None:
            points += [true_points(dataset.read_landmarks(e).current)[0] for e in entries]
        shape = _mean_shape(points, protocol)
    if recipe.locator is None and base is not None and base.protocol.hash != protocol.hash:
        raise UserError(
            f"the locator of {base.spec.name} finds the landmarks of {base.protocol.name}, not "
            f"those of {protocol.name}; describe a locator in the recipe."
        )
    kitchen = Kitchen(protocol, base, shape, dataset=dataset)
    if recipe.heads is not None:
        count = recipe.heads.offspring_per_head
        say(f"breeding {count} offspring of each head")
        heads = [m.head(shape, device) for m in train]
        heads += breed(train, shape, count, output / "offspring", device)
        held_out = [m for m in maps if m.name in recipe.heads.held_out]
        kitchen = replace(kitchen, heads=heads, held_out=held_out)
    if dataset is not None:
        say(f"reading {len(entries)} scans")
        spacing, cache = _finest(recipe), output / "cache"
        checking = [e for e in dataset.entries if e.split == "validation"]
        kitchen = replace(
            kitchen,
            scans=read_scans(dataset, entries, spacing, cache),
            validation=read_scans(dataset, checking, spacing, cache),
        )
    return kitchen


def samplers(
    kitchen: Kitchen, recipe: Recipe, part: str, config: TrainingConfig
) -> tuple[Sampler, Sampler | None]:
    """What makes the samples of a network, and those for validation (None: unseen ones of it)."""
    variation = ANY_POSE if part == "locator" else CANONICAL
    lattice = Lattice(config.cube, config.voxel_mm, _OVERSAMPLING[part])
    validation: Sampler | None = None

    def of(sampler: HeadSampler | ScanSampler) -> Sampler:
        return DetailSampler(sampler, kitchen.shape) if part == "detail" else sampler

    made: list[Sampler] = []
    if recipe.scans is not None:
        sampler = _scan_sampler(kitchen, kitchen.scans, variation, lattice, recipe.scans)
        made.append(of(sampler))
        if kitchen.validation:
            plain = replace(recipe.scans, augmented_share=0.0)
            validation = of(_scan_sampler(kitchen, kitchen.validation, variation, lattice, plain))
    if recipe.heads is not None:
        heads = recipe.heads
        varied = replace(variation, t1_share=heads.t1_share, void_share=heads.void_share)
        mirror = kitchen.protocol.mirror_permutation()
        generator = HeadGenerator(kitchen.heads, mirror, varied)
        made.append(of(HeadSampler(generator, lattice)))
    if len(made) == 1:
        return made[0], validation
    assert recipe.scans is not None
    return Mixture(made[0], made[1], recipe.scans.share), validation


def finish(model: Model, kitchen: Kitchen, recipe: Recipe, folder: Path, say: Say) -> None:
    """Measure a model on what training did not see, calibrate its confidence, and save it."""
    results: dict[str, HeldOut] = {}
    held_out: dict[str, Any] = {}
    device = recipe.machine.device
    if recipe.heads is not None and kitchen.held_out:
        count = recipe.heads.samples_per_head
        offspring = folder.parent / "offspring"
        results |= measure(model, kitchen.held_out, count, offspring, device)
        own, deformed = (ErrorTable.of(model.protocol, r.errors) for r in results.values())
        say(f"own held-out heads\n{own.markdown()}")
        say(f"deformed held-out heads\n{deformed.markdown()}")
        held_out = {
            "heads": list(dict.fromkeys(results["own"].heads)),
            "scans_per_head": count,
            "errors_mm": own.to_dict(),
            "deformed_errors_mm": deformed.to_dict(),
            "missed": int(np.isnan(results["own"].errors).sum()),
        }
    if kitchen.dataset is not None:
        scans = _measure_scans(model, kitchen.dataset, device)
        for split, result in scans.items():
            np.savez(folder.parent / f"{split}.npz", found=result.found, truth=result.truth)
            table = ErrorTable.of(model.protocol, result.errors)
            say(f"scans of the split {split}\n{table.markdown()}")
            held_out.setdefault("errors_mm", table.to_dict())
            held_out[f"{split}_scans"] = {"count": len(result.heads), "errors_mm": table.to_dict()}
        # What confidence means is learnt from scans that no other number is taken from.
        results |= {"validation": scans["validation"]} if "validation" in scans else scans
    calibration = None
    joined = HeldOut.joined(results.values()) if results else None
    # A model that recognised no head has nothing to learn from what its confidence means.
    if joined is not None and np.isfinite(joined.errors).sum() > 1:
        calibration = joined.calibration()
    elif kitchen.base is not None and kitchen.base.protocol.hash == model.protocol.hash:
        calibration = kitchen.base.spec.calibration
    spec = replace(model.spec, calibration=calibration, held_out=held_out)
    save_model(replace(model, spec=spec), folder, overwrite=True)


def _protocol(recipe: Recipe, dataset: Dataset | None) -> Protocol:
    if dataset is None:
        return load_protocol(recipe.protocol or PROTOCOL)
    if recipe.protocol and load_protocol(recipe.protocol).hash != dataset.protocol.hash:
        raise UserError(
            f"the recipe names the protocol {recipe.protocol!r} and its dataset has "
            f"{dataset.protocol.name!r}; leave 'protocol' out."
        )
    return dataset.protocol


def _need_names(heads: HeadsConfig, maps: Sequence[AnnotatedMap]) -> None:
    names = {m.name for m in maps}
    for name in heads.held_out:
        if name not in names:
            raise UserError(f"the held-out head {name!r} is not among the label maps.")


def _training_entries(dataset: Dataset) -> list[Entry]:
    """The training split; all scans of a dataset that is not split.

    Raises:
        UserError: there are none.
    """
    if not dataset.entries:
        raise UserError(f"the dataset {dataset.folder} is empty; add scans to it first.")
    if not any(entry.split for entry in dataset.entries):
        return list(dataset.entries)
    return dataset.of_split("train")


def _mean_shape(points: Sequence[FloatArray], protocol: Protocol) -> FloatArray:
    missing = ~np.any([np.isfinite(p).all(1) for p in points], axis=0)
    if missing.any():
        labels = ", ".join(label for label, gone in zip(protocol.labels, missing) if gone)
        raise UserError(f"no training scan has the landmarks {labels}; add scans that show them.")
    return mean_shape(points, protocol.mirror_permutation())


def _with_epochs(config: TrainingConfig, kitchen: Kitchen) -> TrainingConfig:
    """An epoch of a dataset: each scan seen once."""
    if config.epoch_steps or not kitchen.scans or kitchen.heads:
        return config
    return replace(config, epoch_steps=max(1, -(-len(kitchen.scans) // config.batch_size)))


def _scan_sampler(
    kitchen: Kitchen,
    scans: Sequence[Scan],
    variation: Variation,
    lattice: Lattice,
    config: ScansConfig,
) -> ScanSampler:
    return ScanSampler(
        scans,
        kitchen.shape,
        kitchen.protocol,
        variation,
        lattice,
        config.augmentation,
        config.augmented_share,
    )


def _finest(recipe: Recipe) -> float:
    """Voxels that scans are kept in, mm: no sub-voxel of a posed network is smaller."""
    sizes = {part: getattr(recipe, part) for part in ("fine", "detail")}
    return min(c.voxel_mm / _OVERSAMPLING[part] for part, c in sizes.items() if c is not None)


def _network(kitchen: Kitchen, recipe: Recipe, part: str, config: TrainingConfig) -> HighRes3DNet:
    base = kitchen.base
    if base is not None and part in base.networks and config.init_from is None:
        return start_network(base, part, kitchen.protocol, config.dropout, recipe.seed)
    torch.manual_seed(recipe.seed)
    count = len(kitchen.protocol)
    network = HighRes3DNet(out_channels=count, features=config.features, dropout=config.dropout)
    # What a network has learnt helps the next one, at another resolution as well.
    before = {"fine": "locator", "detail": "fine"}.get(part, "")
    earlier: TrainingConfig | None = getattr(recipe, before, None)
    if config.init_from is None and earlier is not None and config.features == earlier.features:
        load_weights(network, Path(recipe.output) / before)
    return network


def _model(kitchen: Kitchen, recipe: Recipe, command: str) -> Model:
    networks, looks = {}, {}
    for part in PARTS:
        config: TrainingConfig | None = getattr(recipe, part)
        if config is not None:
            networks[part] = _network(kitchen, recipe, part, config)
            networks[part].load_state_dict(trained_weights(Path(recipe.output) / part))
            networks[part].eval()
            looks[part] = look_of(part, config)
        elif part == "locator":
            assert kitchen.base is not None  # the recipe says so
            networks[part], looks[part] = kitchen.base.networks[part]
    spec = ModelSpec(
        name=recipe.name,
        fine=looks["fine"],
        locator=looks["locator"],
        mean_shape=kitchen.shape,
        training=_summary(kitchen, recipe),
        command=command,
        detail=looks.get("detail"),
        sharpness=SHARPNESS if recipe.fine.alpha > 0 else 1.0,
    )
    points, mirror = kitchen.landmarks, kitchen.protocol.mirror_permutation()
    same = kitchen.base is not None and kitchen.base.protocol.hash == kitchen.protocol.hash
    if same and kitchen.base is not None and kitchen.base.shape is not None and not kitchen.heads:
        # Of more heads than a dataset of corrections has.
        shape: ShapeModel | None = kitchen.base.shape
    else:
        shape = ShapeModel.fit(points, mirror, kitchen.shape) if len(points) > 1 else None
    detail = networks.get("detail")
    return Model(kitchen.protocol, networks["fine"], networks["locator"], spec, shape, detail)


def look_of(part: str, config: TrainingConfig) -> Look:
    """What a trained network is shown: all of its cube, or one box of the detail network."""
    if part == "detail":
        return Look(config.cube[0], config.cube[0] * config.voxel_mm)
    return Look(config.size, config.field_of_view_mm)


def _measure_scans(model: Model, dataset: Dataset, device: str) -> dict[str, HeldOut]:
    """Validation and test split, those that there are."""
    results = {}
    for split in ("test", "validation"):
        entries = [entry for entry in dataset.entries if entry.split == split]
        if entries:
            results[split] = evaluate_scans(
                model,
                (
                    (e.identity, sample.volume, true_points(sample.review.current)[0])
                    for e, sample in ((e, dataset.read(e)) for e in entries)
                ),
                device,
            )
    return results


def _summary(kitchen: Kitchen, recipe: Recipe) -> dict[str, Any]:
    """What model.json says of the training; no path of a machine, no scan of a person by name."""
    settings = recipe.settings()
    for group, key in (("heads", "label_maps"), ("scans", "dataset"), ("machine", "threads")):
        if settings.get(group):
            settings[group].pop(key, None)
    settings.pop("output")
    if recipe.start_from and kitchen.base is not None:
        settings["start_from"] = kitchen.base.spec.name
    parts = [part for part in PARTS if settings.get(part) is not None]
    for part in parts:
        settings[part].pop("init_from")
    summary: dict[str, Any] = {
        "recipe": settings,
        "heads": kitchen.names if kitchen.heads else [],
        "scans": len(kitchen.scans),
        "software": {"brainlandmarks": __version__, **_versions()},
    }
    if kitchen.base is not None:
        earlier = kitchen.base.spec.training
        summary["before"] = [*earlier.get("before", ()), _runs(earlier)]
    for part in parts:
        checkpoint = latest_checkpoint(Path(recipe.output) / part)
        assert checkpoint is not None  # the run has just ended
        state = read_checkpoint(checkpoint).state
        summary[part] = {"steps": state["step"], "minutes": round(state["seconds"] / 60, 1)}
    return dict(json.loads(json.dumps(summary)))


def _runs(training: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Steps and minutes of each network, of what model.json says of a training."""
    return {
        part: {key: training[part][key] for key in ("steps", "minutes")}
        for part in PARTS
        if part in training
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
