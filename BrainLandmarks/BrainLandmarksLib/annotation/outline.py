"""Plane sections of fields, their outlines, and the points that rules pick on an outline.

An *outline* is an (n, 2) array of points in millimetres in the plane's own coordinates (u, v),
ordered along the curve. Everything here is two-dimensional; only ``SectionPlane`` knows RAS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import contourpy
import numpy as np
from scipy import ndimage

from BrainLandmarksLib.annotation.labelmap import Field
from BrainLandmarksLib.geometry.curves import arc_lengths, at_arc_lengths

STEP_MM = 0.5
"""Spacing of the raster on which a section is contoured; fields are smooth at 1 mm."""


@dataclass(frozen=True)
class SectionPlane:
    """Plane with its own axes: RAS = origin + u * axis_u + v * axis_v."""

    origin: np.ndarray
    axis_u: np.ndarray
    axis_v: np.ndarray

    def to_ras(self, points: np.ndarray) -> np.ndarray:
        """(…, 2) plane mm -> (…, 3) RAS mm."""
        points = np.asarray(points, float)
        return self.origin + points[..., :1] * self.axis_u + points[..., 1:] * self.axis_v


class PlaneSection:
    """Raster of a scalar function on a window of a plane.

    ``values[i, j]`` lies at (u, v) = (low_u + i * STEP_MM, low_v + j * STEP_MM).
    """

    def __init__(self, values: np.ndarray, low: tuple[float, float]) -> None:
        self.values = values
        self.low = np.asarray(low, float)

    @classmethod
    def of(
        cls,
        plane: SectionPlane,
        value: Field | Callable[[np.ndarray], np.ndarray],
        u: tuple[float, float],
        v: tuple[float, float],
    ) -> PlaneSection:
        """Sample a field (or any function of RAS points) on the window u x v, in mm."""
        uu, vv = np.meshgrid(
            np.arange(u[0], u[1] + STEP_MM, STEP_MM),
            np.arange(v[0], v[1] + STEP_MM, STEP_MM),
            indexing="ij",
        )
        ras = plane.to_ras(np.stack([uu, vv], -1))
        values = value.at(ras) if isinstance(value, Field) else value(ras)
        return cls(np.asarray(values, np.float32), (u[0], v[0]))

    def at(self, points: np.ndarray) -> np.ndarray:
        """Bilinear values at (…, 2) plane points, zero outside the window."""
        points = np.asarray(points, float)
        index = ((points.reshape(-1, 2) - self.low) / STEP_MM).T
        values = ndimage.map_coordinates(self.values, index, order=1, mode="constant", cval=0.0)
        return values.reshape(points.shape[:-1])

    def points(self, mask: np.ndarray) -> np.ndarray:
        """(n, 2) plane coordinates of the raster cells of a mask."""
        return self.low + np.argwhere(mask) * STEP_MM

    def kept(self, mask: np.ndarray) -> PlaneSection:
        """The section with everything outside ``mask`` set to zero (smoothly contoured still)."""
        grown = ndimage.binary_dilation(mask, iterations=2)
        others = (self.values >= 0.5) & ~mask
        values = np.where(grown & ~others, self.values, 0.0)
        return PlaneSection(values.astype(np.float32), (self.low[0], self.low[1]))

    def component(self, choose: Callable[[np.ndarray], float]) -> PlaneSection:
        """Only the connected part (level 0.5) for which ``choose(points)`` is largest."""
        parts, count = ndimage.label(self.values >= 0.5)
        if count == 0:
            return PlaneSection(np.zeros_like(self.values), (self.low[0], self.low[1]))
        scores = [choose(self.points(parts == k)) for k in range(1, count + 1)]
        return self.kept(parts == 1 + int(np.argmax(scores)))

    def closed(self, radius_mm: float) -> PlaneSection:
        """Grey closing with a disc, then holes filled: sulci narrower than 2 x radius vanish.

        The result is re-smoothed at the raster scale so that its 0.5 level stays sub-pixel.
        """
        pad = int(np.ceil(radius_mm / STEP_MM)) + 2
        solid = np.pad(self.values >= 0.5, pad)
        outside = ndimage.distance_transform_edt(~solid) * STEP_MM
        grown = outside <= radius_mm
        inside = ndimage.distance_transform_edt(grown) * STEP_MM
        closed = ndimage.binary_fill_holes(inside > radius_mm)
        closed = closed[pad:-pad, pad:-pad]
        # Where closing added nothing the original sub-pixel values stand.
        extra = ndimage.gaussian_filter(closed.astype(np.float32), 1.0)
        filled = closed & (ndimage.distance_transform_edt(closed) > 2)
        values = np.maximum(self.values, np.where(filled, 1.0, extra))
        return PlaneSection(values.astype(np.float32), (self.low[0], self.low[1]))

    def opened(self, radius_mm: float, where: np.ndarray) -> PlaneSection:
        """Grey opening with a disc: spikes narrower than 2 x radius vanish, in the mask ``where``.

        The raster keeps its values elsewhere, so that the 0.5 level stays sub-pixel.
        """
        solid = self.values >= 0.5
        core = ndimage.distance_transform_edt(solid) * STEP_MM > radius_mm
        kept = ndimage.distance_transform_edt(~core) * STEP_MM <= radius_mm
        spikes = solid & ~kept & where
        edge = ndimage.gaussian_filter(spikes.astype(np.float32), 1.0)
        values = np.minimum(self.values, np.where(spikes, 0.0, 1.0 - edge))
        return PlaneSection(values.astype(np.float32), (self.low[0], self.low[1]))

    def outline(self) -> np.ndarray:
        """Longest 0.5-level curve, (n, 2); closed curves repeat the first point. Empty if none."""
        padded = np.pad(self.values, 1)
        lines = contourpy.contour_generator(z=padded.T).lines(0.5)
        if not lines:
            return np.empty((0, 2))
        best = max(lines, key=lambda line: length(np.asarray(line)))
        return self.low + (np.asarray(best) - 1) * STEP_MM


def length(curve: np.ndarray) -> float:
    """Arc length of a polyline, mm."""
    return float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum())


def along(curve: np.ndarray, at: np.ndarray | float) -> np.ndarray:
    """Point(s) at given arc lengths."""
    return at_arc_lengths(curve, arc_lengths(curve), at)


def resampled(curve: np.ndarray, step_mm: float = STEP_MM) -> np.ndarray:
    """The polyline with evenly spaced points."""
    total = length(curve)
    return along(curve, np.linspace(0, total, max(3, int(np.ceil(total / step_mm)) + 1)))


def nearest(curve: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, float]:
    """Closest point of a polyline to ``point``, and its arc length."""
    start, step = curve[:-1], np.diff(curve, axis=0)
    size = np.maximum((step**2).sum(1), 1e-12)
    t = np.clip(((point - start) * step).sum(1) / size, 0, 1)
    feet = start + t[:, None] * step
    k = int(np.argmin(((feet - point) ** 2).sum(1)))
    return feet[k], float(arc_lengths(curve)[k] + t[k] * np.sqrt(size[k]))


def extreme(curve: np.ndarray, direction: np.ndarray, cap_mm: float = 1.0) -> np.ndarray:
    """The point of a curve farthest along ``direction``.

    On a flat top the farthest sample is a matter of noise, so the middle of the stretch that lies
    within ``cap_mm`` of the extreme is taken: the place where two people would agree.
    """
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    even = resampled(curve)
    height = even @ direction
    top = int(np.argmax(height))
    near = height >= height[top] - cap_mm
    closed = np.allclose(curve[0], curve[-1])
    first = last = top
    n = len(even)
    while near[(first - 1) % n] and (closed or first > 0) and top - first < n:
        first -= 1
    while near[(last + 1) % n] and (closed or last < n - 1) and last - top < n:
        last += 1
    # Weights fall to zero at the edge of the cap, so the answer moves smoothly with the curve.
    index = np.arange(first, last + 1) % n
    weight = np.maximum(height[index] - (height[top] - cap_mm), 1e-6)
    position = np.average(np.arange(first, last + 1), weights=weight)
    low, fraction = int(np.floor(position)), position - np.floor(position)
    return even[low % n] * (1 - fraction) + even[(low + 1) % n] * fraction


def between(curve: np.ndarray, start: np.ndarray, end: np.ndarray, via: np.ndarray) -> np.ndarray:
    """The stretch of a closed outline from ``start`` to ``end`` that passes nearest to ``via``."""
    total = length(curve)
    s0, s1, sv = (nearest(curve, p)[1] for p in (start, end, via))
    forward_end = (s1 - s0) % total
    if (sv - s0) % total <= forward_end:
        at = s0 + np.linspace(0, forward_end, max(3, int(forward_end / STEP_MM) + 2))
    else:
        backward_end = (s0 - s1) % total
        at = s0 - np.linspace(0, backward_end, max(3, int(backward_end / STEP_MM) + 2))
    return along(curve, at % total)


def spread(curve: np.ndarray, count: int) -> np.ndarray:
    """``count`` points that divide an open curve into count + 1 stretches of equal arc length."""
    return along(curve, length(curve) * np.arange(1, count + 1) / (count + 1))


def crossings(curve: np.ndarray, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Points (n, 2) where a ray crosses a polyline, nearest first."""
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    offset = curve - start
    beside = offset @ np.array([-direction[1], direction[0]])
    at = np.flatnonzero((beside[:-1] < 0) != (beside[1:] < 0))
    fraction = beside[at] / (beside[at] - beside[at + 1])
    points = curve[at] + fraction[:, None] * (curve[at + 1] - curve[at])
    distance = (points - start) @ direction
    ahead = distance > 0
    return points[ahead][np.argsort(distance[ahead])]


def exit_along(
    value: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    direction: np.ndarray,
    reach_mm: float,
    *,
    last: bool = False,
    level: float = 0.5,
) -> np.ndarray | None:
    """Where a ray leaves the region value >= level: the first time, or the last.

    Works in 2-D and 3-D alike. None when the ray never leaves (or never was inside).
    """
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    t = np.arange(0.0, reach_mm, 0.25)
    values = value(start + t[:, None] * direction)
    leaving = np.flatnonzero((values[:-1] >= level) & (values[1:] < level))
    if len(leaving) == 0:
        return None
    k = int(leaving[-1 if last else 0])
    fraction = (values[k] - level) / (values[k] - values[k + 1])
    return start + (t[k] + fraction * 0.25) * direction
