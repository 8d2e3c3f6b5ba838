"""Rules that help a person correct landmarks: equal spacing, a common plane, the brain's surface.

They know the protocol's chains and planes and the points that are there, nothing of Slicer; the
module and batch correction use the same functions. Points are RAS mm, NaN where missing.
"""

from __future__ import annotations

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

TRACE_MM = 3.0
"""How far from the curve through the points an outline is traced."""

BELIEVED_MM = 12.0
"""A found outline one of whose points would have to slide farther is none: it stays as it is."""

_STEP_MM = 0.25
_SMOOTHING_MM = 0.75
_FINE_STEPS = 200
_SPACING_ROUNDS = 20
_TRACE_PARTS = 24
_BEND_COST = 0.3
_STRAY_COST = 0.05
_SLABS_MM = ((0.0,), (-6.0, -3.0, 0.0, 3.0, 6.0))


def respaced(
    protocol: Protocol, points: npt.ArrayLike, group: str, volume: Volume | None = None
) -> FloatArray:
    """Secondary points of a group's chains, moved to equal arc lengths between the primary ones.

    The outline is the smooth curve (cubic spline) through the chain's present points, so a point
    slides along the outline and does not leave it. In a closed chain all points slide, together as
    little as possible. With an image the outline is traced on it first (:func:`traced`).

    Args:
        points: (K, 3).
        volume: The image to trace the outline on; None takes the curve through the points.

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
        rows = chain_rows(protocol, chain)
        if not np.isfinite(result[rows]).all():
            continue
        result[rows] = (_spread_ring if chain.closed else _spread)(result[rows])
        if volume is not None:
            # From points that are spread already, the curve to start from is the smoothest.
            curve = traced(volume, protocol, result, chain)
            result[rows] = _spread_along(curve, chain, result[rows])
    return result


def chain_rows(protocol: Protocol, chain: Chain) -> list[int]:
    """Rows of a chain's landmarks, in its order."""
    return [protocol.by_label(label).index - 1 for label in chain.members]


def outline(points: FloatArray, chain: Chain, parts: int = _FINE_STEPS) -> FloatArray:
    """Smooth curve (cubic spline) through a chain's points, (n, 3) -> (steps * parts + 1, 3).

    Sample ``k * parts`` is point k; a closed chain returns to its first point.
    """
    at = np.vstack([points, points[:1]]) if chain.closed else points
    steps = len(at) - 1
    return np.asarray(_curve(at, chain.closed)(np.linspace(0, steps, steps * parts + 1)))


def outline_steps(points: FloatArray, chain: Chain) -> FloatArray:
    """Arc lengths between neighbours of a chain along its outline, mm; (n, 3) -> (n - 1,) or,
    closed, (n,).
    """
    return np.asarray(np.diff(_arc(outline(points, chain))[::_FINE_STEPS]))


def _spread(points: FloatArray) -> FloatArray:
    moved = points.copy()
    last = len(points) - 1
    for _ in range(_SPACING_ROUNDS):
        curve = _curve(moved)(np.linspace(0, last, _FINE_STEPS))
        moved[1:last] = _at_equal_lengths(curve, last)[1:-1]
    return moved


