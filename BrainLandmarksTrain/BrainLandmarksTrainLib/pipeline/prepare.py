"""All that a recipe learns from, read and ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.checks import require_sound
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.network import PARCELLATION
from BrainLandmarksLib.network.model_files import Model, load_model
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksTrainLib.config.recipe import HeadsConfig, Recipe
from BrainLandmarksTrainLib.data.classes import Classes
from BrainLandmarksTrainLib.data.scans import TrainingScan, read_scans
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.synthesis.deformed_copies import make_deformed_copies
from BrainLandmarksTrainLib.synthesis.head import Head
from BrainLandmarksTrainLib.synthesis.label_maps import (
    PROTOCOL,
    AnnotatedMap,
    find_label_maps,
    read_annotated,
)

from .mean_shape import mean_shape
from .parcellation import (
    SUB_VOXELS,
    ParcellationData,
    labelled_heads,
    need_segmented,
    parcelled_scans,
)

Report = Callable[[str], None]

OVERSAMPLING = {"locator": 3, "fine": 2, "refinement": 2, PARCELLATION: SUB_VOXELS}

_LOCATOR_ALONE_MM = 2.0
"""Voxels of scans that only a locator is trained on."""


@dataclass(frozen=True)
class TrainingData:
    """What a recipe trains on, read and ready."""

    protocol: Protocol
    base: Model | None
    """The model to start from."""
    shape: FloatArray
    """(K, 3) mean landmarks in the canonical pose."""
    heads: Sequence[Head] = ()
    held_out: Sequence[AnnotatedMap] = ()
    scans: Sequence[TrainingScan] = ()
    validation: Sequence[TrainingScan] = ()
    dataset: Dataset | None = None
    parcellation: ParcellationData | None = None

    @property
    def names(self) -> list[str]:
        """What training sees: names of label maps, numbers of scans."""
        return list(dict.fromkeys([h.name for h in self.rendered] + [s.name for s in self.scans]))

    @property
    def rendered(self) -> list[Head]:
        """Heads that scans are rendered from."""
        labelled = self.parcellation.heads if self.parcellation is not None else ()
        return [*self.heads, *(each.head for each in labelled)]

    @property
    def landmarks(self) -> list[FloatArray]:
        """Landmark sets that training sees, each (K, 3)."""
        return [h.landmarks for h in self.heads] + [s.landmarks for s in self.scans]


def prepare(recipe: Recipe, device: str = "cpu", report: Report = print) -> TrainingData:
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
        report("annotating the label maps")
        found = find_label_maps(recipe.heads.label_maps)
        maps = read_annotated(found, protocol, output / "annotations")
        _need_names(recipe.heads, maps)
    train = [m for m in maps if m.name not in (recipe.heads.held_out if recipe.heads else ())]
    needed = recipe.finds_landmarks or recipe.scans is None
    if recipe.heads is not None and needed and not train:
        raise UserError(
            "all label maps are held out, and none is left to learn from; take one out of "
            "'heads.held_out'."
        )
    entries: list[Entry] = []
    if dataset is not None:
        report("checking the dataset")
        require_sound(dataset)
        entries = _training_entries(dataset)
    if base is not None and base.protocol.hash == protocol.hash:
        shape = base.spec.mean_shape
    else:
        points = [m.landmarks.points for m in train]
        if dataset is not None:
            points += [true_points(dataset.read_landmarks(e).current)[0] for e in entries]
        shape = _mean_shape(points, protocol)
    kept = next((part for part in ("locator", "fine") if getattr(recipe, part) is None), None)
    if kept and base is not None and base.protocol.hash != protocol.hash:
        raise UserError(
            f"the {kept} network of {base.spec.name} finds the landmarks of {base.protocol.name}, "
            f"not those of {protocol.name}; describe '{kept}' in the recipe."
        )
    data = TrainingData(protocol, base, shape, dataset=dataset)
    held_out = [m for m in maps if recipe.heads is not None and m.name in recipe.heads.held_out]
    if recipe.heads is not None and recipe.finds_landmarks:
        count = recipe.heads.deformed_copies_per_head
        report(f"making {count} deformed copies of each head")
        heads = [m.head(shape, device) for m in train]
        heads += make_deformed_copies(train, shape, count, output / "deformed_copies", device)
        data = replace(data, heads=heads, held_out=held_out)
    if dataset is not None:
        report(f"reading {len(entries)} scans")
        spacing, cache = _finest(recipe), output / "cache"
        checking = [e for e in dataset.entries if e.split == "validation"]
        data = replace(
            data,
            scans=read_scans(dataset, entries, spacing, cache),
            validation=read_scans(dataset, checking, spacing, cache),
        )
    if recipe.parcellation is not None:
        data = replace(data, parcellation=_parcelled(recipe, data, train, held_out, device, report))
    return data


def _parcelled(
    recipe: Recipe,
    data: TrainingData,
    train: Sequence[AnnotatedMap],
    held_out: Sequence[AnnotatedMap],
    device: str,
    report: Report,
) -> ParcellationData:
    config = recipe.parcellation
    assert config is not None
    classes = Classes.of(config.structures)
    made = ParcellationData(
        classes,
        data.shape,
        heads=labelled_heads(train, classes, data.shape, device),
        held_out=labelled_heads(held_out, classes, data.shape, device),
    )
    if data.dataset is None or config.segmentations is None:
        return made
    report("reading the segmentations")
    cache = Path(recipe.output) / "cache"
    scans, validation = (
        parcelled_scans(config, data.dataset, these, classes, cache)
        for these in (data.scans, data.validation)
    )
    need_segmented(scans, config.segmentations)
    report(
        f"{len(scans)} of {len(data.scans)} training scans and {len(validation)} of "
        f"{len(data.validation)} validation scans are segmented"
    )
    return replace(made, scans=scans, validation=validation)


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


def _finest(recipe: Recipe) -> float:
    """Voxels that scans are kept in, mm: no sub-voxel of a posed network is smaller."""
    sizes = {part: getattr(recipe, part) for part in ("fine", "refinement", PARCELLATION)}
    return min(
        (c.voxel_mm / OVERSAMPLING[part] for part, c in sizes.items() if c is not None),
        default=_LOCATOR_ALONE_MM,
    )
