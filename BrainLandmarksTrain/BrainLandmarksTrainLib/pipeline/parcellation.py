"""The parcellation network: what it learns from, what it starts from, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Model, ParcellationSpec
from BrainLandmarksTrainLib.config.parcellation import ParcellationConfig
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.data.classes import Classes
from BrainLandmarksTrainLib.data.parcellation import (
    HeadSource,
    LabelledHead,
    ParcellationSampler,
    ParcelledScan,
    ScanSource,
    Source,
)
from BrainLandmarksTrainLib.data.scans import TrainingScan
from BrainLandmarksTrainLib.data.segmentations import canonical, find_segmentations, read_class_map
from BrainLandmarksTrainLib.engine.batches import Mixture, Sampler
from BrainLandmarksTrainLib.evaluation.dice import dice_table, measured_dice
from BrainLandmarksTrainLib.synthesis.appearance import Appearance
from BrainLandmarksTrainLib.synthesis.label_maps import AnnotatedMap
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import ANY_ANATOMY, POSED

from .transfer import new_rows, transferred

SUB_VOXELS = 2
"""Parts that each side of a voxel is sampled in."""

_SCHEME = "freesurfer"
"""The numbers of the label maps that heads are rendered from."""
_MEASURED_SEED = 2026


@dataclass(frozen=True)
class ParcellationData:
    """What the parcellation network learns from and is measured on, read and ready."""

    classes: Classes
    mean_shape: FloatArray
    scans: Sequence[ParcelledScan] = ()
    validation: Sequence[ParcelledScan] = ()
    heads: Sequence[LabelledHead] = ()
    held_out: Sequence[LabelledHead] = ()


def labelled_heads(
    maps: Sequence[AnnotatedMap], classes: Classes, mean_shape: FloatArray, device: str
) -> list[LabelledHead]:
    """Label maps ready for rendering, with their classes."""
    heads = []
    for each in maps:
        labels, _ = canonical(each.volume, _SCHEME)
        voxels = torch.from_numpy(classes.index(labels)).to(device)
        readings = classes.readings(np.unique(labels).tolist())
        heads.append(LabelledHead(each.head(mean_shape, device), voxels, readings))
    return heads


def parcelled_scans(
    config: ParcellationConfig,
    dataset: Dataset,
    scans: Sequence[TrainingScan],
    classes: Classes,
    cache: Path,
) -> list[ParcelledScan]:
    """The scans that are segmented, with their classes.

    Raises:
        UserError: a segmentation or a folder of them cannot be used.
    """
    assert config.segmentations is not None
    numbers = {scan.name for scan in scans}
    entries = [entry for entry in dataset.entries if entry.identity in numbers]
    maps = find_segmentations(dataset, entries, config.segmentations, config.images)
    return [
        ParcelledScan(scan, read_class_map(maps[scan.name], classes, cache))
        for scan in scans
        if scan.name in maps
    ]


def parcellation_samplers(
    data: ParcellationData, recipe: Recipe, config: ParcellationConfig
) -> tuple[Sampler, Sampler | None]:
    """What makes the samples to train on, and those for validation (None: unseen ones of it)."""
    made: list[Source] = []
    if data.scans:
        made.append(ScanSource(data.scans, data.mean_shape, ANY_ANATOMY, Appearance()))
    if data.heads:
        assert recipe.heads is not None
        made.append(HeadSource(data.heads, replace(ANY_ANATOMY, t1_share=recipe.heads.t1_share)))
    source = made[0] if len(made) == 1 else Mixture(made[0], made[1], config.scan_share)
    validation = None
    if data.validation:
        posed = ScanSource(data.validation, data.mean_shape, POSED)
        validation = _sampler(data, config, posed)
    return _sampler(data, config, source), validation


def _sampler(
    data: ParcellationData, config: ParcellationConfig, source: Source
) -> ParcellationSampler:
    lattice = Lattice(config.crop, config.voxel_mm, SUB_VOXELS)
    return ParcellationSampler(source, data.classes, lattice, data.mean_shape)


def parcellation_network(
    config: ParcellationConfig, classes: Classes, base: Model | None, seed: int
) -> HighRes3DNet:
    """The network as training starts with it.

    Raises:
        UserError: the weights to transfer do not fit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = HighRes3DNet(
            out_channels=len(classes), features=config.features, dropout=config.dropout
        )
    if config.init_from is not None:
        return network
    if config.transfer is not None:
        return transferred(config.transfer, classes, network)
    if base is not None and base.parcellation is not None and base.spec.parcellation is not None:
        source = base.parcellation
        spec = {**source.spec(), "out_channels": len(classes), "dropout": config.dropout}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = HighRes3DNet(**spec)
        known = base.spec.parcellation.structures
        network.load_state_dict(new_rows(source, network, known, classes.structures))
    return network


def parcellation_spec(config: ParcellationConfig, classes: Classes) -> ParcellationSpec:
    """What model.json says of the network."""
    return ParcellationSpec(config.voxel_mm, classes.structures)


def measure_parcellation(
    network: HighRes3DNet,
    data: ParcellationData,
    recipe: Recipe,
    config: ParcellationConfig,
    device: torch.device,
) -> tuple[dict[str, Any], Table]:
    """Dice of each structure on what training did not see, as plain values and as a table."""
    sets: dict[str, list[Source]] = {
        "validation_scans": [ScanSource([s], data.mean_shape, POSED) for s in data.validation],
        "held_out_heads": [
            HeadSource([head], replace(POSED, t1_share=1.0, cut_share=0.0, stripped_share=0.0))
            for head in data.held_out
        ],
    }
    names = data.classes.names
    measured = {}
    for name, sources in sets.items():
        if sources:
            samples = _tiles(data, config, sources)
            measured[name] = measured_dice(network, samples, len(names), device)
    values = {
        name: {
            "count": len(sets[name]),
            # The label maps may lack every structure; then there is no mean.
            **(
                {"mean": round(float(np.nanmean(dice[1:])), 4)}
                if np.isfinite(dice[1:]).any()
                else {}
            ),
            "structures": {
                structure: round(float(value), 4)
                for structure, value in zip(names[1:], dice[1:])
                if np.isfinite(value)
            },
        }
        for name, dice in measured.items()
    }
    return values, dice_table(measured, names)


def _tiles(
    data: ParcellationData, config: ParcellationConfig, sources: Sequence[Source]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """All of each head in boxes."""
    for number, source in enumerate(sources):
        for tile in _sampler(data, config, source).tiles():
            yield tile(0, np.random.default_rng([_MEASURED_SEED, number]))


def need_segmented(scans: Sequence[ParcelledScan], folders: Mapping[str, str]) -> None:
    """Check that there are scans to learn from.

    Raises:
        UserError: none has a label map.
    """
    if not scans:
        raise UserError(
            f"no training scan of the dataset has a label map in {', '.join(folders.values())}; a "
            "label map is called as its scan, or give 'parcellation.images'."
        )
