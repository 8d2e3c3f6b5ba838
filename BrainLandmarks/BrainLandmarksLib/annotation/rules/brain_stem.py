"""Brain stem: eight points round its outline on the mid-sagittal plane."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from BrainLandmarksLib.annotation.anatomy import Anatomy, Points, on_midline
from BrainLandmarksLib.annotation.labelmap import (
    BRAIN_STEM,
    FOURTH_VENTRICLE,
    PONS,
    SPINAL_CORD,
    VENTRAL_DC,
)
from BrainLandmarksLib.annotation.outline import (
    along,
    between,
    exit_along,
    extreme,
    length,
    nearest,
    resampled,
)
from BrainLandmarksLib.geometry.curves import arc_lengths

TISSUE = BRAIN_STEM + SPINAL_CORD + VENTRAL_DC["L"] + VENTRAL_DC["R"]

LABELS = ("PMN", "PONS_A", "PMD", "CMJ_A", "OBEX", "V4_F", "V4_T", "MB_T")


PONS_MM = (-48.0, -13.0)
"""Where the pons lies in the head frame (z), if the map does not say."""

SHORTEST_PONS_MM = 15.0

NOTCH_MM = 8.0
"""How far above or below the end of a pons of its own the notch may lie."""

CORNER_MM = (1.5, 5.0)
"""How far from the bottom of a notch its two sides are straight: nearer, smoothing rounds them."""

FARTHEST_CORNER_MM = 4.0
SHARPEST_COSINE = 0.87
"""Sides that meet at less than 30 degrees, or farther away, are no corner."""

AS_DEEP = 0.85
APART_MM = 4.0
"""Two notches so far apart, the shallower with this share of the other's depth or more, cannot be
told from each other: which is the deeper one would change with a voxel."""

OBEX_ABOVE_MM = 3.0
"""The obex is at most so much higher than the pontomedullary notch."""

_POSTERIOR = np.array([-1.0, 0.0])


def brain_stem(anatomy: Anatomy) -> Points:
    """Points of the brain-stem group; missing where the map ends or the label is absent."""
    found: Points = dict.fromkeys(LABELS)
    stem = anatomy.midline(TISSUE).component(len)
    curve = stem.outline()
    if len(curve) < 20:
        return found
    low, high = _pons_extent(anatomy) or PONS_MM
    window = curve[(curve[:, 1] > low) & (curve[:, 1] < high)]
    if len(window) < 20:
        return found
    pons = nearest(curve, extreme(window, np.array([1.0, 0.0])))[0]
    found["PONS_A"] = on_midline(pons)
    found["V4_F"] = _met(stem.at, pons + _POSTERIOR, _POSTERIOR)

    notch = _upper_notch(anatomy, pons)
    if notch is not None:
        found["PMN"] = on_midline(notch)
        found["V4_T"] = _met(stem.at, notch + 1.5 * _POSTERIOR, _POSTERIOR)
    groove = _lower_notch(anatomy, curve, pons)
    if groove is not None:
        found["PMD"] = on_midline(groove)
        if notch is not None:
            found["CMJ_A"] = _one_pons_lower(anatomy, curve, pons, notch, groove)

    fourth = anatomy.midline(FOURTH_VENTRICLE).component(_lowest_part).outline()
    if len(fourth) >= 10:
        obex = extreme(fourth, np.array([0.0, -1.0]))
        # Where thin labels break, the lowest part that is left ends far too high.
        low_enough = groove is None or obex[1] < groove[1] + OBEX_ABOVE_MM
        if low_enough and _inside(anatomy, obex):
            found["OBEX"] = on_midline(obex)
    midbrain = anatomy.midline(BRAIN_STEM + FOURTH_VENTRICLE).component(len).outline()
    if len(midbrain) >= 20:
        found["MB_T"] = on_midline(extreme(midbrain, np.array([0.0, 1.0])))
    return found


def _pons_extent(anatomy: Anatomy) -> tuple[float, float] | None:
    """Lowest and highest z of the pons where the map sets it apart from the rest of the stem."""
    outline = anatomy.midline(PONS).component(len).outline()
    if len(outline) < 20 or np.ptp(outline[:, 1]) < SHORTEST_PONS_MM:
        return None
    return float(outline[:, 1].min()), float(outline[:, 1].max())


def _upper_notch(anatomy: Anatomy, pons: np.ndarray) -> np.ndarray | None:
    """Bottom of the notch on the front of the stem, from the pons over the peduncles upwards.

    The aqueduct belongs inside here, or the outline would run into it from above.
    """
    solid = anatomy.midline(TISSUE + FOURTH_VENTRICLE).component(len).outline()
    if len(solid) < 20:
        return None
    top = extreme(solid, np.array([0.0, 1.0]))
    front = between(solid, nearest(solid, pons)[0], top, pons + np.array([0.0, 12.0]))
    front = front[front[:, 1] < 2.0]
    if not anatomy.inside(on_midline(front)):
        return None
    extent = _pons_extent(anatomy)
    bottom = _deepest(front, None if extent is None else extent[1])
    return None if bottom is None else _corner(front, bottom)


def _lower_notch(anatomy: Anatomy, curve: np.ndarray, pons: np.ndarray) -> np.ndarray | None:
    """Bottom of the notch on the front of the stem below the pons."""
    lower = _front_below(curve, pons)
    if length(lower) <= 30.0:
        return None
    medulla = along(lower, np.linspace(0, 35.0, 71)) if length(lower) > 35.0 else lower
    extent = _pons_extent(anatomy)
    return _deepest(medulla, None if extent is None else extent[0])


def _front_below(curve: np.ndarray, pons: np.ndarray) -> np.ndarray:
    """The outline of the stem from the pons down its front to its lower end."""
    bottom = extreme(curve, np.array([0.0, -1.0]))
    return between(curve, pons, bottom, pons + np.array([0.0, -12.0]))


def _one_pons_lower(
    anatomy: Anatomy, curve: np.ndarray, pons: np.ndarray, notch: np.ndarray, groove: np.ndarray
) -> np.ndarray | None:
    """The point one pons height below the pontomedullary notch along the front of the stem."""
    lower = _front_below(curve, pons)
    at = nearest(lower, groove)[1] + float(np.linalg.norm(notch - groove))
    if at >= length(lower) - 2.0:
        return None
    junction = along(lower, at)
    return on_midline(junction) if _inside(anatomy, junction) else None


def _lowest_part(points: np.ndarray) -> float:
    """Preference for the lowest part of the ventricle that is more than a crumb (3 mm2)."""
    return float(-points[:, 1].min()) if len(points) >= 12 else -np.inf


def _met(
    value: Callable[[np.ndarray], np.ndarray], start: np.ndarray, direction: np.ndarray
) -> np.ndarray | None:
    """Midline point where a ray leaves the tissue."""
    point = exit_along(value, start, direction, 45.0)
    return None if point is None else on_midline(point)


def _inside(anatomy: Anatomy, point: np.ndarray) -> bool:
    """Whether a midline point and the 2 mm round it are still in the stored map."""
    around = point + 2.0 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    return bool(anatomy.head.inside(anatomy.msp.to_ras(around)).all())


def _deepest(curve: np.ndarray, level: float | None) -> np.ndarray | None:
    """Deepest point of the concavity of an open curve: farthest behind its convex hull.

    ``level`` is the z of the end of the pons, if it is known: the notch is near it. None if there
    is no notch, or more than one.
    """
    if len(curve) < 3 or length(curve) < 2.0:
        return None
    even = resampled(curve, 0.25)
    hull = _upper_hull(even, _POSTERIOR)
    depth = np.zeros(len(even))
    for a, b in pairwise(hull):
        chord = even[b] - even[a]
        normal = np.array([-chord[1], chord[0]]) / max(np.linalg.norm(chord), 1e-9)
        if normal @ _POSTERIOR < 0:
            normal = -normal
        depth[a : b + 1] = (even[a : b + 1] - even[a]) @ normal
    if level is not None:
        depth[np.abs(even[:, 1] - level) > NOTCH_MM] = 0.0
    if depth.max() <= 0.0:
        return None
    k = int(np.argmax(depth))
    if _another(depth, k, arc_lengths(even)):
        return None
    near = depth > depth[k] - 0.5
    first = last = k
    while first > 0 and near[first - 1]:
        first -= 1
    while last < len(even) - 1 and near[last + 1]:
        last += 1
    index = np.arange(first, last + 1)
    position = np.average(arc_lengths(even)[index], weights=depth[index] - depth[k] + 0.5 + 1e-6)
    return along(even, position)


def _another(depth: np.ndarray, deepest: int, arc: np.ndarray) -> bool:
    """Whether a curve has a second notch, beyond a ridge, that is nearly as deep as its deepest."""
    rises = np.flatnonzero((depth[1:-1] >= depth[:-2]) & (depth[1:-1] > depth[2:])) + 1
    far = np.abs(arc[rises] - arc[deepest]) > APART_MM
    rivals = rises[far & (depth[rises] >= AS_DEEP * depth[deepest])]
    return any(
        depth[min(k, deepest) : max(k, deepest)].min() < AS_DEEP * depth[deepest] for k in rivals
    )


def _corner(curve: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Where the two sides of a notch meet, or its bottom where they make no corner.

    The field of a label map rounds a sharp notch, so its bottom lies 2 mm in front of the corner
    in which experts see it.
    """
    even = resampled(curve, 0.25)
    away = arc_lengths(even) - nearest(even, bottom)[1]
    near, far = CORNER_MM
    sides = [even[(away > -far) & (away < -near)], even[(away > near) & (away < far)]]
    if min(map(len, sides)) < 8:
        return bottom
    middles = [side.mean(axis=0) for side in sides]
    axes = [
        np.linalg.svd(side - middle, full_matrices=False)[2][0]
        for side, middle in zip(sides, middles, strict=True)
    ]
    if abs(axes[0] @ axes[1]) > SHARPEST_COSINE:
        return bottom
    along_first, _ = np.linalg.solve(np.stack([axes[0], -axes[1]], 1), middles[1] - middles[0])
    corner = middles[0] + along_first * axes[0]
    return corner if np.linalg.norm(corner - bottom) <= FARTHEST_CORNER_MM else bottom


def _upper_hull(curve: np.ndarray, inward: np.ndarray) -> list[int]:
    """Indices of the curve points on its convex hull on the side away from ``inward``."""
    chain = [0]
    n = len(curve)
    while chain[-1] < n - 1:
        a = chain[-1]
        step = curve[a + 1 :] - curve[a]
        # The next hull point turns farthest outwards as seen from the last one.
        side = np.array([-inward[1], inward[0]])
        overall = curve[-1] - curve[0]
        if side @ overall < 0:
            side = -side
        angle = np.arctan2(step @ -inward, step @ side)
        best = np.flatnonzero(angle >= angle.max() - 1e-9)[-1]
        chain.append(a + 1 + int(best))
    return chain
