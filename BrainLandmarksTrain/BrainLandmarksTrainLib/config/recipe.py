"""What a model is made of: one file, read, checked and described by the same dataclasses.

``brainlandmarks train RECIPE`` runs it (:mod:`~.pipeline.train`). Recipes that come with the
library lie in ``recipes/``; ``brainlandmarks train --schema`` prints the JSON schema that an editor
can check and complete a recipe with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network import PARCELLATION, PARTS
from BrainLandmarksTrainLib.augmentation import AugmentationConfig
from BrainLandmarksTrainLib.engine.config import WHAT, MachineConfig, RunConfig, TrainingConfig
from BrainLandmarksTrainLib.settings import (
    REQUIRED,
    from_values,
    read_settings,
    schema,
    setting,
    to_values,
)

from .parcellation import ParcellationConfig, TransferConfig

_OVERRIDES = {
    "weights": ("parcellation", "transfer", "weights"),
    "segmentations": ("parcellation", "segmentations"),
    "images": ("parcellation", "images"),
}


@dataclass(frozen=True)
class HeadsConfig:
    """Label maps of whole heads: scans of any contrast are rendered from them, without end."""

    label_maps: tuple[str, ...] = setting(
        (), "Label maps with FreeSurfer's numbers, or folders of them; --label-maps overrides them."
    )
    held_out: tuple[str, ...] = setting(
        (), "Names of the label maps that training never sees; the model is evaluated on them."
    )
    deformed_copies_per_head: int = setting(
        30, "Deformed copies of each head that are annotated by rule and used in training.", low=0,
        formerly="offspring_per_head",
    )  # fmt: skip
    samples_per_head: int = setting(
        10, "Number of scans of each held-out head, and of its deformed copies, that the model is "
        "evaluated on.", low=1,
    )  # fmt: skip
    t1_share: float = setting(
        0.5, "Share of the scans with T1 contrast; the others have random contrasts.", low=0, high=1
    )
    void_share: float = setting(
        0.0, "Share of the scans in which some boxes have no signal.", low=0, high=1
    )


@dataclass(frozen=True)
class ScansConfig:
    """A dataset of scans that people have annotated."""

    dataset: str = setting("", "Dataset folder; --dataset overrides it.")
    augmentation: AugmentationConfig = setting(
        AugmentationConfig(), "The policies of section III-D and their ranges."
    )
    augmented_share: float = setting(
        0.5, "Share of the samples that are augmented; the paper augments each scan once."
       , low=0, high=1,
    )  # fmt: skip
    share: float = setting(
        0.5, "Share of the samples that are scans, if there are heads as well.", low=0, high=1
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a model is made of.

    >>> recipe = load_recipe("brain88.yaml")
    >>> model_folder = train_model(recipe)

    Raises:
        UserError: there is nothing to learn, nothing to learn it from, or settings exclude each
            other.
    """

    name: str = setting(REQUIRED, "Name of the model.")
    output: str = setting(
        "",
        "Folder of the run and its model; --output overrides it.",
    )
    protocol: str | None = setting(
        None, "Landmark protocol, a name or a file; by default the dataset's, or brain88."
    )
    start_from: str | None = setting(
        None, "Model whose weights the networks start from, a name or a folder. If it has other "
        "landmarks, only the shared ones keep their weights in the last layer. By default the "
        "locator starts from random weights, and each other network from the one before it.",
    )  # fmt: skip
    seed: int = setting(
        0, "Seed of all random numbers; a different seed gives a different model.", low=0
    )
    heads: HeadsConfig | None = setting(None, "Scans rendered from label maps.")
    scans: ScansConfig | None = setting(None, "Scans of a dataset.")
    locator: TrainingConfig | None = setting(
        REQUIRED, "The network that finds the head's pose in a coarse cube around the whole head; "
        "null keeps the one of the model to start from.",
    )  # fmt: skip
    fine: TrainingConfig | None = setting(
        REQUIRED, "The network that finds the landmarks, in a cube in the head's pose; null keeps "
        "the one of the model to start from, and its refinement network.",
    )  # fmt: skip
    refinement: TrainingConfig | None = setting(
        None, "The network that refines the landmarks in small boxes: size and field_of_view_mm "
        "give its voxels, crop gives a box; prior_mm is required. null: no refinement.",
        formerly="detail",
    )  # fmt: skip
    parcellation: ParcellationConfig | None = setting(
        None, "The network that names structures, trained after the others. null keeps the one of "
        "the model to start from, if it has one and the same landmarks.",
    )  # fmt: skip
    machine: MachineConfig = setting(MachineConfig(), "Hardware and processes.")

    def __post_init__(self) -> None:
        if self.heads is None and self.scans is None:
            raise UserError(
                "the recipe has nothing to learn from: add 'heads' (label maps) or 'scans' (a "
                "dataset)."
            )
        for part in ("locator", "fine"):
            if getattr(self, part) is None and self.start_from is None:
                raise UserError(f"without 'start_from' there is no {part} to keep; describe one.")
            self._need_whole_cube(part)
        if not self.trained:
            raise UserError("the recipe trains nothing; describe one of the networks.")
        if self.parcellation is not None:
            self._need_labels(self.parcellation)
        for part, config in self.trained.items():
            _need_validation(part, config)
        if self.refinement is not None and self.refinement.prior_mm is None:
            raise UserError("'refinement' lacks 'prior_mm'; 3.5 is a good one.")
        if self.refinement is not None and len(set(self.refinement.cube)) > 1:
            raise UserError("the boxes of 'refinement' are cubes; give 'crop' three equal numbers.")

    def _need_whole_cube(self, part: str) -> None:
        config: TrainingConfig | None = getattr(self, part)
        if config is not None and config.attention != "none" and config.crop is not None:
            raise UserError(
                f"'{part}.attention' weighs features by their means over the cube, and detection "
                f"passes the whole cube; leave out '{part}.crop' or the attention."
            )

    def _need_labels(self, parcellation: ParcellationConfig) -> None:
        if parcellation.segmentations is not None and self.scans is None:
            raise UserError("'parcellation.segmentations' needs a dataset; add 'scans'.")
        if parcellation.segmentations is None and self.heads is None:
            raise UserError(
                "the parcellation network has nothing to learn from: add 'heads' (label maps), or "
                "'scans' (a dataset) and 'parcellation.segmentations'."
            )

    @property
    def trained(self) -> dict[str, RunConfig]:
        """The networks that are trained, by name and in order, with their settings."""
        parts = {part: getattr(self, part) for part in (*PARTS, PARCELLATION)}
        return {part: config for part, config in parts.items() if config is not None}

    @property
    def finds_landmarks(self) -> bool:
        """Whether a network that finds landmarks is trained."""
        return bool(self.trained.keys() - {PARCELLATION})

    def settings(self) -> dict[str, Any]:
        """All settings as plain JSON values, defaults included."""
        return to_values(self)


