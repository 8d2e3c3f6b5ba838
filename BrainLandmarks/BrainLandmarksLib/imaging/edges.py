"""Outlines and boundaries traced on the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.planes import fitted_plane
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import Chain, Protocol
from BrainLandmarksLib.protocol.constraints import chain_rows, outline, plane_mates

SEARCH_MM = 8.0
"""How far from a point the brain's surface is looked for."""

TRACE_MM = 3.0
"""How far from the curve through the points an outline is traced."""

_STEP_MM = 0.25
_SMOOTHING_MM = 0.75

_LABEL_SIGMA_VOXELS = 0.85
_ROUNDS = 12

_TRACE_PARTS = 24
_BEND_COST = 0.3
_STRAY_COST = 0.05
_SLABS_MM = ((0.0,), (-6.0, -3.0, 0.0, 3.0, 6.0))


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


def tracer(volume: Volume, protocol: Protocol) -> Callable[[FloatArray, Chain], FloatArray]:
    """What :func:`constraints.respaced` takes to follow the outlines that an image shows."""
    return lambda points, chain: traced(volume, protocol, points, chain)


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


def on_label_boundary(
    labels: Volume, point: npt.ArrayLike, search_mm: float = SEARCH_MM
) -> FloatArray:
    """The nearest place, (3,) RAS mm, where one label ends and another begins.

    The face between two voxels that is nearest says which two labels; between them, the boundary is
    where their smoothed indicators are equal, so it has no steps of voxels. What is beyond the map
    counts as label 0.

    Args:
        labels: Whole numbers.
        point: RAS mm.

    Raises:
        UserError: no two labels meet within ``search_mm``.
    """
    target = np.array(point, float)
    window, grid = _window(labels, target, search_mm)
    best, face, pair = np.inf, target, (0, 0)
    for axis in range(3):
        one, other = (np.delete(window, n, axis) for n in (-1, 0))
        ijk = np.argwhere(one != other).astype(float)
        if not len(ijk):
            continue
        middles = ijk + 0.5 * np.eye(3)[axis]
        distances = np.linalg.norm(grid.ijk_to_ras(middles) - target, axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] < best:
            at = tuple(ijk[nearest].astype(int))
            best, face = float(distances[nearest]), grid.ijk_to_ras(middles[nearest])
            pair = int(one[at]), int(other[at])
    if best > search_mm:
        raise UserError(f"no two structures meet within {search_mm:g} mm of the point.")
    smooth = _on_even_ground(window, grid, pair, face, target)
    return smooth if np.linalg.norm(smooth - target) <= search_mm else face


def _window(
    labels: Volume, target: FloatArray, search_mm: float
) -> tuple[npt.NDArray[np.int64], Grid]:
    """The labels round a place, 0 beyond their border, and where they are."""
    spacing = labels.grid.spacing
    reach = np.ceil(search_mm / spacing).astype(int) + 4
    middle = np.round(labels.grid.ras_to_ijk(target)).astype(int)
    window = np.zeros(2 * reach + 1, np.int64)
    start, stop = middle - reach, middle + reach + 1
    low, high = np.clip(start, 0, labels.data.shape), np.clip(stop, 0, labels.data.shape)
    here = tuple(slice(a, b) for a, b in zip(low, high))
    there = tuple(slice(a, b) for a, b in zip(low - start, high - start))
    window[there] = labels.data[here]
    i, j, k = window.shape
    return window, labels.grid.window(start, (i, j, k))


def _on_even_ground(
    window: npt.NDArray[np.int64],
    grid: Grid,
    pair: tuple[int, int],
    face: FloatArray,
    target: FloatArray,
) -> FloatArray:
    """The point nearest to the target where two smoothed labels are equal, from a face on.

    Every round goes to the surface along the gradient, and on it towards the target. It ends where
    it would leave the face by more than two voxels: there a third label lies between.
    """
    from scipy import ndimage

    inside, outside = (
        ndimage.gaussian_filter((window == label).astype(np.float32), _LABEL_SIGMA_VOXELS)
        for label in pair
    )
    level = inside - outside
    fields = [level, *np.gradient(level)]
    to_world = np.linalg.inv(grid.affine[:3, :3]).T
    place = face
    for number in range(_ROUNDS):
        ijk = grid.ras_to_ijk(place)[:, None]
        value, *slope = (ndimage.map_coordinates(f, ijk, order=1)[0] for f in fields)
        normal = to_world @ np.array(slope, float)
        steep = float(normal @ normal)
        if steep == 0:
            return face
        onto = place - value * normal / steep
        if np.linalg.norm(onto - face) > 2 * grid.spacing.max():
            return face
        if number == _ROUNDS - 1:
            return np.asarray(onto)
        aside = target - onto
        place = onto + 0.5 * (aside - (aside @ normal) * normal / steep)
    return place
