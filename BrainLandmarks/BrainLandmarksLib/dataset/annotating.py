"""Landmarks of real scans from segmentations of them, without a person.

The rules (:mod:`annotation`) place the landmarks on each segmentation of a scan, several methods
correct each other, the globes of the eyes are found on the image itself, and what cannot be a head
is set aside.

>>> heads = [SegmentedHead("sub-01", image, {"gif": gif_file, "muse": muse_file}), ...]
>>> for result in annotate_heads(heads, model.shape, Judge(model.shape, model.spec.mean_shape)):
...     write_landmarks(folder / f"{result.name}.mrk.json", result.landmarks)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from BrainLandmarksLib.annotation import AUTO, annotate
from BrainLandmarksLib.annotation.consensus import Shifts, consensus
from BrainLandmarksLib.annotation.eye_landmarks import eye_rows, globes_of, on_globes
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.shape_model import RARE_DEVIATION, ShapeModel
from BrainLandmarksLib.imaging.preprocessing import preprocessed
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.protocol.landmarks import LandmarkSet, is_plausible

NO_GLOBE = "the image shows no whole globe here"
RARE = "hardly any head has it here"

Report = Callable[[int, str], None]
"""Called with the number of label maps and images that are done, and the name of the next one."""


@dataclass(frozen=True)
class SegmentedHead:
    """A scan and its label maps.

    Args:
        name: What distinguishes it from the others.
        image: T1-weighted scan.
        maps: Method to label map, the most trusted method first.
    """

    name: str
    image: Path
    maps: Mapping[str, Path]


@dataclass(frozen=True)
class AnnotatedHead:
    """What came of a scan.

    Args:
        landmarks: Status ``truth`` or ``missing``; None where none of its maps could be used.
        plausibility: How much the landmarks are those of a head, 0 to 1.
        methods: Those whose maps could be used.
        problems: Sentences on maps that could not.
    """

    name: str
    landmarks: LandmarkSet | None
    plausibility: float = 0.0
    methods: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a training may learn from it."""
        return self.landmarks is not None and is_plausible(self.plausibility)


@dataclass
class _ByRule:
    """The landmarks of all heads by the rules alone."""

    sets: dict[str, dict[str, LandmarkSet]] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)


def annotate_heads(
    heads: Sequence[SegmentedHead],
    shape: ShapeModel,
    plausibility: Callable[[FloatArray], float],
    *,
    schemes: Mapping[str, str] | None = None,
    report: Report = lambda done, name: None,
) -> Iterator[AnnotatedHead]:
    """The landmarks of each head, in order; all maps are read before the first head comes.

    By how much a method is usually off the most trusted one is learnt from the heads that have both
    (`consensus.Shifts`) and taken off before the methods are compared, and where only the less
    trusted one exists.

    Args:
        shape: How the landmarks vary over heads; a point where it has hardly any is missing.
        plausibility: Of (K, 3) landmarks, such as `plausibility.Judge`.
        schemes: Method to the name or file of its label scheme; by default found from the numbers.
    """
    rules = _by_rule(heads, schemes or {}, report)
    methods = list(dict.fromkeys(method for head in heads for method in head.maps))
    shifts = {
        other: Shifts.learn(
            shape.mean,
            [
                (s[other], s[methods[0]])
                for s in rules.sets.values()
                if {other, methods[0]} <= set(s)
            ],
        )
        for other in methods[1:]
    }
    maps = sum(len(head.maps) for head in heads)
    for number, head in enumerate(heads):
        report(maps + number, head.name)
        found = rules.sets[head.name]
        problems = rules.problems[head.name]
        if not found:
            yield AnnotatedHead(head.name, None, problems=tuple(problems))
            continue
        agreed = consensus([shifts[m].corrected(s) if m in shifts else s for m, s in found.items()])
        judged = plausibility(agreed.points)
        if is_plausible(judged):
            try:
                agreed = _with_eyes(_usual(agreed, shape), head.image, shape.mean)
            except UserError as error:
                yield AnnotatedHead(head.name, None, problems=(*problems, str(error)))
                continue
        yield AnnotatedHead(head.name, agreed, judged, tuple(found), tuple(problems))
    report(maps + len(heads), "")


def _by_rule(heads: Sequence[SegmentedHead], schemes: Mapping[str, str], report: Report) -> _ByRule:
    rules, done = _ByRule(), 0
    for head in heads:
        sets, problems = rules.sets.setdefault(head.name, {}), []
        for method, path in head.maps.items():
            report(done, f"{head.name} {method}")
            done += 1
            try:
                sets[method] = annotate(read_image(path), schemes.get(method, AUTO))
            except UserError as error:
                problems.append(f"{method}: {error}")
        rules.problems[head.name] = problems
    return rules


def _usual(landmarks: LandmarkSet, shape: ShapeModel) -> LandmarkSet:
    """The landmarks without those that the others do not lead to expect there."""
    rare = shape.deviation(landmarks.points) > RARE_DEVIATION
    points, notes = landmarks.points.copy(), list(landmarks.notes)
    points[rare] = np.nan
    for row in np.flatnonzero(rare):
        notes[row] = RARE
    return LandmarkSet.from_points(landmarks.protocol, points, "truth", landmarks.confidence, notes)


def _with_eyes(landmarks: LandmarkSet, image: Path, mean_shape: FloatArray) -> LandmarkSet:
    """The landmarks with those of the eyes on the globes that the image shows.

    Raises:
        UserError: the image cannot be read.
    """
    protocol = landmarks.protocol
    head = preprocessed(read_image(image))
    globes = globes_of(protocol, head, landmarks.points, mean_shape, unguided=True)
    points, notes = on_globes(protocol, landmarks.points, globes), list(landmarks.notes)
    for side, rows in eye_rows(protocol).items():
        for row in rows:
            if globes.get(side) is None and not np.isfinite(points[row]).all():
                notes[row] = NO_GLOBE
    return LandmarkSet.from_points(landmarks.protocol, points, "truth", landmarks.confidence, notes)
