"""From trained weights to a measured model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib import __version__
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Look, Model, ModelSpec, save_model
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.engine.checkpoint import (
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    trained_weights,
)
from BrainLandmarksTrainLib.engine.config import TrainingConfig
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.evaluation.held_out import HeldOut, evaluate_scans, measure
from BrainLandmarksTrainLib.evaluation.metrics import ErrorTable

from .prepare import PARTS, Kitchen, Say
from .transfer import start_network

SHARPNESS = 1.5
"""`ModelSpec.sharpness` of a model that a heatmap loss has made; docs/robustness.md has what others
do."""

_PACKAGES = (
    "torch", "numpy", "scipy", "nibabel", "safetensors", "lightning-fabric", "torchio",
)  # fmt: skip


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


def network_of(kitchen: Kitchen, recipe: Recipe, part: str, config: TrainingConfig) -> HighRes3DNet:
    """A network as training starts with it."""
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


def assembled(kitchen: Kitchen, recipe: Recipe, command: str) -> Model:
    """The model of a recipe whose networks are trained."""
    networks, looks = {}, {}
    for part in PARTS:
        config: TrainingConfig | None = getattr(recipe, part)
        if config is not None:
            networks[part] = network_of(kitchen, recipe, part, config)
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
