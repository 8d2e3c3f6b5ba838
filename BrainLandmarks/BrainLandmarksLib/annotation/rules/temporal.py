"""Temporal lobe: pole, hippocampus, amygdala, horn, and two outlines across the hippocampus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.annotation.anatomy import ANTERIOR, RIGHT, SIDES, Anatomy, Points, lateral
from BrainLandmarksLib.annotation.labelmap import (
    AMYGDALA,
    BRAIN_STEM,
    CRUMB_MM3,
    FOURTH_VENTRICLE,
    HEMISPHERE,
    HIPPOCAMPUS,
    TEMPORAL_HORN,
)
from BrainLandmarksLib.annotation.outline import PlaneSection, SectionPlane, exit_along

RAYS_DEG = {"SL": 25.0, "L": 0.0, "IL": -40.0, "I": -80.0}
"""Directions from the hippocampal centre to the surface: lateral is 0, superior 90 degrees."""

MEDIAL_DEG = -150.0
"""Direction to the medial surface: medially and 30 degrees down, through the parahippocampus."""

OUTLINE_CLOSING_MM = 8.0
"""Sulci narrower than twice this are bridged."""

MEDIAL_CLOSING_MM = 3.0
"""The same on the medial side, where wide gaps are cisterns."""

HORN_TIP_MM = 3.0

SMALLEST_HIPPOCAMPUS_MM3 = 200.0

SHORTEST_HIPPOCAMPUS_MM = 28.0
"""A shorter label, or one that does not run forwards, is a damaged piece, not a hippocampus."""


@dataclass(frozen=True)
class Hippocampus:
    """Long axis (unit vector, forwards) and cross-section centres, head frame mm."""

    axis: np.ndarray
    head: np.ndarray
    body: np.ndarray
    tail: np.ndarray


def temporal_lobe(anatomy: Anatomy) -> Points:
    """Points of the temporal group."""
    found: Points = {}
    both = {}
    for side in SIDES:
        hippocampus = _hippocampus(anatomy, side)
        amygdala = anatomy.head.centre(AMYGDALA[side])
        amygdala = None if amygdala is None else anatomy.frame.to_head(amygdala)
        found[f"AMY_{side}"] = amygdala
        found[f"TH_{side}"] = _horn_tip(anatomy, side, amygdala)
        found[f"TP_{side}"] = _pole(anatomy, side, amygdala)
        for name in ("HIP_H", "HIP_B", "HIP_T"):
            found[f"{name}_{side}"] = None
        for name in (*RAYS_DEG, "M"):
            found[f"TOH_{name}_{side}"] = found[f"TOB_{name}_{side}"] = None
        if hippocampus is None:
            continue
        both[side] = hippocampus
        found[f"HIP_H_{side}"] = hippocampus.head
        found[f"HIP_B_{side}"] = hippocampus.body
        found[f"HIP_T_{side}"] = hippocampus.tail
    across = _common_axis(both)
    for side, hippocampus in both.items():
        if not anatomy.complete(side):
            continue
        for prefix, centre in (("TOH", hippocampus.head), ("TOB", hippocampus.body)):
            for name, point in _outline(anatomy, side, across, centre).items():
                found[f"{prefix}_{name}_{side}"] = point
    found["BSP_M"] = _midline_point(anatomy, both)
    return found


def _hippocampus(anatomy: Anatomy, side: str) -> Hippocampus | None:
    points = anatomy.frame.to_head(anatomy.head.largest(HIPPOCAMPUS[side]))
    if len(points) * anatomy.head.voxel_mm3 < SMALLEST_HIPPOCAMPUS_MM3:
        return None
    centre = points.mean(0)
    axis = np.linalg.svd(points - centre, full_matrices=False)[2][0]
    axis = axis if axis @ ANTERIOR > 0 else -axis
    along_axis = (points - centre) @ axis
    low, high = np.percentile(along_axis, [0.5, 99.5])
    if high - low < SHORTEST_HIPPOCAMPUS_MM or axis @ ANTERIOR < 0.5:
        return None

    def cross_section(share_from_front: float) -> np.ndarray:
        level = high - share_from_front * (high - low)
        # A slab of 3 mm with soft edges, so that the centre moves smoothly with the level.
        weight = np.clip(2.0 - np.abs(along_axis - level), 0, 1)
        return np.average(points, axis=0, weights=weight)

    return Hippocampus(axis, cross_section(1 / 6), cross_section(1 / 2), cross_section(5 / 6))


def _common_axis(both: dict[str, Hippocampus]) -> np.ndarray:
    """Long axis of the hippocampi as seen from the side, the mean of left and right.

    The planes across it are the oblique coronal ones of clinical practice: they contain the
    left-right direction. Across each hippocampus' own axis the outline would swing by several
    millimetres with how much that hippocampus diverges from the midline.
    """
    if not both:
        return ANTERIOR
    mean = np.sum([h.axis for h in both.values()], axis=0)
    mean = mean - (mean @ RIGHT) * RIGHT
    size = np.linalg.norm(mean)
    return mean / size if size > 0 else ANTERIOR


def _horn_tip(anatomy: Anatomy, side: str, amygdala: np.ndarray | None) -> np.ndarray | None:
    """Front end of the temporal horn: the outer half of its most anterior 3 mm.

    In front the horn is a slit that bends round the amygdala, and labels reach far up its inner
    side; experts put the tip where it ends outside. The horn is thin and its label often falls into
    pieces; crumbs and pieces far from the amygdala do not count as its tip.
    """
    best: np.ndarray | None = None
    for piece in anatomy.head.pieces(TEMPORAL_HORN[side]):
        points = anatomy.frame.to_head(piece)
        if len(points) * anatomy.head.voxel_mm3 < CRUMB_MM3:
            continue
        outwards = points @ lateral(side)
        front = points[:, 1].max()
        weight = np.clip(points[:, 1] - (front - HORN_TIP_MM), 0, None)
        middle = np.average(outwards, weights=weight)
        tip = np.average(points, axis=0, weights=weight * (outwards >= middle))
        tip[1] = front
        if best is None or tip[1] > best[1]:
            best = tip
    if best is None or amygdala is None or np.linalg.norm(best - amygdala) > 25.0:
        return None
    return best


def _pole(anatomy: Anatomy, side: str, amygdala: np.ndarray | None) -> np.ndarray | None:
    """Most anterior cortex of the temporal lobe: below the amygdala, so below the Sylvian stem."""
    if amygdala is None or not anatomy.complete(side):
        return None
    inner, outer = sorted((12.0 * lateral(side)[0], 62.0 * lateral(side)[0]))
    low = (inner, amygdala[1] - 12.0, amygdala[2] - 35.0)
    high = (outer, amygdala[1] + 45.0, amygdala[2] - 9.0)
    return anatomy.pole(HEMISPHERE[side], ANTERIOR, low, high)


def _outline(anatomy: Anatomy, side: str, axis: np.ndarray, centre: np.ndarray) -> Points:
    """Where rays from the hippocampal centre, in the oblique coronal plane, meet the surface."""
    out = lateral(side)
    up = np.cross(axis, out)
    up = up if up[2] > 0 else -up
    frame = anatomy.frame
    plane = SectionPlane(frame.to_ras(centre), frame.axes @ out, frame.axes @ up)
    tissue = HEMISPHERE[side] + HIPPOCAMPUS[side] + AMYGDALA[side] + TEMPORAL_HORN[side]
    section = PlaneSection.of(plane, anatomy.head.field(tissue), (-45, 75), (-60, 70))
    closed = section.closed(OUTLINE_CLOSING_MM)
    found: Points = {}
    for name, degrees in RAYS_DEG.items():
        found[name] = _ray(closed.at, degrees, centre, out, up, last=True)
    # The other side of the cistern must not be bridged, the hippocampal fissure must.
    found["M"] = _ray(section.closed(MEDIAL_CLOSING_MM).at, MEDIAL_DEG, centre, out, up, last=False)
    return found


def _ray(
    value: Callable[[np.ndarray], np.ndarray],
    degrees: float,
    centre: np.ndarray,
    out: np.ndarray,
    up: np.ndarray,
    *,
    last: bool,
) -> np.ndarray | None:
    """Where a ray in the plane (out, up) through ``centre`` leaves a section."""
    angle = np.deg2rad(degrees)
    direction = np.array([np.cos(angle), np.sin(angle)])
    point = exit_along(value, np.zeros(2), direction, 70.0, last=last)
    return None if point is None else centre + point[0] * out + point[1] * up


def _midline_point(anatomy: Anatomy, both: dict[str, Hippocampus]) -> np.ndarray | None:
    """Dorsal brain-stem surface on the MSP, in the plane of the two hippocampal axes."""
    if len(both) < 2:
        return None
    points = np.array([p for h in both.values() for p in (h.head, h.body, h.tail)])
    # The best plane that contains the left-right direction: its trace on the MSP is a line.
    slope, height = np.polyfit(points[:, 1], points[:, 2], 1)
    direction = np.array([0.0, -1.0, -slope]) / np.hypot(1.0, slope)
    start = np.array([0.0, -15.0, height - 15.0 * slope])
    stem = anatomy.head.field(BRAIN_STEM + FOURTH_VENTRICLE)
    point = anatomy.exit(stem, start, direction, 40.0, last=True)
    return None if point is None else point - (point @ RIGHT) * RIGHT
