"""Rules that help a person correct landmarks: equal spacing, a common plane, the brain's surface.

They know the protocol's chains and planes and the points that are there, nothing of Slicer; the
module and batch correction use the same functions. Points are RAS mm, NaN where missing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import FloatArray
from BrainLandmarksLib.images import Volume
from BrainLandmarksLib.protocol import Chain, Landmark, Protocol

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

SEARCH_MM = 8.0
"""How far from a point the brain's surface is looked for."""

_STEP_MM = 0.25
_SMOOTHING_MM = 0.75
_FINE_STEPS = 200
_SPACING_ROUNDS = 20


def respaced(protocol: Protocol, points: npt.ArrayLike, group: str) -> FloatArray:
    """Secondary points of a group's chains, moved to equal arc lengths between the primary ones.

    The outline is the smooth curve (cubic spline) through the chain's present points, so a point
    slides along the outline and does not leave it. In a closed chain without primary points all
    points slide, together as little as possible.

    Args:
        points: (K, 3).

    Returns:
        (K, 3); chains of which a point is missing stay as they are.

    Raises:
        UserError: the protocol has no such group, or the group has no chain of points.
    """
    protocol.members(group)
    chains = [chain for chain in protocol.chains if chain.group == group]
    if not chains:
        raise UserError(f"{group} has no points that are spread at equal distances.")
    result = np.array(points, float)
    for chain in chains:
        rows = [protocol.by_label(label).index - 1 for label in chain.members]
        if np.isfinite(result[rows]).all():
            result[rows] = _spread(result[rows], chain, protocol)
    return result


def _spread(points: FloatArray, chain: Chain, protocol: Protocol) -> FloatArray:
    fixed = [
        k
        for k, label in enumerate(chain.members)
        if protocol.by_label(label).role == "primary" or (not chain.closed and _is_end(k, chain))
    ]
    if chain.closed and not fixed:
        return _spread_ring(points)
    if chain.closed:
        points = np.vstack([points, points[:1]])
        fixed = [*fixed, len(points) - 1]
    moved = points.copy()
    for first, last in pairwise(fixed):
        if last - first > 1:
            # The curve through all points gives the shape also where the stretch has few of them.
            for _ in range(_SPACING_ROUNDS):
                curve = _curve(moved)(np.linspace(first, last, _FINE_STEPS))
                moved[first + 1 : last] = _at_equal_lengths(curve, last - first)[1:-1]
    return moved[: len(chain.members)]


def _is_end(position: int, chain: Chain) -> bool:
    return position in (0, len(chain.members) - 1)


