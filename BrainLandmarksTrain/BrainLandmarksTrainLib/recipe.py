"""From label maps to a model that ships: annotate, train the two networks, measure, save.

A recipe is one JSON or YAML file; ``brainlandmarks train RECIPE`` runs it. Each network is an
ordinary training run (:mod:`.trainer`), so an interrupted recipe goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib.detection import choose_device
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.models import Look, Model, ModelSpec, model_weights, save_model
from BrainLandmarksLib.network import HighRes3DNet
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.shape_model import ShapeModel

from .config import TrainingConfig, config_from_dict
from .evaluation import ErrorTable, HeldOut, measure
from .generator import ANY_POSE, CANONICAL, Head, HeadGenerator, Lattice, Variation
from .heads import AnnotatedMap, find_label_maps, read_annotated
from .offspring import breed
from .settings import read_settings
from .shape import mean_shape
from .trainer import Trainer, averaged_weights, latest_checkpoint

Say = Callable[[str], None]

_COMMAND_OPTIONS = {
    "label_maps": "add it to the file or give --label-maps",
    "output": "add it to the file or give --output",
}


@dataclass(frozen=True)
class Recipe:
    """What a model is made of.

    >>> recipe = load_recipe("brain88.json")
    >>> model_folder = cook(recipe)
    """

    name: str
    protocol: str
    label_maps: tuple[str, ...]
    """Folders or files."""
    held_out: tuple[str, ...]
    """Stems of the label maps that training never sees."""
    output: str
    """Folder of the runs; the model is written to ``output/model``."""
    locator: TrainingConfig
    fine: TrainingConfig
    start_from: str | None = None
    """Model that comes with the library, whose weights both networks start from. Without it the
    locator starts from nothing and the fine network from the locator."""
    crop: tuple[int, int, int] | None = None
    """Voxels of the fine cube that training renders (all of it by default). The network is fully
    convolutional, so a box round the landmarks teaches the same at less cost."""
    offspring_per_head: int = 30
    """Deformed copies of each training head, annotated by rule, that it is trained with."""
    samples_per_head: int = 10
    """Unseen scans of each held-out head that the error table is measured on, and of as many
    offspring of it."""
    device: str = "auto"
    command: str = field(default="", compare=False)


def load_recipe(
    name_or_path: str | Path,
    label_maps: Sequence[str | Path] | None = None,
    output: str | Path | None = None,
) -> Recipe:
    """Read a recipe that ships with the library, or any recipe file.

    Args:
        name_or_path: "brain88", or a .json or .yaml file; its paths are relative to the file.
        label_maps: folders or files instead of the recipe's own.
        output: folder instead of the recipe's own.

    Raises:
        UserError: a setting is unknown, missing or wrong.
    """
    shipped = Path(str(resources.files(__package__) / "recipes" / f"{name_or_path}.json"))
    path = shipped if shipped.is_file() else Path(name_or_path)
    values = dict(read_settings(path))
    if label_maps:
        values["label_maps"] = [str(Path(item).absolute()) for item in label_maps]
    if output is not None:
        values["output"] = str(Path(output).absolute())
    known = {f.name for f in dataclasses.fields(Recipe)} - {"command"}
    for name in values:
        if name not in known:
            raise UserError(
                f"unknown recipe setting {name!r}; the settings are {', '.join(sorted(known))}."
            )
    for name in ("name", "label_maps", "held_out", "output", "locator", "fine"):
        if name not in values:
            hint = _COMMAND_OPTIONS.get(name, "add it to the file")
            raise UserError(f"the recipe lacks {name!r}; {hint}.")
    base = path.parent
    folder = base / str(values["output"])
    networks = {}
    start_from = values.pop("start_from", None)
    for part in ("locator", "fine"):
        settings = {"output": str(folder / part), **dict(values.pop(part))}
        if start_from is not None:
            settings["init_from"] = str(model_weights(start_from)[part])
        networks[part] = config_from_dict(settings)
    crop = values.pop("crop", None)
    return Recipe(
        name=str(values["name"]),
        protocol=str(values.get("protocol", "brain88")),
        label_maps=tuple(str(base / item) for item in values["label_maps"]),
        held_out=tuple(str(item) for item in values["held_out"]),
        output=str(folder),
        start_from=start_from,
        crop=None if crop is None else tuple(int(n) for n in crop),  # type: ignore[arg-type]
        offspring_per_head=int(values.get("offspring_per_head", 30)),
        samples_per_head=int(values.get("samples_per_head", 10)),
        device=str(values.get("device", "auto")),
        command=f"brainlandmarks train {path.stem if path == shipped else path.name}",
        **networks,
    )


def cook(recipe: Recipe, say: Say = print) -> Path | None:
    """Run a recipe; returns the model's folder, or None when training was interrupted."""
    protocol = load_protocol(recipe.protocol)
    output = Path(recipe.output)
    say("annotating the label maps")
    maps = read_annotated(find_label_maps(recipe.label_maps), protocol, output / "annotations")
    names = {m.name for m in maps}
    for name in recipe.held_out:
        if name not in names:
            raise UserError(f"the held-out head {name!r} is not among the label maps.")
    train = [m for m in maps if m.name not in recipe.held_out]
    mirror = protocol.mirror_permutation()
    shape = mean_shape([m.landmarks.points for m in train], mirror)
    device = choose_device(recipe.device).type
    say(f"breeding {recipe.offspring_per_head} offspring of each head")
    offspring = breed(train, shape, recipe.offspring_per_head, output / "offspring", device)
    heads = [*(m.head(shape, device) for m in train), *offspring]
    weights = {}
    for part, variation in (("locator", ANY_POSE), ("fine", CANONICAL)):
        config = replace(getattr(recipe, part), protocol=recipe.protocol)
        if part == "fine" and config.init_from is None:
            config = replace(config, init_from=recipe.locator.output)
        shape_of_cube = recipe.crop if part == "fine" and recipe.crop else (config.size,) * 3
        lattice = Lattice(shape_of_cube, config.voxel_mm, 2 if part == "fine" else 3)
        say(f"training the {part} network")
        if not _train(config, heads, mirror, variation, lattice, len(protocol), say):
            return None
        weights[part] = averaged_weights(config.output)
    networks = {}
    for part, state in weights.items():
        networks[part] = HighRes3DNet(
            out_channels=len(protocol), features=getattr(recipe, part).features
        )
        networks[part].load_state_dict(state)
        networks[part].eval()
    spec = ModelSpec(
        name=recipe.name,
        fine=Look(recipe.fine.size, recipe.fine.field_of_view_mm),
        locator=Look(recipe.locator.size, recipe.locator.field_of_view_mm),
        mean_shape=shape,
        training=_summary(recipe, [m.name for m in train]),
        command=recipe.command,
    )
    gaussian = ShapeModel.fit([h.landmarks for h in heads], mirror, shape)
    model = Model(protocol, networks["fine"], networks["locator"], spec, gaussian)
    say("measuring on held-out heads")
    others = [m for m in maps if m.name in recipe.held_out]
    return finish(model, others, recipe, output / "model", say)


