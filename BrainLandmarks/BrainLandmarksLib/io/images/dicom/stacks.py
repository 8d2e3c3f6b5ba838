"""Slices that make up one volume, in their order, and what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray, lps_affine_to_ras
from BrainLandmarksLib.io.images import checks
from BrainLandmarksLib.io.images.dicom.frames import Frame

_SAME_DIRECTION = 0.01  # of a cosine
_SAME_PLACE = 2  # decimals of a mm
_UNEVEN = 0.05  # as a share of the distance of two slices


@dataclass(frozen=True, eq=False)
class Stack:
    """The slices of one volume, from the first to the last along their common normal.

    Args:
        frames: In order.
        key: What it is chosen by: the number of its series, and if that has several volumes, which.
        differs: In what it differs from the series' other volumes, such as "echo 2"; "".
    """

    frames: tuple[Frame, ...]
    key: str
    differs: str = ""

    @property
    def first(self) -> Frame:
        """The slice that speaks for all."""
        return self.frames[0]

    @property
    def title(self) -> str:
        """For sentences: ``series 3 (T1_MPRAGE, 176 slices)``."""
        return f"series {self.listed}"

    @property
    def listed(self) -> str:
        """For lists: ``3 (T1_MPRAGE, 176 slices)``."""
        count = len(self.frames)
        parts = [self.first.series.description, self.differs]
        parts.append(f"{count} slice{'' if count == 1 else 's'}")
        return f"{self.key} ({', '.join(part for part in parts if part)})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i (columns), j (rows) and k (slices)."""
        return (*self.first.shape, len(self.frames))

    @property
    def affine(self) -> FloatArray:
        """ijk -> RAS mm, 4x4; sheared if slices are stacked at a slant. Needs `placed`."""
        first = self.first
        assert first.directions is not None
        assert first.spacing is not None
        places = _places(self.frames)
        affine = np.eye(4)
        affine[:3, 0] = np.array(first.directions[:3]) * first.spacing[0]
        affine[:3, 1] = np.array(first.directions[3:]) * first.spacing[1]
        if len(places) > 1:
            affine[:3, 2] = (places[-1] - places[0]) / (len(places) - 1)
        else:
            affine[:3, 2] = _normal(first)
        affine[:3, 3] = places[0]
        return lps_affine_to_ras(affine)

    @property
    def placed(self) -> bool:
        """Whether the slices say where they lie."""
        return _is_placed(self.first)

    @property
    def extent(self) -> FloatArray:
        """Edge lengths in mm, (3,); needs `placed`."""
        return np.linalg.norm(self.affine[:3, :3], axis=0) * np.array(self.shape)

    @property
    def problem(self) -> str:
        """What keeps the slices from making up a volume, to follow its title; "" if nothing."""
        if self.first.colours:
            return "holds colours or vectors, not intensities; give the original T1 image"
        if not self.placed:
            return (
                "does not say where its slices lie (no image positions); export it again with all "
                "its header fields"
            )
        if len(self.frames) == 1:
            return "is a two-dimensional image; give a 3-D T1 volume"
        return self.gap

    @property
    def gap(self) -> str:
        """What is wrong with the distances of the slices, to follow its title; "" if nothing."""
        if not self.placed or len(self.frames) < 3:
            return ""
        steps = np.diff(_places(self.frames), axis=0)
        usual = np.median(steps, axis=0)
        mm = float(np.linalg.norm(usual))
        off = np.linalg.norm(steps - usual, axis=1)
        if mm > 0 and off.max() <= _UNEVEN * mm:
            return ""
        lengths = np.linalg.norm(steps, axis=1)
        advice = "give one complete 3-D T1 series"
        if lengths.min() < 0.5 * lengths.max() and lengths.min() < _UNEVEN:
            return (
                "has several slices at one place, and nothing in their headers tells volumes "
                f"apart; {advice}"
            )
        return (
            f"has missing or shifted slices (they lie {lengths.min():.3g} to {lengths.max():.3g} "
            f"mm apart); {advice}"
        )

    @property
    def holds_head(self) -> bool:
        """Whether it is large enough, so no localizer or single slice."""
        return (
            self.placed
            and min(self.shape) >= checks.MIN_VOXELS
            and bool(self.extent.min() >= checks.MIN_EXTENT_MM)
        )


