"""Smooth curves through points, and equal arc lengths on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline


def spline(points: FloatArray, periodic: bool = False) -> CubicSpline:
    """Cubic spline through points (n, 3); point k at parameter k. Natural ends, or periodic."""
    from scipy.interpolate import CubicSpline  # the panel opens before SciPy is installed

    return CubicSpline(
        np.arange(len(points)), points, bc_type="periodic" if periodic else "natural"
    )


def arc_lengths(curve: FloatArray) -> FloatArray:
    """Arc length from the first sample of a polyline to each, mm; (n, d) -> (n,)."""
    steps = np.linalg.norm(np.diff(curve, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def at_equal_arc_lengths(curve: FloatArray, parts: int) -> FloatArray:
    """Points that divide a polyline into parts of equal arc length, (parts + 1, 3)."""
    length = arc_lengths(curve)
    return at_arc_lengths(curve, length, np.linspace(0, length[-1], parts + 1))


def at_arc_lengths(curve: FloatArray, length: FloatArray, at: FloatArray | float) -> FloatArray:
    """Points of a curve (n, d) at arc lengths, given the arc lengths of its samples."""
    return np.stack([np.interp(at, length, axis) for axis in curve.T], -1)
