"""What an ablation compares: the paper's eight networks, or variants of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.config.recipe import Recipe, recipe_of
from BrainLandmarksTrainLib.settings import REQUIRED, from_values, read_settings, setting
from BrainLandmarksTrainLib.synthesis.simulated_rater import RaterErrors


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """One recipe, and what the eight networks differ in."""

    recipe: Recipe = setting(
        REQUIRED, "The recipe of the best configuration, with a dataset; its loss, augmentation "
        "and dropout are switched off in turn.",
    )  # fmt: skip
    uncorrected: RaterErrors = setting(
        RaterErrors(), "Errors of the ground truth before correction."
    )
    variants: Mapping[str, Recipe] = field(default_factory=dict)
    """Recipes to compare by name, instead of the eight; the others are measured against the first.
    """
    seeds: int = 1
    """How often each of the variants is trained."""


def load_ablation(
    name_or_path: str | Path,
    output: str | Path | None = None,
    dataset: str | Path | None = None,
    **machine: Any,
) -> AblationConfig:
    """Read an ablation that comes with the library ("reduced", "paper", "network"), or a file.

    Args:
        output: folder instead of the recipe's own.
        dataset: folder instead of the recipe's own.
        machine: settings of the machine instead of the recipe's own; None leaves one as it is.

    Raises:
        UserError: a setting is unknown, missing or wrong, or there is no dataset.
    """
    shipped = Path(str(resources.files(__package__) / "ablations" / f"{name_or_path}.yaml"))
    path = shipped if shipped.is_file() else Path(name_or_path)
    values = dict(read_settings(path))
    inner = values.pop("recipe", None)
    if not isinstance(inner, Mapping):
        raise UserError("the ablation lacks 'recipe'; see the ablation 'reduced' for an example.")
    base = Path() if path == shipped else path.parent
    recipe = recipe_of(inner, base, output=output, dataset=dataset, **machine)
    both = recipe.locator is not None and recipe.fine is not None
    if recipe.scans is None or not both or recipe.start_from is not None:
        raise UserError(
            "an ablation trains both networks from nothing on a dataset: give 'scans', 'locator' "
            "and 'fine', and no 'start_from'."
        )
    uncorrected = from_values(
        RaterErrors, values.pop("uncorrected", {}), "ablation setting uncorrected."
    )
    changes, seeds = values.pop("variants", {}), values.pop("seeds", 1)
    if values:
        raise UserError(
            f"unknown ablation setting {next(iter(values))!r}; the settings are recipe, "
            "uncorrected, variants, seeds."
        )
    if not isinstance(changes, Mapping) or not all(
        isinstance(change, Mapping) for change in changes.values()
    ):
        raise UserError(
            "ablation setting 'variants' holds names, each with settings of 'fine' that differ; "
            "see the ablation 'network' for an example."
        )
    if type(seeds) is not int or seeds < 1:
        raise UserError(f"ablation setting 'seeds' must be a whole number above 0, not {seeds!r}.")
    variants = {
        str(name): recipe_of(
            {**inner, "fine": {**inner["fine"], **change}}, base, output=output, dataset=dataset,
            **machine,
        )
        for name, change in changes.items()
    }  # fmt: skip
    return AblationConfig(recipe=recipe, uncorrected=uncorrected, variants=variants, seeds=seeds)
