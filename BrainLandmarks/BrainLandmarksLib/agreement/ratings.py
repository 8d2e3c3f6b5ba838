"""How well several people's annotations of the same heads agree (paper, III-C, IV-B, Fig. 6).

>>> ratings = Ratings.read(["raters/A", "raters/B"], load_protocol("brain88"))
>>> ratings.distances().mean()                       # mm between two people, on average
>>> landmark_table(ratings).write_csv("landmarks.csv")
>>> [(d.head, d.label, d.distance_mm) for d in disputes(ratings)[:10]]     # to annotate again
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.agreement.reliability import bland_altman, intraclass_correlation
from BrainLandmarksLib.agreement.summaries import summary
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import nan_mean
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.pairing import in_common
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol import Group, Protocol
from BrainLandmarksLib.protocol.alignment import common_pose
from BrainLandmarksLib.protocol.compliance import off_plane, out_of_order, spacings, swapped_sides
from BrainLandmarksLib.protocol.constraints import respaced

AXES = ("R", "A", "S")
"""Coordinates in the common pose of the heads: right, anterior, superior."""

_NOTICED_MM = 1.0
"""Off its plane by more than this, a point has a reason to be reviewed again."""


@dataclass(frozen=True)
class Ratings:
    """Annotations of the same heads by several people.

    Args:
        protocol: The landmarks.
        heads: Names of the n heads.
        raters: Names of the r people.
        points: (n, r, K, 3) RAS mm, NaN where a person has not placed a landmark.
        left_out: Names of heads that not all people have annotated.
        notes: Sentences on which files were taken.
    """

    protocol: Protocol
    heads: tuple[str, ...]
    raters: tuple[str, ...]
    points: FloatArray
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, folders: Sequence[str | os.PathLike[str]], protocol: Protocol) -> Ratings:
        """Read one folder of landmark files for each person; files of one head have one name.

        Raises:
            UserError: fewer than two folders, no head in common, or a file that cannot be read.
        """
        if len(folders) < 2:
            raise UserError("agreement needs the folders of two people or more.")
        notes: list[str] = []
        files, left_out = in_common(folders, protocol, notes)
        points = np.array(
            [[read_landmarks(file, protocol).points for file in each] for each in files.values()]
        )
        names = _names(folders)
        return cls(protocol, tuple(files), names, points, tuple(left_out), tuple(notes))

    def distances(self) -> FloatArray:
        """Mean distance between two people, (n, K) mm; NaN where fewer than two have the point."""
        between = [
            np.linalg.norm(self.points[:, a] - self.points[:, b], axis=-1) for a, b in self.pairs()
        ]
        return nan_mean(np.array(between))

    def pairs(self) -> list[tuple[int, int]]:
        """Every two people, by their places."""
        return list(combinations(range(len(self.raters)), 2))

    def in_common_pose(self) -> Ratings:
        """The same with all heads in one pose, each moved as a whole for all people alike.

        A head's place and turn in the scanner differ much more between heads than its anatomy
        does; left in, they would make any two people look reliable.
        """
        means = np.array([nan_mean(head) for head in self.points])
        try:
            motions, _ = common_pose(self.protocol, means)
        except ValueError:
            raise UserError(
                "the annotated heads have too few landmarks in common to be compared."
            ) from None
        moved = np.array([apply_affine(m, head) for m, head in zip(motions, self.points)])
        return replace(self, points=moved)

    def mean_shape(self) -> FloatArray:
        """Mean of all annotations in the common pose, (K, 3) mm."""
        points = self.in_common_pose().points
        return nan_mean(points.reshape(-1, *points.shape[2:]))


def _names(folders: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    paths = [Path(folder).absolute() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return tuple(names)
    longer = [f"{path.parent.name}/{path.name}" for path in paths]
    if len(set(longer)) == len(longer):
        return tuple(longer)
    raise UserError("two of the folders are the same or have the same name; rename one of them.")


# Tables -------------------------------------------------------------------------------------------


def landmark_table(ratings: Ratings) -> Table:
    """Every landmark: distance between people, ICC and Bland-Altman limits of each coordinate."""
    posed = ratings.in_common_pose().points
    distances = ratings.distances()
    header = ["index", "landmark", "group", "heads", "mean", "median", "p90", "largest"]
    header += [f"ICC({form}) {axis}" for form in ("2,1", "3,1") for axis in AXES]
    for a, b in ratings.pairs():
        pair = f"{ratings.raters[a]} - {ratings.raters[b]}"
        header += [f"{pair}, {what} {axis}" for axis in AXES for what in ("bias", "low", "high")]
    limits = [bland_altman(posed[:, a], posed[:, b]) for a, b in ratings.pairs()]
    rows = []
    for row, landmark in enumerate(ratings.protocol.landmarks):
        e = distances[:, row]
        e = e[np.isfinite(e)]
        numbers = summary(e)
        icc = [intraclass_correlation(posed[:, :, row, axis]) for axis in range(3)]
        cells = [landmark.index, landmark.label, landmark.group, len(e)]
        cells += [numbers.get(name, float("nan")) for name in ("mean", "median", "p90")]
        cells += [float(e.max()) if len(e) else float("nan")]
        cells += [value.two_one for value in icc] + [value.three_one for value in icc]
        for each in limits:
            for axis in range(3):
                cells += [float(each.bias[row, axis]), float(each.lower[row, axis])]
                cells += [float(each.upper[row, axis])]
        rows.append(tuple(cells))
    return Table(header, rows)


def group_table(ratings: Ratings) -> Table:
    """Every group, and all: distance between people (mm) and the median ICC of its coordinates."""
    posed = ratings.in_common_pose().points
    distances = ratings.distances()
    count = len(ratings.protocol)
    icc = np.array(
        [
            [intraclass_correlation(posed[:, :, row, axis]) for axis in range(3)]
            for row in range(count)
        ]
    )
    rows = []
    for name, columns in _slices(ratings.protocol):
        numbers = summary(distances[:, columns])
        chosen = icc[columns].ravel()
        rows.append(
            (
                name,
                int(numbers["count"]),
                *(numbers.get(key, float("nan")) for key in ("mean", "median", "p90")),
                _median([value.two_one for value in chosen]),
                _median([value.three_one for value in chosen]),
            )
        )
    header = ("group", "points", "mean", "median", "p90", "ICC(2,1)", "ICC(3,1)")
    return Table(header, rows)


@dataclass(frozen=True)
class Deviations:
    """How far each person's annotations are from the guidelines, per group; (groups, raters).

    Args:
        plane_mm: Root mean square distance from the plane that points share.
        spacing: Mean coefficient of variation of the steps along the group's outlines.
        spacing_mm: Root mean square distance of secondary points from where equal steps put them.
    """

    groups: tuple[str, ...]
    plane_mm: FloatArray
    spacing: FloatArray
    spacing_mm: FloatArray


def deviations(ratings: Ratings) -> Deviations:
    """Planarity and equidistance of every group and person, over all heads."""
    protocol = ratings.protocol
    names = [group.name for group in protocol.groups]
    shape = (len(names), len(ratings.raters))
    plane, spacing, away = (np.full(shape, np.nan) for _ in range(3))
    for rater in range(len(ratings.raters)):
        heads = ratings.points[:, rater]
        off = np.array([off_plane(protocol, head) for head in heads])
        steps = [s for head in heads for s in spacings(protocol, head)]
        for k, group in enumerate(protocol.groups):
            columns = slice(group.first - 1, group.last)
            plane[k, rater] = _root_mean_square(off[:, columns])
            of_group = [s.variation for s in steps if s.chain.group == group.name]
            if of_group:
                spacing[k, rater] = float(np.mean(of_group))
                away[k, rater] = _root_mean_square(
                    np.array([_away(protocol, head, group) for head in heads])
                )
    return Deviations(tuple(names), plane, spacing, away)


def _away(protocol: Protocol, points: FloatArray, group: Group) -> FloatArray:
    """Distance of a group's secondary points from where equal steps put them, mm."""
    rows = [lm.index - 1 for lm in protocol.members(group) if lm.role == "secondary"]
    return np.linalg.norm(respaced(protocol, points, group.name) - points, axis=1)[rows]


