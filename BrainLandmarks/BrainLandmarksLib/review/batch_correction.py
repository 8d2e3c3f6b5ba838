"""The guidelines applied to a whole annotation, as a person would with the buttons of the panel.

Swapped names first, then planes, then equal spacing (paper, section IV-B: co-planarity was the
main priority, equidistance the next). Primary landmarks sit on named anatomy, so they stay where a
person put them unless they are asked to move.

>>> review, source = read_review("head.mrk.json", protocol)
>>> for move in apply_guidelines(review):
...     print(move.label, move.kind, f"{move.mm:.1f} mm")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.edges import tracer
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import constraints
from BrainLandmarksLib.protocol.compliance import (
    need_plausible,
    off_plane,
    out_of_order,
    swapped_sides,
)
from BrainLandmarksLib.review import Edit, Review

SEEN_MM = 0.05
"""Rules move no point by less than this: nobody sees it."""

OFF_PLANE_MM = 1.0
"""A primary landmark farther off its plane than this is named for a person to look at."""


@dataclass(frozen=True)
class Uncertainty:
    """A primary landmark that a person has to look at: how far it is off its plane, mm."""

    label: str
    mm: float


def apply_guidelines(
    review: Review,
    groups: Sequence[str] | None = None,
    volume: Volume | None = None,
    *,
    primary: bool = False,
) -> list[Edit]:
    """Correct an annotation by rule; each rule is one step of the review that can be undone.

    1. Left and right names that were swapped, and secondary points out of order along their
       outline, are swapped back.
    2. Secondary points go onto the plane that their group shares by definition.
    3. Secondary points are spread at equal arc lengths along their outline.

    Args:
        groups: Names of groups; all by default.
        volume: The annotated image; with it the outline is traced on the image, without it the
            outline is the smooth curve through the points.
        primary: Also move primary landmarks onto the plane of their group.

    Returns:
        What was done, in order; a point may be in it once for each rule.

    Raises:
        UserError: the protocol has no such group, or all left landmarks are on the right: no rule
            can put that right.
    """
    protocol = review.protocol
    need_plausible(protocol, review.current.points, "the annotation")
    names = [group.name for group in protocol.groups] if groups is None else list(groups)
    chosen = {landmark.label for name in names for landmark in protocol.members(name)}
    before = len(review.edits)
    _swap(review, chosen)
    points = np.array(review.current.points)
    for name in names:
        points = constraints.flattened(protocol, points, name, primary=primary)
    _record(review, points, "projected")
    trace = None if volume is None else tracer(volume, protocol)
    spread = np.array(review.current.points)
    for name in names:
        if any(chain.group == name for chain in protocol.chains):
            spread = constraints.respaced(protocol, spread, name, trace)
            # A curve through primary landmarks off the plane leaves it a little beside them.
            spread = constraints.flattened(protocol, spread, name, primary=primary)
    _record(review, spread, "respaced")
    return review.edits[before:]


def uncertainties(review: Review, groups: Sequence[str] | None = None) -> list[Uncertainty]:
    """Primary landmarks more than `OFF_PLANE_MM` off the plane of their group, worst first."""
    protocol = review.protocol
    distances = off_plane(protocol, review.current.points)
    found = [
        Uncertainty(landmark.label, float(distances[landmark.index - 1]))
        for landmark in protocol.landmarks
        if landmark.role == "primary"
        and (groups is None or landmark.group in groups)
        and distances[landmark.index - 1] > OFF_PLANE_MM
    ]
    return sorted(found, key=lambda uncertainty: -uncertainty.mm)


def _swap(review: Review, chosen: Iterable[str]) -> None:
    """One step that gives every point of an swapped pair its own name."""
    protocol = review.protocol
    points = np.array(review.current.points)
    row = {label: k for k, label in enumerate(protocol.labels)}
    for find in (swapped_sides, out_of_order):
        for first, second in find(protocol, points):
            if {first, second} <= set(chosen):
                points[[row[first], row[second]]] = points[[row[second], row[first]]]
    _record(review, points, "swapped")


def _record(review: Review, points: FloatArray, kind: str) -> None:
    moved = np.linalg.norm(points - review.current.points, axis=1) > SEEN_MM
    review.move_many(
        {label: points[k] for k, label in enumerate(review.protocol.labels) if moved[k]}, kind
    )
