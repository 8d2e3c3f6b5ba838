"""Brain stem: eight points round its outline on the mid-sagittal plane."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from .anatomy import Anatomy, Points, on_midline
from .labelmap import BRAIN_STEM, FOURTH_VENTRICLE, SPINAL_CORD, VENTRAL_DC
from .outline import along, arc, between, exit_along, extreme, length, nearest, resampled

TISSUE = BRAIN_STEM + SPINAL_CORD + VENTRAL_DC["L"] + VENTRAL_DC["R"]

LABELS = ("PMN", "PONS_A", "PMD", "CMJ_A", "OBEX", "V4_F", "V4_T", "MB_T")


def brain_stem(anatomy: Anatomy) -> Points:
    """Points of the brain-stem group; missing where the map ends or the label is absent."""
    found: Points = dict.fromkeys(LABELS)
    stem = anatomy.midline(TISSUE).component(len)
    curve = stem.outline()
    if len(curve) < 20:
        return found
    window = curve[(curve[:, 1] > -48) & (curve[:, 1] < -13)]
    if len(window) < 20:
        return found
    pons = extreme(window, np.array([1.0, 0.0]))
    pons = nearest(curve, pons)[0]
    found["PONS_A"] = on_midline(pons)

    # The front of the stem, from the pons up over the peduncles to the hypothalamus; the aqueduct
    # belongs inside here, or the outline would run into it from above.
    solid = anatomy.midline(TISSUE + FOURTH_VENTRICLE).component(len).outline()
    top = extreme(solid, np.array([0.0, 1.0]))
    front = between(solid, nearest(solid, pons)[0], top, pons + np.array([0.0, 12.0]))
    notch = _deepest(front[front[:, 1] < 2.0], np.array([-1.0, 0.0]))
    found["PMN"] = on_midline(notch)

    bottom = extreme(curve, np.array([0.0, -1.0]))
    lower = between(curve, pons, bottom, pons + np.array([0.0, -12.0]))
    if length(lower) > 30.0:
        medulla = along(lower, np.linspace(0, 35.0, 71)) if length(lower) > 35.0 else lower
        groove = _deepest(medulla, np.array([-1.0, 0.0]))
        found["PMD"] = on_midline(groove)
        height = float(np.linalg.norm(notch - groove))
        at = nearest(lower, groove)[1] + height
        junction = along(lower, at) if at < length(lower) - 2.0 else None
        if junction is not None and _inside(anatomy, junction):
            found["CMJ_A"] = on_midline(junction)

    fourth = anatomy.midline(FOURTH_VENTRICLE).component(_lowest_part).outline()
    if len(fourth) >= 10:
        obex = extreme(fourth, np.array([0.0, -1.0]))
        if _inside(anatomy, obex):
            found["OBEX"] = on_midline(obex)
    posterior = np.array([-1.0, 0.0])
    found["V4_F"] = _met(stem.at, pons + posterior, posterior)
    found["V4_T"] = _met(stem.at, notch + 1.5 * posterior, posterior)
    midbrain = anatomy.midline(BRAIN_STEM + FOURTH_VENTRICLE).component(len).outline()
    found["MB_T"] = on_midline(extreme(midbrain, np.array([0.0, 1.0])))
    return found


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


def _deepest(curve: np.ndarray, inward: np.ndarray) -> np.ndarray:
    """Deepest point of the concavity of an open curve: farthest from its convex hull, inwards."""
    even = resampled(curve, 0.25)
    hull = _upper_hull(even, inward)
    depth = np.zeros(len(even))
    for a, b in pairwise(hull):
        chord = even[b] - even[a]
        normal = np.array([-chord[1], chord[0]]) / max(np.linalg.norm(chord), 1e-9)
        if normal @ inward < 0:
            normal = -normal
        depth[a : b + 1] = (even[a : b + 1] - even[a]) @ normal
    k = int(np.argmax(depth))
    near = depth > depth[k] - 0.5
    first = last = k
    while first > 0 and near[first - 1]:
        first -= 1
    while last < len(even) - 1 and near[last + 1]:
        last += 1
    index = np.arange(first, last + 1)
    position = np.average(arc(even)[index], weights=depth[index] - depth[k] + 0.5 + 1e-6)
    return along(even, position)


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
