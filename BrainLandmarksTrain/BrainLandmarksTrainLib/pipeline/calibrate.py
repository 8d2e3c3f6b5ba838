"""A model fitted to the scans of a scanner without training: minutes instead of hours.

Two things about a model depend on the scans that it meets and need no gradient: in which direction
its points lie off on the usual head, and how far to trust them. Both are measured here on annotated
scans, the first on those of the training split, the second on scans that the first was not taken
from.

>>> better = calibrate_model(load_model("brain88"), Dataset.open("my_set"), name="mine")
>>> save_model(better, "mine")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.evaluation.held_out import HeldOut, evaluate_scans

if TYPE_CHECKING:
    from BrainLandmarksLib.network.model_files import Model

HEADS = 24
"""Scans that offsets are measured on by default: the median of so many heads is off by less than a
third of a millimetre where the heads scatter by 1.5 mm."""

FEWEST = 5
"""An offset needs so many heads, each of which counts twice, as it is and as in a mirror."""

_QUALITY = {"fine": "fast", "refinement": "standard"}
"""The cheapest quality whose points are those of a network, in the order of the networks."""

Progress = Callable[[int, int, str], None]
"""Called before each scan with the number done, of all, and what it is for."""


def calibrate_model(
    model: Model,
    dataset: Dataset,
    *,
    name: str | None = None,
    heads: int = HEADS,
    device: str = "auto",
    progress: Progress = lambda done, total, what: None,
) -> Model:
    """Measure the offsets of a model on scans of a dataset, and what its confidence means.

    Args:
        dataset: Its training split, or all of it if it is not split, gives the offsets; its
            validation split, if there is one, gives the confidence.
        name: Of the new model; by default the old one's with "-calibrated".
        heads: How many scans give the offsets, spread over the split.

    Raises:
        UserError: the model finds other landmarks than the dataset has, there are fewer than
            `FEWEST` scans, or a scan cannot be read.
    """
    if model.protocol.hash != dataset.protocol.hash:
        raise UserError(
            f"the model finds {model.protocol.name} and the dataset has {dataset.protocol.name}; "
            "choose a model of the dataset's landmarks."
        )
    split = any(entry.split for entry in dataset.entries)
    entries = [e for e in dataset.entries if e.split == "train" or not split]
    if len(entries) < FEWEST:
        raise UserError(
            f"{len(entries)} scans of {dataset.folder} are there to calibrate on; "
            f"{FEWEST} are needed."
        )
    chosen = [entries[k] for k in np.unique(np.linspace(0, len(entries) - 1, heads).astype(int))]
    checking = [entry for entry in dataset.entries if entry.split == "validation"]
    parts = [part for part in _QUALITY if part in model.networks]
    scans = _Scans(dataset, progress, len(parts) * len(chosen) + len(checking))
    for part in parts:
        result = scans.detected(model, chosen, device, _QUALITY[part])
        model = with_offsets(model, part, result)
    calibration = model.spec.calibration
    if checking:
        result = scans.detected(model, checking, device, "standard")
        if np.isfinite(result.errors).sum() > 1:
            calibration = result.calibration()
    spec = replace(
        model.spec, name=name or f"{model.spec.name}-calibrated", calibration=calibration
    )
    return replace(model, spec=spec)


def with_offsets(model: Model, part: str, result: HeldOut) -> Model:
    """A model whose network adds what its points lacked on the median head.

    Left and right are the mirror images of each other, so both sides count for both. A landmark
    that fewer than `FEWEST` heads have keeps the offset that it had.

    Args:
        part: The network that the points of ``result`` come from.
    """
    mean = model.spec.mean_shape
    lacks = np.full_like(result.found, np.nan)
    for row, (found, truth) in enumerate(zip(result.found, result.truth, strict=True)):
        if np.isfinite(found).all(1).sum() > 3:
            lacks[row] = (truth - found) @ rigid_fit(mean, found)[:3, :3]
    mirrored = (lacks * [-1.0, 1.0, 1.0])[:, model.protocol.mirror_permutation()]
    both = np.concatenate([lacks, mirrored])
    enough = np.isfinite(both).all(2).sum(0) >= 2 * FEWEST
    offset = np.array(model.spec.offsets.get(part, np.zeros_like(mean)))
    if enough.any():
        offset[enough] += _median(both[:, enough])
    spec = replace(model.spec, offsets={**model.spec.offsets, part: offset})
    return replace(model, spec=spec)


def _median(values: FloatArray) -> FloatArray:
    return np.asarray(np.nanmedian(values, axis=0))


class _Scans:
    """Runs a model on scans of a dataset and tells how far it is."""

    def __init__(self, dataset: Dataset, progress: Progress, total: int) -> None:
        self.dataset, self.progress, self.total = dataset, progress, total
        self.done = 0

    def detected(
        self, model: Model, entries: Sequence[Entry], device: str, quality: str
    ) -> HeldOut:
        result = evaluate_scans(model, self._read(entries), device, quality)
        self.progress(self.done, self.total, "")
        return result

    def _read(self, entries: Sequence[Entry]) -> Iterator[tuple[str, Volume, FloatArray]]:
        for entry in entries:
            self.progress(self.done, self.total, f"head {entry.identity}")
            sample = self.dataset.read(entry)
            yield entry.identity, sample.volume, true_points(sample.review.current)[0]
            self.done += 1
