"""Corpus callosum: thirteen points on its outline on the mid-sagittal plane."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from BrainLandmarksLib.annotation.anatomy import Anatomy, Points, on_midline
from BrainLandmarksLib.annotation.labelmap import CEREBRAL_WHITE, CORPUS_CALLOSUM
from BrainLandmarksLib.annotation.outline import (
    STEP_MM,
    PlaneSection,
    along,
    between,
    crossings,
    exit_along,
    extreme,
    nearest,
    resampled,
    spread,
)
from BrainLandmarksLib.geometry.curves import arc_lengths

LABELS = (
    "CC_R",
    "CC_G",
    "CC_U1",
    "CC_U2",
    "CC_T",
    "CC_U3",
    "CC_I",
    "CC_S",
    "CC_ST",
    "CC_L1",
    "CC_L2",
    "CC_L3",
    "CC_GI",
)

ISTHMUS = 11 / 15
"""Middle of Witelson's isthmus (2/3 to 4/5) on the way from the genu to the splenium."""

INNER_GENU_DEG = 10.0
"""The inner genu lies straight behind the genu and this much upwards: across the bend, clear of the
rostrum, on a contour that the line meets at a right angle."""

OPENING_MM = 1.5
"""What is thinner than twice this is a rest of the fornix, not callosum."""

SHORTEST_MM = 35.0
"""From genu to splenium; what is shorter is a piece of a callosum, or something else."""

WHOLE = 0.9
"""Share of a callosum's section that has to hang together."""

BRIDGED_MM = 2.0
"""A class in pieces is joined over gaps of twice this."""

_ANTERIOR, _SUPERIOR = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def corpus_callosum(anatomy: Anatomy) -> Points:
    """Points of the callosal group, on the outline of the callosum freed of fornix and septum."""
    found: Points = dict.fromkeys(LABELS)
    outline = callosal_outline(anatomy)
    if outline is None or not anatomy.inside(on_midline(outline)):
        return found
    genu, splenium = extreme(outline, _ANTERIOR), extreme(outline, -_ANTERIOR)
    middle = (genu + splenium) / 2
    upper = between(outline, genu, splenium, middle + np.array([0.0, 30.0]))
    top = extreme(upper, _SUPERIOR)
    level = genu[0] + ISTHMUS * (splenium[0] - genu[0])
    crossing = np.flatnonzero((upper[:-1, 0] - level) * (upper[1:, 0] - level) <= 0)
    inner = _inner_genu(outline, genu)
    if len(crossing) == 0 or inner is None:
        return found
    isthmus = upper[crossing[np.argmax(upper[crossing, 1])]]

    lower = between(outline, splenium, genu, middle - np.array([0.0, 10.0]))
    behind = lower[lower[:, 0] < splenium[0] + 0.25 * (genu[0] - splenium[0])]
    tip = nearest(lower, extreme(behind, -_SUPERIOR))[0]
    front = lower[lower[:, 0] > genu[0] - 0.25 * (genu[0] - splenium[0])]
    rostrum = nearest(lower, extreme(front, -_SUPERIOR))[0]
    under = between(outline, tip, rostrum, middle)

    at_top, at_isthmus = nearest(upper, top)[1], nearest(upper, isthmus)[1]
    s = arc_lengths(upper)
    rise = np.vstack([upper[s < at_top], top])
    fall = np.vstack([top, upper[(s > at_top) & (s < at_isthmus)], isthmus])
    below = _stretch(under, tip, inner)
    points = {
        "CC_R": rostrum,
        "CC_G": genu,
        "CC_T": top,
        "CC_I": isthmus,
        "CC_S": splenium,
        "CC_ST": tip,
        "CC_GI": inner,
    }
    points["CC_U1"], points["CC_U2"] = spread(rise, 2)
    (points["CC_U3"],) = spread(fall, 1)
    points["CC_L1"], points["CC_L2"], points["CC_L3"] = spread(below, 3)
    return {label: on_midline(points[label]) for label in LABELS}


def _inner_genu(outline: np.ndarray, genu: np.ndarray) -> np.ndarray | None:
    """Where the line from the genu backwards and a little upwards leaves the callosum."""
    angle = np.deg2rad(INNER_GENU_DEG)
    direction = np.array([-np.cos(angle), np.sin(angle)])
    points = crossings(outline, genu + 0.5 * direction, direction)
    return points[0] if len(points) else None


def callosal_outline(anatomy: Anatomy) -> np.ndarray | None:
    """Closed outline (y, z) of the corpus callosum; None when the map has none.

    A map that has the callosum as a class of its own shows it best. In others, and where that class
    is damaged, it is the white matter that crosses the midline.
    """
    outline = _outline_of_class(anatomy)
    return _outline_in_white_matter(anatomy) if outline is None else outline