def deviation_table(ratings: Ratings, found: Deviations) -> Table:
    """`deviations` as a table: one row for each group that has a plane or an outline."""
    header = ["group"]
    for name in ratings.raters:
        header += [f"{name}: off plane, mm", f"{name}: step variation, %", f"{name}: spacing, mm"]
    rows: list[list[object]] = []
    for k, group in enumerate(found.groups):
        if np.isnan(found.plane_mm[k]).all() and np.isnan(found.spacing[k]).all():
            continue
        cells: list[object] = [group]
        for rater in range(len(ratings.raters)):
            cells += [
                float(found.plane_mm[k, rater]),
                100 * float(found.spacing[k, rater]),
                float(found.spacing_mm[k, rater]),
            ]
        rows.append(cells)
    return Table(header, rows)


# What to annotate again ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Dispute:
    """A landmark of one head that people placed apart.

    Args:
        reasons: What speaks against a placement, in words; may be empty.
    """

    head: str
    label: str
    group: str
    distance_mm: float
    reasons: tuple[str, ...]


def disputes(ratings: Ratings) -> list[Dispute]:
    """Every landmark of every head, those that people placed farthest apart first."""
    protocol = ratings.protocol
    found = []
    for head, points, distances in zip(ratings.heads, ratings.points, ratings.distances()):
        reasons = _reasons(ratings, points)
        for landmark, distance in zip(protocol.landmarks, distances, strict=True):
            if np.isfinite(distance):
                found.append(
                    Dispute(
                        head,
                        landmark.label,
                        landmark.group,
                        float(distance),
                        tuple(reasons[landmark.label]),
                    )
                )
    return sorted(found, key=lambda dispute: -dispute.distance_mm)