def _need_validation(part: str, config: RunConfig) -> None:
    """Check that there is an error to watch where one decides about the training.

    Raises:
        UserError: there is none.
    """
    if config.validation_scans:
        return
    watching = "'patience'" if config.patience else "schedule 'plateau'"
    if config.patience or config.schedule == "plateau":
        raise UserError(
            f"{watching} of {part!r} follows the validation error, and 'validation_scans' is 0: "
            "there is none; give some scans, or leave it out."
        )


def load_recipe(
    name_or_path: str | Path,
    label_maps: Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    dataset: str | Path | None = None,
    *,
    parcellation: Mapping[str, Any] | None = None,
    **machine: Any,
) -> Recipe:
    """Read a recipe that comes with the library, or any recipe file.

    Args:
        name_or_path: "brain88", or a .yaml or .json file; its paths are relative to the file.
        label_maps: files or folders instead of the recipe's own.
        output: folder instead of the recipe's own.
        dataset: folder instead of the recipe's own.
        parcellation: instead of the recipe's own, as far as given: "weights" to transfer, a file;
            "segmentations", label scheme to folder; "images", a folder.
        machine: settings of the machine instead of the recipe's own; None leaves one as it is.

    Raises:
        UserError: a setting is unknown, missing or wrong.
    """
    shipped = Path(str(resources.files(__package__) / "recipes" / f"{name_or_path}.yaml"))
    path = shipped if shipped.is_file() else Path(name_or_path)
    base = Path() if path == shipped else path.parent
    return recipe_of(
        read_settings(path), base, label_maps, output, dataset, parcellation=parcellation, **machine
    )