def _spread_ring(points: FloatArray) -> FloatArray:
    count = len(points)
    moved = points
    for _ in range(_SPACING_ROUNDS):
        closed = np.vstack([moved, moved[:1]])
        curve = _curve(closed, periodic=True)(np.linspace(0, count, count * _FINE_STEPS // 4))
        length = _arc(curve)
        equal = np.linspace(0, length[-1], count, endpoint=False)
        present = np.interp(np.arange(count), np.linspace(0, count, len(curve)), length)
        # One common shift: where the points are on average, not where the first one happens to be.
        shift = float(np.mean(present - equal))
        at = (equal + shift) % length[-1]
        moved = np.stack([np.interp(at, length, curve[:, k]) for k in range(3)], -1)
    return moved


def _curve(points: FloatArray, periodic: bool = False) -> CubicSpline:
    from scipy.interpolate import CubicSpline  # the panel opens before SciPy is installed

    return CubicSpline(
        np.arange(len(points)), points, bc_type="periodic" if periodic else "natural"
    )


def _arc(curve: FloatArray) -> FloatArray:
    steps = np.linalg.norm(np.diff(curve, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _at_equal_lengths(curve: FloatArray, parts: int) -> FloatArray:
    length = _arc(curve)
    at = np.linspace(0, length[-1], parts + 1)
    return np.stack([np.interp(at, length, curve[:, k]) for k in range(3)], -1)


# Planes -------------------------------------------------------------------------------------------


def plane_mates(protocol: Protocol, landmark: Landmark) -> list[int]:
    """Rows of the landmarks that by definition lie in one plane with this one, itself included."""
    plane = next((p for p in protocol.planes if p.name == landmark.plane), None)
    if plane is None or plane.shared == "none":
        return [landmark.index - 1]
    return [
        other.index - 1
        for other in protocol.landmarks
        if other.plane == landmark.plane and (plane.shared == "all" or other.side == landmark.side)
    ]


def fitted_plane(points: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Plane through points with the least squared distances, robust against a stray point.

    Args:
        points: (n, 3), NaN rows are left out.

    Returns:
        (point, unit normal).

    Raises:
        UserError: fewer than three points, or all on one line.
    """
    array = np.array(points, float)
    array = array[np.isfinite(array).all(1)]
    if len(array) < 3:
        raise UserError("a plane needs three points; place more of the group first.")
    weights = np.ones(len(array))
    for _ in range(10):
        center = np.average(array, axis=0, weights=weights)
        offset = array - center
        values, vectors = np.linalg.eigh((offset * weights[:, None]).T @ offset)
        normal = vectors[:, 0]
        distance = np.abs(offset @ normal)
        weights = 1.0 / (1.0 + (distance / max(float(np.median(distance)), 0.5)) ** 2)
    if values[1] < 1e-6 * max(values[2], 1e-12):
        raise UserError("a plane needs three points that are not on one line.")
    return center, normal


def projected(protocol: Protocol, points: npt.ArrayLike, group: str) -> FloatArray:
    """Every point of a group moved at right angles onto the plane it shares with others.

    Args:
        points: (K, 3).

    Returns:
        (K, 3).

    Raises:
        UserError: the protocol has no such group, or no plane of it can be told from its points.
    """
    result = np.array(points, float)
    done = 0
    for landmark in protocol.members(group):
        moved = _on_its_plane(protocol, np.array(points, float), landmark, without=False)
        if moved is not None:
            result[landmark.index - 1] = moved
            done += 1
    if not done:
        raise UserError(f"the points of {group} that are placed do not share a plane.")
    return result


def on_plane(protocol: Protocol, points: npt.ArrayLike, label: str) -> FloatArray:
    """One point moved at right angles onto the plane of the others, (3,) RAS mm.

    Raises:
        UserError: the point is missing, or the others do not make a plane.
    """
    landmark = protocol.by_label(label)
    moved = _on_its_plane(protocol, np.array(points, float), landmark, without=True)
    if moved is None:
        raise UserError(f"{label} shares no plane with points that are placed.")
    return moved


def _on_its_plane(
    protocol: Protocol, points: FloatArray, landmark: Landmark, *, without: bool
) -> FloatArray | None:
    row = landmark.index - 1
    mates = [k for k in plane_mates(protocol, landmark) if not (without and k == row)]
    if not np.isfinite(points[row]).all():
        return None
    try:
        center, normal = fitted_plane(points[mates])
    except UserError:
        return None
    return np.asarray(points[row] - ((points[row] - center) @ normal) * normal)


# The brain's surface ------------------------------------------------------------------------------


def on_brain_boundary(
    volume: Volume, point: npt.ArrayLike, inside: npt.ArrayLike, search_mm: float = SEARCH_MM
) -> FloatArray:
    """A point moved along the line from ``inside`` to where the brain ends, (3,) RAS mm.

    On a T1 image the brain is brighter than the fluid round it. Along the line, within
    ``search_mm`` of the point, the steepest fall of the smoothed intensity is the boundary; nearer
    falls count a little more.

    Args:
        volume: the T1 image.
        point: RAS mm.
        inside: RAS mm of a place within the brain, such as the middle of all landmarks.

    Raises:
        UserError: the intensity falls nowhere near the point.
    """
    from scipy import ndimage

    start, middle = np.array(point, float), np.array(inside, float)
    direction = start - middle
    length = float(np.linalg.norm(direction))
    if length == 0:
        raise UserError("the brain's boundary cannot be sought from the point itself.")
    direction /= length
    at = np.arange(-search_mm, search_mm + _STEP_MM, _STEP_MM)
    line = start + at[:, None] * direction
    ijk = volume.grid.ras_to_ijk(line)
    profile = ndimage.map_coordinates(
        np.asarray(volume.data, np.float32), ijk.T, order=1, mode="nearest"
    )
    slope = ndimage.gaussian_filter1d(profile, _SMOOTHING_MM / _STEP_MM, order=1)
    fall = -slope * np.exp(-0.5 * (at / search_mm) ** 2)
    best = int(np.argmax(fall))
    if fall[best] <= 1e-3 * max(float(np.abs(profile).max()), 1e-12):
        raise UserError("no boundary of the brain was found near the point.")
    # Sub-step: the vertex of the parabola through the steepest sample and its neighbours.
    shift = 0.0
    if 0 < best < len(fall) - 1:
        low, top, high = fall[best - 1 : best + 2]
        bend = low - 2 * top + high
        shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
    return np.asarray(start + (at[best] + shift * _STEP_MM) * direction)