def _spread_ring(points: FloatArray) -> FloatArray:
    count = len(points)
    moved = points
    for _ in range(_SPACING_ROUNDS):
        closed = np.vstack([moved, moved[:1]])
        curve = _curve(closed, periodic=True)(np.linspace(0, count, count * _FINE_STEPS // 4))
        present = np.interp(np.arange(count), np.linspace(0, count, len(curve)), _arc(curve))
        moved = _round_the_ring(curve, present)
    return moved


def _round_the_ring(curve: FloatArray, present: FloatArray) -> FloatArray:
    """Points at equal distances on a closed curve that are now at the arc lengths ``present``."""
    length = _arc(curve)
    equal = np.linspace(0, length[-1], len(present), endpoint=False)
    # One common shift: where the points are on average, not where the first one happens to be.
    shift = float(np.mean(present - equal))
    return _at(curve, length, (equal + shift) % length[-1])


def _spread_along(curve: FloatArray, chain: Chain, points: FloatArray) -> FloatArray:
    """A chain's points at equal arc lengths of its traced outline; the ends of an open one stay."""
    if not chain.closed:
        result = points.copy()
        result[1:-1] = _at_equal_lengths(curve, len(points) - 1)[1:-1]
        return result
    present = _arc(curve)[np.linspace(0, len(curve) - 1, len(points) + 1).round().astype(int)[:-1]]
    return _round_the_ring(curve, present)


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
    return _at(curve, length, np.linspace(0, length[-1], parts + 1))


def _at(curve: FloatArray, length: FloatArray, at: FloatArray) -> FloatArray:
    """Points of a curve at arc lengths, given the arc lengths of its samples."""
    return np.stack([np.interp(at, length, curve[:, k]) for k in range(3)], -1)


# Found points -------------------------------------------------------------------------------------


def conforming(protocol: Protocol, points: npt.ArrayLike) -> FloatArray:
    """Points that a model found, as the guidelines have them: flat groups, evenly spread outlines.

    A network places every point on its own. That the points of a plane are coplanar and those of an
    outline equidistant is known beforehand (paper, section IV-B), so what they lack of it is error.

    Args:
        points: (K, 3), NaN where missing.

    Returns:
        (K, 3). Primary landmarks stay at the ends of their outlines. An outline of which a point is
        missing, or would slide more than `BELIEVED_MM`, is not touched.
    """
    found = np.array(points, float)
    result = found.copy()
    for landmark in protocol.landmarks:
        moved = _on_its_plane(protocol, found, landmark, without=False)
        if moved is not None:
            result[landmark.index - 1] = moved
    for name in dict.fromkeys(chain.group for chain in protocol.chains):
        spread = respaced(protocol, result, name)
        for chain in (chain for chain in protocol.chains if chain.group == name):
            rows = chain_rows(protocol, chain)
            if (np.linalg.norm(spread - result, axis=1)[rows] <= BELIEVED_MM).all():
                result[rows] = spread[rows]
    return result


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


def projected(
    protocol: Protocol, points: npt.ArrayLike, group: str, *, primary: bool = True
) -> FloatArray:
    """Every point of a group moved at right angles onto the plane it shares with others.

    Args:
        points: (K, 3).
        primary: Whether primary landmarks move, too; the plane is that of all points either way.

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
            if primary or landmark.role != "primary":
                result[landmark.index - 1] = moved
            done += 1
    if not done:
        raise UserError(f"the points of {group} that are placed do not share a plane.")
    return result


def flattened(
    protocol: Protocol, points: FloatArray, group: str, *, primary: bool = True
) -> FloatArray:
    """:func:`projected`, but a group whose points share no plane with others stays as it is.

    Raises:
        UserError: the protocol has no such group.
    """
    protocol.members(group)
    try:
        return projected(protocol, points, group, primary=primary)
    except UserError:
        return points


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


# Edges in the image -------------------------------------------------------------------------------


def traced(volume: Volume, protocol: Protocol, points: npt.ArrayLike, chain: Chain) -> FloatArray:
    """The outline that a chain's points follow, traced on the image from point to point.

    Starts from the smooth curve through the points and moves it, in the plane that they share, onto
    the edge that they follow: where the smoothed intensity falls, or rises, most across the
    curve, whichever it does on average at the curve. Intensities are those of the plane or, if the
    edge is clearer there, of a slab 6 mm to either side: on the midline itself lies the falx. The
    path with the least cost of missed edge and of bends is found by dynamic programming, within
    ``TRACE_MM`` of the curve. The ends of an open chain are primary landmarks and stay.

    Args:
        volume: the image that was annotated.
        points: (K, 3); those of the chain must be there.

    Returns:
        (m, 3) RAS mm, samples at equal steps from point to point; of a closed chain the last is the
        first again.

    Raises:
        UserError: the points lie on one line, so the plane of the outline is not known.
    """
    from scipy import ndimage

    array = np.array(points, float)
    mates = plane_mates(protocol, protocol.by_label(chain.members[0]))
    rows = chain_rows(protocol, chain)
    _, normal = fitted_plane(array[mates if len(mates) > 1 else rows])
    curve = outline(array[rows], chain, _TRACE_PARTS)
    loop = curve[:-1] if chain.closed else curve
    tangent = np.gradient(np.vstack([loop[-1:], loop, loop[:1]]) if chain.closed else loop, axis=0)
    across = np.cross(normal, tangent[1:-1] if chain.closed else tangent)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    at = np.arange(-TRACE_MM, TRACE_MM + _STEP_MM / 2, _STEP_MM)
    lines = loop[:, None] + at[:, None] * across[:, None]
    near = np.abs(at) <= TRACE_MM / 2
    slopes = [
        np.mean([_profiles(volume, lines + mm * normal)[1] for mm in slab], axis=0)
        for slab in _SLABS_MM
    ]
    slope = max(slopes, key=lambda each: abs(each[:, near].mean()))
    edge = np.clip(slope * np.sign(slope[:, near].mean() or 1.0), 0, None)
    strong = float(np.quantile(edge.max(axis=1), 0.5))
    edge = np.clip(edge / strong, 0, 1) if strong > 0 else edge
    cost = _STRAY_COST * (at / TRACE_MM) ** 2 - edge
    offset = at[_cheapest_path(cost, at / _STEP_MM, chain.closed)]
    offset = ndimage.gaussian_filter1d(offset, 2.0, mode="wrap" if chain.closed else "nearest")
    if not chain.closed:
        offset[[0, -1]] = 0.0
    path = loop + offset[:, None] * across
    return np.asarray(np.vstack([path, path[:1]]) if chain.closed else path)


def _cheapest_path(cost: FloatArray, at: FloatArray, closed: bool) -> npt.NDArray[np.intp]:
    """Column of each row of (n, m) costs; bends cost extra.

    An open path begins and ends in the middle column; a closed one ends where it begins.
    """
    count, width = cost.shape
    bend = _BEND_COST * (at[:, None] - at) ** 2
    if closed:
        # Three rounds: the middle one begins and ends alike, whatever the outer ones do.
        cost = np.tile(cost, (3, 1))
    else:
        pinned = np.full(width, np.inf)
        pinned[width // 2] = 0.0
        cost = cost.copy()
        cost[0], cost[-1] = pinned, pinned
    total = cost[0]
    origins = np.zeros(cost.shape, np.intp)
    for row in range(1, len(cost)):
        through = total[:, None] + bend
        origins[row] = through.argmin(axis=0)
        total = through[origins[row], np.arange(width)] + cost[row]
    path = np.empty(len(cost), np.intp)
    path[-1] = total.argmin()
    for row in range(len(cost) - 1, 0, -1):
        path[row - 1] = origins[row, path[row]]
    return path[count : 2 * count] if closed else path


def _profiles(volume: Volume, lines: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intensity along lines of points `_STEP_MM` apart, (..., n, 3), and its smooth derivative."""
    from scipy import ndimage

    ijk = volume.grid.ras_to_ijk(lines)
    profile = ndimage.map_coordinates(
        np.asarray(volume.data, np.float32), np.moveaxis(ijk, -1, 0), order=1, mode="nearest"
    )
    slope = ndimage.gaussian_filter1d(profile, _SMOOTHING_MM / _STEP_MM, axis=-1, order=1)
    return np.asarray(profile, float), np.asarray(slope, float)


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
    start, middle = np.array(point, float), np.array(inside, float)
    direction = start - middle
    length = float(np.linalg.norm(direction))
    if length == 0:
        raise UserError("the brain's boundary cannot be sought from the point itself.")
    direction /= length
    at = np.arange(-search_mm, search_mm + _STEP_MM, _STEP_MM)
    line = start + at[:, None] * direction
    profile, slope = _profiles(volume, line)
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
