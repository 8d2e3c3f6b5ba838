"""A recipe from the few choices that a panel offers; needs no PyTorch.

>>> options = TrainingOptions("fine-tune", dataset=Path("corrections"), output=Path("run"))
>>> recipe = recipe_from(options)
>>> file = keep_recipe(recipe)                # run/recipe.json, for `brainlandmarks train`
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksTrainLib.augmentation import AugmentationConfig

from .finetune import STEPS, finetune_recipe
from .recipe import Recipe, load_recipe

METHODS = ("fine-tune", "paper", "quick", "file")
"""Teach a model further; a new model by one of two recipes that come with the library; a recipe
file as it is."""

UNITS = ("steps", "epochs", "minutes")
RECIPE_FILE = "recipe.json"

_LIVELY, _SHORT = 5, 100
"""Steps between two rows of the log, for someone who watches; every step of a run shorter than the
second number."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a person chooses; `recipe_from` makes a recipe of it.

    Args:
        method: One of `METHODS`; "file" keeps all of the file but data, output and device.
        dataset: Folder; may be None for a file that names its own.
        output: Folder of the run; may be None for a file that names its own.
        model: Name or folder of the model that "fine-tune" starts from.
        file: The recipe of the method "file".
        name: Of the new model; by default the method's.
        loss: Coordinate loss, "euclidean" or "mse".
        alpha: Weight of the heatmap loss.
        size: N of the fine network; by default the method's.
        amount: Length of the fine network's training, in ``unit``.
        unit: One of `UNITS`; an epoch is one pass over the training scans.
        device: One of `DEVICES`.
        augmentation: Policies and ranges; by default the paper's. A file has its own.
    """

    method: str
    dataset: Path | None = None
    output: Path | None = None
    model: str = "brain88"
    file: Path | None = None
    name: str = ""
    loss: str = "euclidean"
    alpha: float = 0.5
    size: int | None = None
    amount: int = STEPS
    unit: str = "steps"
    device: str = "auto"
    augmentation: AugmentationConfig | None = None


def recipe_from(choices: TrainingOptions) -> Recipe:
    """The recipe of some choices.

    Raises:
        UserError: something is missing, or a file or a setting is wrong.
    """
    device = None if choices.device == "auto" else choices.device
    if choices.method == "file":
        if choices.file is None:
            raise UserError("choose the recipe file first.")
        return load_recipe(choices.file, None, choices.output, choices.dataset, device=device)
    if choices.dataset is None:
        raise UserError("choose the dataset to train with first, in the tab Dataset.")
    if choices.output is None:
        raise UserError("choose the output folder of the training first.")
    if choices.method == "fine-tune":
        length = _length(choices, choices.dataset, batch_size=1)
        recipe = finetune_recipe(
            choices.model,
            choices.dataset,
            choices.output,
            name=choices.name or None,
            machine={"device": device},
            **length,
        )
    else:
        recipe = load_recipe(choices.method, None, choices.output, choices.dataset, device=device)
        recipe = replace(recipe, name=choices.name or recipe.name)
        assert recipe.fine is not None  # these methods train it
        length = _length(choices, choices.dataset, recipe.fine.batch_size)
    assert recipe.fine is not None
    fine = replace(
        recipe.fine,
        alpha=choices.alpha,
        coordinate_loss=choices.loss,
        size=choices.size or recipe.fine.size,
        log_every=_LIVELY if length.get("steps", _SHORT) >= _SHORT else 1,
        **{"steps": None, "minutes": None, **length},
    )
    return _augmented(replace(recipe, fine=fine), choices)


def keep_recipe(recipe: Recipe) -> Path:
    """Write a recipe into its output folder, all defaults included; returns the file.

    JSON, which is read without further packages.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = Path(recipe.output) / RECIPE_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make {path.parent}: {error.strerror}; choose another folder."
        ) from None
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(recipe.settings(), indent=1) + "\n", encoding="utf-8")
    return path


def arguments_of(output: Path, *, resume: bool = True) -> list[str]:
    """The arguments of the `brainlandmarks` command that runs the recipe in a folder."""
    return ["train", str(output / RECIPE_FILE), *([] if resume else ["--resume", "no"])]


def training_scans(dataset: Dataset) -> int:
    """How many scans training would see: the training split, or all where there is no split."""
    train = [entry for entry in dataset.entries if entry.split == "train"]
    return len(train) if any(entry.split for entry in dataset.entries) else len(dataset)


def _length(choices: TrainingOptions, dataset: Path, batch_size: int) -> dict[str, Any]:
    if choices.unit == "minutes":
        return {"minutes": float(choices.amount)}
    if choices.unit == "epochs":
        scans = training_scans(Dataset.open(dataset))
        if scans == 0:
            raise UserError(f"no scan of {dataset} is for training; add some, or split it anew.")
        return {"steps": choices.amount * -(-scans // batch_size)}
    return {"steps": choices.amount}


def _augmented(recipe: Recipe, choices: TrainingOptions) -> Recipe:
    if choices.augmentation is None or recipe.scans is None:
        return recipe
    return replace(recipe, scans=replace(recipe.scans, augmentation=choices.augmentation))