def finish(
    model: Model, held_out: list[AnnotatedMap], recipe: Recipe, folder: Path, say: Say
) -> Path:
    """Measure a model on held-out heads, calibrate its confidence, and save it."""
    results = measure(
        model, held_out, recipe.samples_per_head, folder.parent / "offspring", recipe.device
    )
    tables = {name: ErrorTable.of(model.protocol, r.errors) for name, r in results.items()}
    for name, table in tables.items():
        say(f"{name} held-out heads\n{table.markdown()}")
    result = HeldOut.joined(results.values())
    spec = replace(
        model.spec,
        calibration=result.calibration(),
        held_out={
            "heads": list(dict.fromkeys(result.heads)),
            "scans_per_head": recipe.samples_per_head,
            "errors_mm": tables["own"].to_dict(),
            "deformed_errors_mm": tables["deformed"].to_dict(),
            "missed": int(np.isnan(results["own"].errors).sum()),
        },
    )
    save_model(replace(model, spec=spec), folder, overwrite=True)
    np.savez(
        folder.parent / "held_out.npz",
        heads=np.array(result.heads),
        errors=result.errors,
        features=result.features,
        found=result.found,
        truth=result.truth,
    )
    return folder


def _train(
    config: TrainingConfig,
    heads: list[Head],
    mirror: np.ndarray,
    variation: Variation,
    lattice: Lattice,
    landmarks: int,
    say: Say,
) -> bool:
    generator = HeadGenerator(heads, mirror, variation)

    def sampler(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return generator.training_sample(lattice, rng)

    def log(row: dict[str, Any]) -> None:
        say(
            f"step {row['step']:.0f}  {row['seconds'] / 60:.1f} min  loss {row['total']:.3f}  "
            f"error {row['error_mm']:.1f} mm"
        )

    network = HighRes3DNet(out_channels=landmarks, features=config.features, dropout=config.dropout)
    return Trainer(network, sampler, config, on_log=log).train().finished


def _summary(recipe: Recipe, heads: list[str]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "start_from": recipe.start_from,
        "heads": heads,
        "offspring_per_head": recipe.offspring_per_head,
        "crop": recipe.crop,
    }
    for part in ("locator", "fine"):
        config = getattr(recipe, part)
        settings = config.to_dict()
        for machine_specific in ("output", "init_from", "label_maps", "threads"):
            settings.pop(machine_specific, None)
        checkpoint = latest_checkpoint(Path(config.output))
        assert checkpoint is not None  # the run has just ended
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        summary[part] = {
            "settings": settings,
            "steps": state["step"],
            "minutes": round(state["seconds"] / 60, 1),
        }
    return json.loads(json.dumps(summary))