def _outline_of_class(anatomy: Anatomy) -> np.ndarray | None:
    """Outline of the map's own callosum; None where it has none, or one in pieces."""
    if not anatomy.head.has(CORPUS_CALLOSUM):
        return None
    section = _section(anatomy, CORPUS_CALLOSUM)
    for candidate in (section, section.closed(BRIDGED_MM)):
        largest = candidate.component(len)
        whole = np.count_nonzero(candidate.values >= 0.5)
        if np.count_nonzero(largest.values >= 0.5) >= WHOLE * whole:
            return _plausible(largest.outline())
    return None


def _section(anatomy: Anatomy, labels: tuple[int, ...]) -> PlaneSection:
    """Structures on the midline, the mean of three planes 1 mm apart."""
    field = anatomy.head.field(labels)
    right = anatomy.frame.axes[:, 0]

    def mean_of_three(ras: np.ndarray) -> np.ndarray:
        return sum(field.at(ras + x * right) for x in (-1.0, 0.0, 1.0)) / 3  # type: ignore[return-value]

    return PlaneSection.of(anatomy.msp, mean_of_three, (-75.0, 75.0), (-25.0, 65.0))


def _plausible(outline: np.ndarray) -> np.ndarray | None:
    """The outline if it may be a callosum's: closed, and long from front to back."""
    if len(outline) < 20 or not np.allclose(outline[0], outline[-1]):
        return None
    return outline if np.ptp(outline[:, 0]) >= SHORTEST_MM else None


def _outline_in_white_matter(anatomy: Anatomy) -> np.ndarray | None:
    """Outline of the white matter that crosses the midline, without fornix and septum.

    They hang from it, and are cut off where the white matter, seen from the upper contour along its
    normals, is much thicker than the callosum beside it.
    """
    section = _section(anatomy, CEREBRAL_WHITE["L"] + CEREBRAL_WHITE["R"] + CORPUS_CALLOSUM)
    section = section.component(len)
    outline = _plausible(section.outline())
    if outline is None:
        return None
    genu, splenium = extreme(outline, _ANTERIOR), extreme(outline, -_ANTERIOR)
    upper = between(outline, genu, splenium, (genu + splenium) / 2 + np.array([0.0, 30.0]))
    upper = resampled(upper)
    thickness = _thickness(section, upper)
    # Distance of every pixel from the upper contour, against what the callosum may have there.
    size = section.values.shape
    pixels = section.low + np.indices(size).reshape(2, -1).T * STEP_MM
    gap, foot = _distance(upper, pixels)
    s = arc_lengths(upper)
    near_end = np.minimum(s[foot], s[-1] - s[foot]) < 14.0
    allowed = np.where(near_end, 16.0, thickness[foot] + 1.0)
    inside = ((allowed - gap) / 1.0 + 0.5).reshape(size)
    inside = np.where(section.values >= 0.02, inside, 1.0)
    freed = PlaneSection(np.minimum(section.values, inside).astype(np.float32), tuple(section.low))
    # The callosum itself may be as thin as a spike: what lies within its thickness stays.
    below = (gap > thickness[foot]).reshape(size)
    freed = freed.component(len).opened(OPENING_MM, below).component(len)
    return _plausible(freed.outline())


def _thickness(section: PlaneSection, upper: np.ndarray) -> np.ndarray:
    """Callosal thickness along the upper contour, mm, with the fornix' excess taken out."""
    sigma = 3.0 / STEP_MM
    shape = ndimage.gaussian_filter1d(upper, sigma, axis=0, mode="nearest")
    tangent = np.gradient(shape, axis=0)
    # The upper contour runs from front to back, so its left side is below.
    inward = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-9)
    raw = np.full(len(upper), np.nan)
    for k, (point, direction) in enumerate(zip(upper, inward)):
        end = exit_along(section.at, point + 0.75 * direction, direction, 30.0)
        if end is not None:
            raw[k] = np.linalg.norm(end - point)
    raw = np.where(np.isfinite(raw), raw, 30.0)
    width = int(40.0 / STEP_MM) | 1
    low = ndimage.percentile_filter(raw, 25, size=width, mode="nearest")
    capped = np.minimum(raw, 1.15 * low)
    return ndimage.gaussian_filter1d(capped, sigma, mode="nearest")


def _distance(curve: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of points to the vertices of a curve, and the nearest vertex."""
    from scipy.spatial import cKDTree

    return cKDTree(curve).query(points)


def _stretch(curve: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Part of an open curve between two of its points."""
    first, last = nearest(curve, start)[1], nearest(curve, end)[1]
    return along(curve, np.linspace(first, last, max(3, int((last - first) / STEP_MM) + 2)))
