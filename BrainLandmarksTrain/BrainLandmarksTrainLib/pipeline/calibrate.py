"""A model fitted to the scans of a scanner without training: minutes instead of hours.

Three things about a model depend on the heads and scans that it meets and need no gradient: how
landmarks vary over these heads, how its points lie off on them, alone and together, and how far to
trust them. The first two are measured here on annotated scans of the training split, the third on
scans that those were not taken from.

>>> better = calibrate_model(load_model("brain88"), Dataset.open("my_set"), name="mine")
>>> save_model(better, "mine")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.annotation.eye_landmarks import eye_rows
from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.detection import Detector, Quality
from BrainLandmarksLib.detection.detector import RULES
from BrainLandmarksLib.errors import ImplausibleError, UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import in_pose_of
from BrainLandmarksLib.geometry.correction import (
    ANSWER,
    FEWEST_HEADS,
    WITH_RULES,
    Correction,
    PointErrors,
)
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.network.model_files import REAL_SCANS
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.constraints import constrained
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.evaluation.held_out import HeldOut, evaluate_scans

if TYPE_CHECKING:
    from BrainLandmarksLib.network.model_files import Model

HEADS = 24
"""Scans that errors are measured on by default; each counts twice, as it is and as in a mirror."""

HEADS_OF_A_SHAPE = 30
"""So many heads say more of how heads vary than the shape model that comes with the model."""

ALL = "All"

CORRECTED_ON = "corrected_on"
"""Key of `ModelSpec.training`: how many heads, scans and validation scans a correction is of."""

_EVERYTHING = Quality(refinement=True, parcellation=True)
"""What shows the points of every network, and those of the rules, on one scan."""

ANSWERS_TOGETHER = 0.95
"""Share of the measured correlation of the answers' errors that is believed: nothing follows from
it but how sure planes and registrations are, where too little is worse than too much."""

FOLDS = 12
"""Parts of the scans; the answers of each are corrected by what the other parts teach."""

_MODES = 60

_MARGIN = 1.25
"""Heads that nothing was learnt from are so much stranger than those that were, though as usual."""

_FIRST = ("fine", "refinement")
"""Networks, the one that the answer follows most often first."""

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
    """Measure how a model errs on scans of a dataset, and what its confidence means.

    Args:
        dataset: Its training split, or all of it if it is not split, tells how heads vary and how
            points err; its validation split, if there is one, gives the confidence and the error
            table of `real_scans`.
        name: Of the new model; by default the old one's with "-calibrated".
        heads: How many scans the errors are measured on, spread over the split.

    Raises:
        UserError: the model finds other landmarks than the dataset has, there are fewer than
            `FEWEST_HEADS` scans, or a scan cannot be read.
    """
    if model.protocol.hash != dataset.protocol.hash:
        raise UserError(
            f"the model finds {model.protocol.name} and the dataset has {dataset.protocol.name}; "
            "choose a model of the dataset's landmarks."
        )
    split = any(entry.split for entry in dataset.entries)
    entries = [e for e in dataset.entries if e.split == "train" or not split]
    if len(entries) < FEWEST_HEADS:
        raise UserError(
            f"{len(entries)} scans of {dataset.folder} are there to calibrate on; "
            f"{FEWEST_HEADS} are needed."
        )
    chosen = [entries[k] for k in np.unique(np.linspace(0, len(entries) - 1, heads).astype(int))]
    checking = [entry for entry in dataset.entries if entry.split == "validation"]
    scans = _Scans(dataset, progress, len(chosen) + len(checking))
    sources, true = scans.sources(replace(model, correction=None), chosen, device)
    truth = [true_points(dataset.read_landmarks(entry).current)[0] for entry in entries]
    model = replace(model, correction=correction_of(model, truth, sources, true))
    calibration, held_out = model.spec.calibration, dict(model.spec.held_out)
    if checking:
        result = scans.evaluated(model, checking, device)
        if np.isfinite(result.errors).sum() > 1:
            # The refinement network is spared where there are rules.
            refined = "refinement" in sources and RULES not in sources
            part = "refinement" if refined else "fine"
            calibration = result.calibration(correction=model.correction, part=part)
            held_out[REAL_SCANS] = real_scans(model.protocol, result)
    measured = {"heads": len(truth), "scans": len(chosen), "validation_scans": len(checking)}
    spec = replace(
        model.spec,
        name=name or f"{model.spec.name}-calibrated",
        calibration=calibration,
        held_out=held_out,
        training={**model.spec.training, CORRECTED_ON: measured},
    )
    return replace(model, spec=spec)


def real_scans(protocol: Protocol, result: HeldOut) -> dict[str, Any]:
    """The error table of `ModelSpec.held_out`, per group, mm.

    Points of eyes are left out: `dataset annotate` takes them from the same fit of globes as the
    detection.

    Args:
        result: Of scans that nothing was learnt from.
    """
    eyes = {row for rows in eye_rows(protocol).values() for row in rows.tolist()}
    groups = {group.name: [index - 1 for index in group.indices] for group in protocol.groups}
    groups[ALL] = list(range(len(protocol)))
    before = np.linalg.norm(result.seen - result.truth, axis=2)
    along = np.abs(result.found - result.truth).mean(2)
    errors = {}
    for name, rows in groups.items():
        chosen = [row for row in rows if row not in eyes]
        there = result.errors[:, chosen]
        there = there[np.isfinite(there)]
        if len(there):
            numbers = {
                "mean": there.mean(),
                "median": np.median(there),
                "p90": np.percentile(there, 90),
                "per_coordinate": np.nanmean(along[:, chosen]),
                "before": np.nanmean(before[:, chosen]),
            }
            rounded = {key: round(float(value), 3) for key, value in numbers.items()}
            errors[name] = {"n": len(there), **rounded}
    return {"scans": len(result.heads), "errors_mm": errors}


def correction_of(
    model: Model,
    heads: Sequence[FloatArray],
    sources: Mapping[str, FloatArray],
    truth: FloatArray,
) -> Correction:
    """What scans teach about the points of a model.

    Args:
        heads: (K, 3) true landmarks of heads, RAS mm, NaN missing; `HEADS_OF_A_SHAPE` or more of
            them make the shape, fewer leave that of the model.
        sources: What was seen on n scans, (n, K, 3) RAS mm, by the name of a network or `RULES`
            (`Detection.sources`), without any correction.
        truth: (n, K, 3) their true landmarks.
    """
    mirror, mean = model.protocol.mirror_permutation(), model.spec.mean_shape
    if len(heads) >= HEADS_OF_A_SHAPE or model.shape is None:
        shape = ShapeModel.fit(heads, mirror, mean, _MODES)
    else:
        shape = model.shape
    points, lacking = {}, {}
    for part, seen in sources.items():
        if part == RULES:
            continue
        points[part] = seen
        lacking[part] = _lacks(seen, seen, truth, shape)
        if RULES in sources:
            rules = sources[RULES]
            points[part + WITH_RULES] = np.concatenate([seen, rules], axis=1)
            lacking[part + WITH_RULES] = np.concatenate(
                [lacking[part], _lacks(rules, seen, truth, shape)], axis=1
            )
    errors = {part: PointErrors.fit(lacks, _twice(mirror, part)) for part, lacks in lacking.items()}
    correction = Correction(shape, errors)
    for part, seen in points.items():
        strange = [correction.strangeness(head, part) for head in seen]
        if np.isfinite(strange).any():
            usual = float(np.nanquantile(strange, 0.9))
            errors[part] = replace(errors[part], familiar=_MARGIN * max(usual, 1e-3))
    left = _left_out(model.protocol, Correction(shape, errors), lacking, points, truth)
    return Correction(shape, {**errors, **left})


def _left_out(
    protocol: Protocol,
    correction: Correction,
    lacking: Mapping[str, FloatArray],
    points: Mapping[str, FloatArray],
    truth: FloatArray,
) -> dict[str, PointErrors]:
    """The errors of the answers on scans, each corrected by what others teach.

    Those of eyes are not known: they follow from globes, as the truth of `dataset annotate` does.
    """
    part = next((name for name in _FIRST if name in lacking), None)
    if part is None:
        return {}
    mirror, folds = protocol.mirror_permutation(), np.arange(len(truth)) % FOLDS
    needed = [name for name in (part, part + WITH_RULES) if name in lacking]
    answers = np.full_like(truth, np.nan)
    for fold in range(FOLDS):
        errors = {
            name: replace(
                PointErrors.fit(lacking[name][folds != fold], _twice(mirror, name)),
                familiar=correction.errors[name].familiar,
            )
            for name in needed
        }
        others = Correction(correction.shape, errors)
        for row in np.flatnonzero(folds == fold):
            seen = points[part][row]
            found = others(seen, part)
            if part + WITH_RULES in needed:
                rules = points[part + WITH_RULES][row, len(seen) :]
                found = others.fused(seen, rules, part).points
            answers[row] = constrained(protocol, np.where(np.isfinite(seen), found, np.nan))
    for eye in eye_rows(protocol).values():
        answers[:, eye] = np.nan
    lacks = _lacks(answers, answers, truth, correction.shape)
    return {ANSWER: PointErrors.fit(lacks, mirror, ANSWERS_TOGETHER)}


def _twice(mirror: npt.NDArray[np.int64], part: str) -> npt.NDArray[np.int64]:
    """Partners of the points of a network, and behind them of those by rule if there are any."""
    if part.endswith(WITH_RULES):
        return np.concatenate([mirror, mirror + len(mirror)])
    return mirror


def _lacks(
    points: FloatArray, found: FloatArray, truth: FloatArray, shape: ShapeModel
) -> FloatArray:
    """Truth less points of each head, in the canonical pose that ``found`` gives, (n, K, 3) mm."""
    lacks = np.full_like(points, np.nan)
    for row, posed in enumerate(found):
        if np.isfinite(posed).all(1).sum() > 3:
            lacks[row] = in_pose_of(shape.mean, posed, truth[row] - points[row])
    return lacks


class _Scans:
    """Runs a model on scans of a dataset and tells how far it is."""

    def __init__(self, dataset: Dataset, progress: Progress, total: int) -> None:
        self.dataset, self.progress, self.total = dataset, progress, total
        self.done = 0

    def sources(
        self, model: Model, entries: Sequence[Entry], device: str
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """What is seen on each scan, by source, and the truth, each (n, K, 3) RAS mm.

        A head that is not recognised shows nothing.
        """
        detector = Detector(model, device)
        seen: dict[str, list[FloatArray]] = {}
        truths = []
        for number, (_, volume, truth) in enumerate(self._read(entries)):
            nowhere = np.full_like(truth, np.nan)
            truths.append(truth)
            try:
                found = detector.detect(volume, quality=_EVERYTHING).sources
            except ImplausibleError:
                found = {}
            for name in {*seen, *found}:
                before = seen.setdefault(name, [nowhere] * number)
                before.append(found.get(name, nowhere))
        self.progress(self.done, self.total, "")
        return {name: np.array(points) for name, points in seen.items()}, np.array(truths)

    def evaluated(self, model: Model, entries: Sequence[Entry], device: str) -> HeldOut:
        """What the whole model finds on scans, in the usual quality."""
        result = evaluate_scans(model, self._read(entries), device)
        self.progress(self.done, self.total, "")
        return result

    def _read(self, entries: Sequence[Entry]) -> Iterator[tuple[str, Volume, FloatArray]]:
        for entry in entries:
            self.progress(self.done, self.total, f"head {entry.identity}")
            sample = self.dataset.read(entry)
            yield entry.identity, sample.volume, true_points(sample.review.current)[0]
            self.done += 1
