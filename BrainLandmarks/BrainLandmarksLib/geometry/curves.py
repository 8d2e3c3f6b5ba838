"""Smooth curves through points, and equal arc lengths on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline


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
