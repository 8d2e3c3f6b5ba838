"""Brain boundary on the mid-sagittal plane, and the frontal points that lean on it."""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.annotation.anatomy import ANTERIOR, SIDES, Anatomy, Points, on_midline
from BrainLandmarksLib.annotation.labelmap import HEMISPHERE
from BrainLandmarksLib.annotation.outline import (
    PlaneSection,
    SectionPlane,
    between,
    crossings,
    extreme,
    nearest,
    spread,
)

SLAB_MM = 6.0
"""Half width of the slab whose silhouette is the boundary: on the exact midline lies the falx."""

CLOSING_MM = 8.0
"""Sulci narrower than twice this are bridged."""

ORBITAL_MM = 10.0
"""Coronal plane of the orbital points, in front of the genu."""

ORBITAL_WIDTH_MM = 15.0
"""How far from the midline the orbital points may lie."""

FRONTAL_BASE_DEG = 40.0
"""From the genu forwards and this much downwards lies the frontal base."""

OCCIPITAL_DEG = 30.0
"""From the splenium backwards and this much downwards lies the occipital end."""

SECONDARY = tuple(f"BB_{k}" for k in range(1, 10))


def midline_contour(anatomy: Anatomy) -> np.ndarray | None:
    """Closed outer contour (y, z) of the cerebrum beside the midline; needs one whole side."""
    if not any(anatomy.complete(side) for side in SIDES):
        return None
    silhouette = anatomy.slab(anatomy.cerebrum, SLAB_MM).closed(CLOSING_MM).component(len)
    outline = silhouette.outline()
    return outline if len(outline) >= 50 else None


def brain_boundary(
    anatomy: Anatomy,
    contour: np.ndarray | None,
    genu: np.ndarray | None,
    splenium: np.ndarray | None,
) -> Points:
    """Frontal base, nine points over the vertex, occipital end.

    Lines from the two ends of the corpus callosum meet the contour almost at a right angle. Its
    corners there would be the more obvious choice, but some heads have two of them.
    """
    found: Points = dict.fromkeys(("BB_F", *SECONDARY, "BB_O"))
    if contour is None or genu is None or splenium is None:
        return found
    base = _outermost(contour, genu, -FRONTAL_BASE_DEG)
    occipital = _outermost(contour, splenium, 180.0 + OCCIPITAL_DEG)
    if base is None or occipital is None:
        return found
    top = contour[np.argmax(contour[:, 1])]
    over = between(contour, base, occipital, top)
    found["BB_F"], found["BB_O"] = on_midline(base), on_midline(occipital)
    if not anatomy.inside(on_midline(over)):
        return found
    for label, point in zip(SECONDARY, spread(over, len(SECONDARY))):
        found[label] = on_midline(point)
    return found


def _outermost(contour: np.ndarray, start: np.ndarray, degrees: float) -> np.ndarray | None:
    """Last crossing of the contour by a line from a midline point; 0 degrees is anterior."""
    angle = np.deg2rad(degrees)
    points = crossings(contour, start[1:], np.array([np.cos(angle), np.sin(angle)]))
    return points[-1] if len(points) else None


def frontal_lobe(anatomy: Anatomy, contour: np.ndarray | None, genu: np.ndarray | None) -> Points:
    """Frontal poles, midline boundary at the level of the genu, lowest orbital points."""
    found: Points = dict.fromkeys(("FP_L", "FP_R", "FB_M", "GR_L", "GR_R"))
    for side in filter(anatomy.complete, SIDES):
        labels = HEMISPHERE[side]
        inner, outer = (-40.0, -1.0) if side == "L" else (1.0, 40.0)
        found[f"FP_{side}"] = anatomy.pole(
            labels, ANTERIOR, (inner, 25.0, -35.0), (outer, 95.0, 50.0)
        )
        if genu is not None:
            found[f"GR_{side}"] = _lowest_orbital(anatomy, side, genu)
    if contour is not None and genu is not None:
        point = _outermost(contour, genu, 0.0)
        found["FB_M"] = None if point is None else on_midline(point)
    return found


def _lowest_orbital(anatomy: Anatomy, side: str, genu: np.ndarray) -> np.ndarray | None:
    """Lowest point of the orbital surface near the midline, in one coronal plane."""
    frame, level = anatomy.frame, genu[1] + ORBITAL_MM
    plane = SectionPlane(
        frame.to_ras(np.array([0.0, level, 0.0])), frame.axes[:, 0], frame.axes[:, 2]
    )
    field = anatomy.head.field(HEMISPHERE[side])
    section = PlaneSection.of(plane, field, (-45.0, 45.0), (-70.0, genu[2] + 25.0))
    outline = section.closed(CLOSING_MM).component(len).outline()
    if len(outline) < 20:
        return None
    off_midline = np.abs(outline[:, 0])
    near = (off_midline < ORBITAL_WIDTH_MM) & (outline[:, 1] < genu[2])
    if near.sum() < 5:
        return None
    x, z = nearest(outline, extreme(_longest_run(outline, near), np.array([0.0, -1.0]), 3.0))[0]
    return np.array([x, level, z])


def _longest_run(outline: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Longest unbroken stretch of a closed outline whose points are chosen."""
    points, flags = outline[:-1], chosen[:-1]
    first = int(np.argmin(flags))
    points, flags = np.roll(points, -first, axis=0), np.roll(flags, -first)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    runs = [points[a:b] for a, b in zip(edges[::2], edges[1::2])]
    return max(runs, key=len)
