"""From trained weights to a measured model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib import __version__
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.network import PARCELLATION, PARTS
from BrainLandmarksLib.network.device import choose_device
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    ParcellationSpec,
    save_model,
)
from BrainLandmarksTrainLib.config.parcellation import ParcellationConfig
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.engine.checkpoint import (
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    trained_weights,
)
from BrainLandmarksTrainLib.engine.config import RunConfig, TrainingConfig
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.evaluation.held_out import HeldOut, evaluate_scans, measure
from BrainLandmarksTrainLib.evaluation.metrics import ErrorTable
from BrainLandmarksTrainLib.versions import installed_versions

from .parcellation import measure_parcellation, parcellation_network, parcellation_spec
from .prepare import Report, TrainingData
from .transfer import start_network, untrained

INVERSE_TEMPERATURE = 1.5
"""`ModelSpec.inverse_temperature` of a model that a heatmap loss has made; docs/robustness.md has
what others do."""

_PACKAGES = (
    "torch", "numpy", "scipy", "nibabel", "safetensors", "lightning-fabric", "torchio",
)  # fmt: skip


def finish(model: Model, data: TrainingData, recipe: Recipe, folder: Path, report: Report) -> None:
    """Measure a model on what training did not see, calibrate its confidence, and save it.

    Points are measured where a network that finds them was trained; otherwise what is known of them
    is known of the model that they are kept from.
    """
    spec = model.spec
    if recipe.finds_landmarks:
        spec = _points_measured(model, data, recipe, folder, report)
    if recipe.parcellation is not None and data.parcellation is not None:
        assert model.parcellation is not None
        dice, table = measure_parcellation(
            model.parcellation, data.parcellation, recipe, recipe.parcellation,
            choose_device(recipe.machine.device),
        )  # fmt: skip
        if dice:
            report(f"Dice of the parcellation\n{table.markdown()}")
        spec = replace(spec, held_out={**spec.held_out, "dice": dice})
    save_model(replace(model, spec=spec), folder, overwrite=True)


def _points_measured(
    model: Model, data: TrainingData, recipe: Recipe, folder: Path, report: Report
) -> ModelSpec:
    results: dict[str, HeldOut] = {}
    held_out: dict[str, Any] = {}
    device = recipe.machine.device
    if recipe.heads is not None and data.held_out:
        count = recipe.heads.samples_per_head
        copies = folder.parent / "deformed_copies"
        results |= measure(model, data.held_out, count, copies, device)
        own, deformed = (ErrorTable.of(model.protocol, r.errors) for r in results.values())
        report(f"own held-out heads\n{own.markdown()}")
        report(f"deformed held-out heads\n{deformed.markdown()}")
        held_out = {
            "heads": list(dict.fromkeys(results["own"].heads)),
            "scans_per_head": count,
            "errors_mm": own.to_dict(),
            "deformed_errors_mm": deformed.to_dict(),
            "missed": int(np.isnan(results["own"].errors).sum()),
        }
    if data.dataset is not None:
        scans = _measure_scans(model, data.dataset, device)
        for split, result in scans.items():
            with atomic_write(folder.parent / f"{split}.npz") as unfinished:
                np.savez(unfinished, found=result.found, truth=result.truth)
            table = ErrorTable.of(model.protocol, result.errors)
            report(f"scans of the split {split}\n{table.markdown()}")
            held_out.setdefault("errors_mm", table.to_dict())
            held_out[f"{split}_scans"] = {"count": len(result.heads), "errors_mm": table.to_dict()}
        # What confidence means is learnt from scans that no other number is taken from.
        results |= {"validation": scans["validation"]} if "validation" in scans else scans
    calibration = None
    joined = HeldOut.joined(results.values()) if results else None
    # A model that recognised no head has nothing to learn from what its confidence means.
    if joined is not None and np.isfinite(joined.errors).sum() > 1:
        calibration = joined.calibration()
    elif data.base is not None and data.base.protocol.hash == model.protocol.hash:
        calibration = data.base.spec.calibration
    return replace(model.spec, calibration=calibration, held_out=held_out)


def network_of(
    data: TrainingData, recipe: Recipe, part: str, config: TrainingConfig
) -> HighRes3DNet:
    """A network as training starts with it.

    Raises:
        UserError: the model to start from has no such network.
    """
    base = data.base
    if base is not None and part in base.networks and config.init_from is None:
        _need_same_kind(base.networks[part][0], part, config)
        return start_network(base, part, data.protocol, config.dropout, recipe.seed)
    torch.manual_seed(recipe.seed)
    network = untrained(config, len(data.protocol))
    # What a network has learnt helps the next one, at another resolution as well.
    before = {"fine": "locator", "refinement": "fine"}.get(part, "")
    earlier: TrainingConfig | None = getattr(recipe, before, None)
    if config.init_from is None and earlier is not None and config.kind == earlier.kind:
        load_weights(network, Path(recipe.output) / before)
    return network


def _need_same_kind(network: HighRes3DNet, part: str, config: TrainingConfig) -> None:
    """Check that the width, long skips and attention that are asked for are there.

    Raises:
        UserError: they are not.
    """
    _need_same_width(network, part, config)
    if config.long_skips and not network.long_skips:
        raise UserError(
            f"'{part}.long_skips' needs new weights, and the model to start from has none for it; "
            "leave out 'start_from' or the setting."
        )
    if config.attention not in ("none", network.attention):
        raise UserError(
            f"'{part}.attention' needs new weights, and the model to start from has none for it; "
            "leave out 'start_from' or the setting."
        )


def _need_same_width(network: HighRes3DNet, part: str, config: RunConfig) -> None:
    if config.features != network.features:
        raise UserError(
            f"'{part}.features' is {config.features}, and the network of the model to start from "
            f"has {network.features}; give that number, or leave out 'start_from'."
        )


def need_startable(data: TrainingData, recipe: Recipe) -> None:
    """Check, before hours of training, that every network can start from the recipe's model.

    Raises:
        UserError: one is described otherwise than the model has it.
    """
    base = data.base
    for part, config in recipe.trained.items():
        if base is None or config.init_from is not None:
            continue
        if isinstance(config, TrainingConfig) and part in base.networks:
            _need_same_kind(base.networks[part][0], part, config)
        own = base.parcellation
        if isinstance(config, ParcellationConfig) and config.transfer is None and own is not None:
            _need_same_width(own, part, config)


def assembled(data: TrainingData, recipe: Recipe, command: str) -> Model:
    """The model of a recipe whose networks are trained."""
    base = data.base
    networks, crops = {}, {}
    for part in PARTS:
        config: TrainingConfig | None = getattr(recipe, part)
        if config is not None:
            networks[part] = network_of(data, recipe, part, config)
            networks[part].load_state_dict(trained_weights(Path(recipe.output) / part))
            networks[part].eval()
            crops[part] = crop_of(part, config)
        elif base is not None and part in base.networks:
            if part == "refinement" and recipe.fine is not None:
                continue  # it would refine points of another network
            networks[part], crops[part] = base.networks[part]
    if recipe.fine is None:
        assert base is not None  # the recipe says so
        temperature = base.spec.inverse_temperature
    else:
        temperature = INVERSE_TEMPERATURE if recipe.fine.alpha > 0 else 1.0
    same = base is not None and base.protocol.hash == data.protocol.hash
    parcellation, about = _parcellation(data, recipe, base if same else None)
    spec = ModelSpec(
        name=recipe.name,
        fine=crops["fine"],
        locator=crops["locator"],
        mean_shape=data.shape,
        training=_summary(data, recipe),
        command=command,
        refinement=crops.get("refinement"),
        inverse_temperature=temperature,
        parcellation=about,
    )
    if base is not None and not recipe.finds_landmarks:
        known = replace(spec, calibration=base.spec.calibration, held_out=base.spec.held_out)
        return replace(base, spec=known, parcellation=parcellation)
    points, mirror = data.landmarks, data.protocol.mirror_permutation()
    if same and base is not None and base.shape is not None and not data.heads:
        # Of more heads than a dataset of corrections has.
        shape: ShapeModel | None = base.shape
    else:
        shape = ShapeModel.fit(points, mirror, data.shape) if len(points) > 1 else None
    refinement = networks.get("refinement")
    return Model(
        data.protocol, networks["fine"], networks["locator"], spec, shape, refinement,
        parcellation=parcellation,
    )  # fmt: skip


def _parcellation(
    data: TrainingData, recipe: Recipe, base: Model | None
) -> tuple[HighRes3DNet | None, ParcellationSpec | None]:
    """The parcellation network that was trained, or that of a model in whose pose heads are."""
    config = recipe.parcellation
    if config is None:
        return (None, None) if base is None else (base.parcellation, base.spec.parcellation)
    assert data.parcellation is not None
    classes = data.parcellation.classes
    network = parcellation_network(config, classes, data.base, recipe.seed)
    network.load_state_dict(trained_weights(Path(recipe.output) / PARCELLATION))
    return network.eval().requires_grad_(False), parcellation_spec(config, classes)


def crop_of(part: str, config: TrainingConfig) -> CropSpec:
    """What a trained network is shown: all of its cube, or one box of the refinement network."""
    if part == "refinement":
        return CropSpec(config.cube[0], config.cube[0] * config.voxel_mm)
    return CropSpec(config.size, config.field_of_view_mm)


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


def _summary(data: TrainingData, recipe: Recipe) -> dict[str, Any]:
    """What model.json says of the training; no path of a machine, no scan of a person by name."""
    settings = recipe.settings()
    for group, key in (("heads", "label_maps"), ("scans", "dataset"), ("machine", "threads")):
        if settings.get(group):
            settings[group].pop(key, None)
    settings.pop("output")
    if recipe.start_from and data.base is not None:
        settings["start_from"] = data.base.spec.name
    for part in recipe.trained:
        settings[part].pop("init_from")
    if recipe.parcellation is not None:
        own, maps = settings[PARCELLATION], recipe.parcellation.segmentations
        own["segmentations"] = maps and [Path(scheme).stem for scheme in maps]
        own.pop("images")
        if own["transfer"]:
            own["transfer"] = {k: v for k, v in own["transfer"].items() if k != "weights"}
            own["transfer"]["labels"] = Path(own["transfer"]["labels"]).stem
    summary: dict[str, Any] = {
        "recipe": settings,
        "heads": data.names if data.rendered else [],
        "scans": len(data.scans),
        "software": {"brainlandmarks": __version__, **installed_versions(_PACKAGES)},
    }
    if data.base is not None:
        earlier = data.base.spec.training
        summary["before"] = [*earlier.get("before", ()), _runs(earlier)]
    for part in recipe.trained:
        checkpoint = latest_checkpoint(Path(recipe.output) / part)
        assert checkpoint is not None  # the run has just ended
        state = read_checkpoint(checkpoint).state
        summary[part] = {"steps": state["step"], "minutes": round(state["seconds"] / 60, 1)}
    return dict(json.loads(json.dumps(summary)))


def _runs(training: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Steps and minutes of each network, of what model.json says of a training."""
    return {
        part: {key: training[part][key] for key in ("steps", "minutes")}
        for part in (*PARTS, PARCELLATION)
        if part in training
    }