def stacks_of(frames: Iterable[Frame]) -> list[Stack]:
    """All volumes, by series and then in the order of their first files.

    Copies of a file count once. Slices of one series are apart if their size, direction, kind or
    component (magnitude, phase) is not the same, and where several lie at one place, if they
    differ in what slices at one place can differ in: echo, time, inversion, dimension index.
    """
    unique = {frame.identity: frame for frame in reversed(list(frames))}
    by_series: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in reversed(list(unique.values())):
        by_series[frame.series.uid].append(frame)
    keys = _series_keys([group[0] for group in by_series.values()])
    stacks = []
    for uid, group in by_series.items():
        volumes = [
            (part, differs)
            for alike, kind in _alike(group)
            for part, differs in _apart(alike, kind)
        ]
        for number, (part, differs) in enumerate(volumes, start=1):
            key = keys[uid] if len(volumes) == 1 else f"{keys[uid]}.{number}"
            stacks.append(Stack(_sorted(part), key, differs if len(volumes) > 1 else ""))
    return stacks


def _series_keys(firsts: Sequence[Frame]) -> dict[str, str]:
    """What each series is chosen by: its number, and which if several have that number."""
    keys = {}
    for frame in firsts:
        number = frame.series.number
        same = [other.series.uid for other in firsts if other.series.number == number]
        if len(same) == 1 and number:
            keys[frame.series.uid] = number
        else:
            keys[frame.series.uid] = f"{number or 's'}-{same.index(frame.series.uid) + 1}"
    return keys


def _alike(frames: Sequence[Frame]) -> list[tuple[list[Frame], str]]:
    """Slices of one size, direction and kind, with what is special about them."""
    groups: list[tuple[tuple[object, ...], FloatArray, list[Frame]]] = []
    for frame in frames:
        plain = (frame.shape, frame.spacing, frame.colours, frame.kind, frame.component)
        directions = np.array(frame.directions or [np.inf] * 6)
        for known, axes, members in groups:
            # Cosines of one volume may differ in their last digits.
            same = (
                np.array_equal(axes, directions)
                or np.abs(axes - directions).max() < _SAME_DIRECTION
            )
            if known == plain and same and _is_placed(members[0]) == _is_placed(frame):
                members.append(frame)
                break
        else:
            groups.append((plain, directions, [frame]))
    components = {members[0].component for _, _, members in groups}
    named = len(components) > 1
    return [(members, members[0].component.lower() if named else "") for _, _, members in groups]


def _apart(frames: list[Frame], so_far: str) -> list[tuple[list[Frame], str]]:
    """Volumes whose slices lie at the same places."""
    if not _is_placed(frames[0]):
        return [(frames, so_far)]
    places: defaultdict[tuple[float, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        assert frame.position is not None
        places[tuple(round(x, _SAME_PLACE) for x in frame.position)].append(frame)
    shared = [group for group in places.values() if len(group) > 1]
    for name in dict.fromkeys(name for group in shared for frame in group for name in frame.varied):
        if any(len({frame.varied.get(name) for frame in group}) > 1 for group in shared):
            parts: defaultdict[str, list[Frame]] = defaultdict(list)
            for frame in frames:
                parts[frame.varied.get(name, "-")].append(frame)
            return [
                volume
                for value, part in parts.items()
                for volume in _apart(part, ", ".join(t for t in (so_far, f"{name} {value}") if t))
            ]
    return [(frames, so_far)]


def _sorted(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    if not _is_placed(frames[0]):
        return tuple(frames)
    along = _places(frames) @ _normal(frames[0])
    return tuple(frames[index] for index in np.argsort(along, kind="stable"))


def _is_placed(frame: Frame) -> bool:
    return None not in (frame.position, frame.directions, frame.spacing)


def _places(frames: Sequence[Frame]) -> FloatArray:
    return np.array([frame.position for frame in frames], dtype=np.float64)


def _normal(frame: Frame) -> FloatArray:
    assert frame.directions is not None
    return np.cross(frame.directions[:3], frame.directions[3:])