def dispute_table(found: Sequence[Dispute]) -> Table:
    """`disputes` as a table."""
    rows = [
        (place, d.head, d.label, d.group, d.distance_mm, "; ".join(d.reasons) or "-")
        for place, d in enumerate(found, start=1)
    ]
    return Table(("rank", "head", "landmark", "group", "apart, mm", "seen"), rows)


def _reasons(ratings: Ratings, points: FloatArray) -> dict[str, list[str]]:
    """What each person's placement of one head, (r, K, 3), breaks, by label."""
    protocol = ratings.protocol
    reasons: dict[str, list[str]] = {label: [] for label in protocol.labels}
    # Kinds of mistakes with names, and how to say them.
    named: tuple[tuple[Callable[[Protocol, npt.ArrayLike], list[tuple[str, str]]], str], ...] = (
        (swapped_sides, "swapped with"),
        (out_of_order, "out of order with"),
    )
    for rater, of_rater in zip(ratings.raters, points, strict=True):
        for find, words in named:
            for first, second in find(protocol, of_rater):
                reasons[first].append(f"{rater}: {words} {second}")
                reasons[second].append(f"{rater}: {words} {first}")
        for label, mm in zip(protocol.labels, off_plane(protocol, of_rater), strict=True):
            if mm > _NOTICED_MM:
                reasons[label].append(f"{rater}: {mm:.1f} mm off its plane")
    return reasons


def _slices(protocol: Protocol) -> list[tuple[str, slice]]:
    """Groups, and all landmarks, with their columns."""
    groups = [(group.name, slice(group.first - 1, group.last)) for group in protocol.groups]
    return [*groups, ("All", slice(None))]


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def _root_mean_square(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt((known**2).mean())) if len(known) else float("nan")
