"""Rules that help a person correct landmarks: equal spacing, a common plane, the brain's surface.

They know the protocol's chains and planes and the points that are there, nothing of Slicer; the
module and batch correction use the same functions. Points are RAS mm, NaN where missing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.curves import (
    arc_lengths,
    at_arc_lengths,
    at_equal_arc_lengths,
    spline,
)
from BrainLandmarksLib.geometry.planes import fitted_plane
from BrainLandmarksLib.protocol import Chain, Landmark, Protocol

BELIEVED_MM = 12.0
"""A found outline one of whose points would have to slide farther is none: it stays as it is."""

_FINE_STEPS = 200
_SPACING_ROUNDS = 20


def respaced(
    protocol: Protocol,
    points: npt.ArrayLike,
    group: str,
    trace: Callable[[FloatArray, Chain], FloatArray] | None = None,
) -> FloatArray:
    """Secondary points of a group's chains, moved to equal arc lengths between the primary ones.

    The outline is the smooth curve (cubic spline) through the chain's present points, so a point
    slides along the outline and does not leave it. In a closed chain all points slide, together as
    little as possible.

    Args:
        points: (K, 3).
        trace: Gives the outline of a chain from all points, (K, 3), as `imaging.edges.tracer` does
            on an image; None takes the curve through the points.

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
        if trace is not None:
            # From points that are spread already, the curve to start from is the smoothest.
            curve = trace(result, chain)
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
    return np.asarray(spline(at, chain.closed)(np.linspace(0, steps, steps * parts + 1)))


def outline_steps(points: FloatArray, chain: Chain) -> FloatArray:
    """Arc lengths between neighbours of a chain along its outline, mm; (n, 3) -> (n - 1,) or,
    closed, (n,).
    """
    return np.asarray(np.diff(arc_lengths(outline(points, chain))[::_FINE_STEPS]))


def _spread(points: FloatArray) -> FloatArray:
    moved = points.copy()
    last = len(points) - 1
    for _ in range(_SPACING_ROUNDS):
        curve = spline(moved)(np.linspace(0, last, _FINE_STEPS))
        moved[1:last] = at_equal_arc_lengths(curve, last)[1:-1]
    return moved


def _spread_ring(points: FloatArray) -> FloatArray:
    count = len(points)
    moved = points
    for _ in range(_SPACING_ROUNDS):
        closed = np.vstack([moved, moved[:1]])
        curve = spline(closed, periodic=True)(np.linspace(0, count, count * _FINE_STEPS // 4))
        present = np.interp(np.arange(count), np.linspace(0, count, len(curve)), arc_lengths(curve))
        moved = _round_the_ring(curve, present)
    return moved


def _round_the_ring(curve: FloatArray, present: FloatArray) -> FloatArray:
    """Points at equal distances on a closed curve that are now at the arc lengths ``present``."""
    length = arc_lengths(curve)
    equal = np.linspace(0, length[-1], len(present), endpoint=False)
    # One common shift: where the points are on average, not where the first one happens to be.
    shift = float(np.mean(present - equal))
    return at_arc_lengths(curve, length, (equal + shift) % length[-1])


def _spread_along(curve: FloatArray, chain: Chain, points: FloatArray) -> FloatArray:
    """A chain's points at equal arc lengths of its traced outline; the ends of an open one stay."""
    if not chain.closed:
        result = points.copy()
        result[1:-1] = at_equal_arc_lengths(curve, len(points) - 1)[1:-1]
        return result
    present = arc_lengths(curve)[
        np.linspace(0, len(curve) - 1, len(points) + 1).round().astype(int)[:-1]
    ]
    return _round_the_ring(curve, present)


# Found points -------------------------------------------------------------------------------------


def constrained(protocol: Protocol, points: npt.ArrayLike) -> FloatArray:
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