def recipe_of(
    values: Mapping[str, Any],
    base: Path,
    label_maps: Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    dataset: str | Path | None = None,
    *,
    parcellation: Mapping[str, Any] | None = None,
    **machine: Any,
) -> Recipe:
    """A recipe from plain values; the same arguments as `load_recipe`.

    Args:
        base: folder that the paths in ``values`` are relative to.
    """
    values = {k: v for k, v in values.items() if k != "$schema"}
    for group, key, given in (("heads", "label_maps", label_maps), ("scans", "dataset", dataset)):
        if given:
            texts = [str(Path(item).absolute()) for item in _listed(given)]
            _put(values, (group, key), texts if key == "label_maps" else texts[0])
    for name, given in (parcellation or {}).items():
        if given:
            _put(values, _OVERRIDES[name], _absolute(given))
    if output is not None:
        values["output"] = str(Path(output).absolute())
    for name, given in machine.items():
        if given is not None:
            _put(values, ("machine", name), given)
    return _with_paths(from_values(Recipe, values, WHAT), base)


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value in groups of settings, which are copied.

    Raises:
        UserError: something else than a group is there.
    """
    *groups, last = path
    for number, group in enumerate(groups, start=1):
        there = values.get(group) or {}
        if not isinstance(there, Mapping):
            raise UserError(f"{WHAT} {'.'.join(groups[:number])!r} must hold one value per name.")
        values[group] = dict(there)
        values = values[group]
    values[last] = value


def _absolute(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: _absolute(item) for name, item in given.items()}
    return str(Path(given).absolute())


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _with_paths(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with paths that no longer depend on where its file lies."""
    heads, scans = recipe.heads, recipe.scans
    if heads is not None:
        if not heads.label_maps:
            raise UserError(
                "the recipe lacks 'heads.label_maps'; add it to the file or give --label-maps."
            )
        heads = replace(heads, label_maps=tuple(str(base / item) for item in heads.label_maps))
    if scans is not None:
        if not scans.dataset:
            raise UserError(
                "the recipe lacks 'scans.dataset'; add it to the file or give --dataset."
            )
        scans = replace(scans, dataset=str(base / scans.dataset))
    if not recipe.output:
        raise UserError("the recipe lacks 'output'; add it to the file or give --output.")
    parcellation = recipe.parcellation and recipe.parcellation.below(base)
    return replace(
        recipe,
        output=str(base / recipe.output),
        heads=heads,
        scans=scans,
        parcellation=parcellation,
    )


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe."""
    return schema(Recipe, "Training recipe")


def as_yaml(recipe: Recipe) -> str:
    """A recipe as a file that `load_recipe` reads again, all defaults written out."""
    import yaml

    return str(yaml.safe_dump(recipe.settings(), sort_keys=False, allow_unicode=True))


def write_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe as a YAML file.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as unfinished:
        unfinished.write_text(as_yaml(recipe), encoding="utf-8")


def markdown() -> str:
    """Every setting of a recipe as tables, one for each group."""
    groups: dict[str, type] = {
        "The recipe": Recipe,
        "`heads`": HeadsConfig,
        "`scans`": ScansConfig,
        "`locator`, `fine` and `refinement`": TrainingConfig,
        "`parcellation`": ParcellationConfig,
        "`parcellation.transfer`": TransferConfig,
        "`locator`, `fine`, `refinement` and `parcellation`": RunConfig,
        "`machine`": MachineConfig,
    }
    parts = []
    common = {field.name for field in fields(RunConfig)}
    for title, cls in groups.items():
        rows = []
        for field in fields(cls):
            if field.name in common and cls is not RunConfig:
                continue
            if field.default is MISSING and field.default_factory is MISSING:
                default = "required"
            elif field.default is MISSING:
                default = "see below"
            else:
                default = json.dumps(field.default)
            rows.append((f"`{field.name}`", default, field.metadata["text"]))
        parts += [f"### {title}", Table(("setting", "default", "meaning"), rows).markdown()]
    return "\n\n".join(parts)
