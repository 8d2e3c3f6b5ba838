"""The smoothest map of space that carries points onto points: thin-plate splines.

In three dimensions a sum of distances has the least bending energy (Duchon 1977; in two dimensions
Bookstein, IEEE TPAMI 11:567-585, 1989); SciPy calls this radial basis function "linear".

>>> plate = ThinPlate.fit(fixed, moving, sigma)
>>> plate(points)                   # from the space of fixed to that of moving
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import CHI3_MEDIAN, affine_fit

SMOOTHINGS = (0.0, *(float(10.0**k) for k in np.arange(-2, 4.1, 0.5)))
"""Among these the one is chosen that predicts points best that were left out."""

WRONG = 8.0
"""A point is left out if it lies this many robust standard deviations, and this many of its own
error, from where the others lead to expect it. More than for a linear fit: anatomy differs."""

MOST_WRONG = 0.3
"""Share of the points that may be left out."""

_ROUNDS, _NEAR_MM = 100, 1e-4
_CHUNK = 1 << 16


@dataclass(frozen=True)
class ThinPlate:
    """A map of space through points, or near them.

    Args:
        source, target: (n, 3) mm, without NaN.
        stiffness: (n,) how little each point is believed, mm; 0: the map goes through it.
        used: Rows of what was given to `fit` that have a say.
        left_out_mm: How far `target` lies from where the map without the point carries it, (n,).
    """

    source: FloatArray
    target: FloatArray
    stiffness: FloatArray
    used: npt.NDArray[np.bool_]
    left_out_mm: FloatArray

    @classmethod
    def fit(
        cls,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        sigma: npt.ArrayLike,
        smoothing: float | None = None,
    ) -> ThinPlate:
        """Fit to all points that are there, but those which are wrong.

        Args:
            source, target: (K, 3) mm, NaN where missing.
            sigma: (K,) expected error along each axis, mm.
            smoothing: Times the squares of the errors it is the stiffness; None chooses the one
                that predicts left out points best.

        Raises:
            ValueError: fewer than five points, or all in one plane.
        """
        a, b = np.asarray(source, float), np.asarray(target, float)
        e = np.broadcast_to(np.asarray(sigma, float), a.shape[:1])
        used = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1) & np.isfinite(e)
        if used.sum() < 5:
            raise ValueError("a thin-plate spline needs at least five pairs of points")
        affine_fit(a[used], b[used])  # raises if there is no map at all
        most = int(MOST_WRONG * used.sum())
        while True:
            rows = np.flatnonzero(used)
            x, y, s = a[rows], b[rows], e[rows] ** 2
            chosen = _best_smoothing(x, y, s) if smoothing is None else smoothing
            off, spread = _left_out(x, y, chosen * s)
            strange = off / spread
            usual = max(float(np.median(strange)) / CHI3_MEDIAN, 1e-9)
            strange[off <= WRONG * e[rows]] = 0.0
            worst = int(strange.argmax())
            if most == 0 or strange[worst] <= WRONG * usual:
                return cls(x, y, chosen * s, used, off)
            used = used.copy()
            used[rows[worst]] = False
            most -= 1

    def __call__(self, points: npt.ArrayLike) -> FloatArray:
        """Where points (..., 3) are carried; NaN stays NaN."""
        array = np.asarray(points, float)
        flat = array.reshape(-1, 3)
        result = np.full(flat.shape, np.nan)
        rows = np.flatnonzero(np.isfinite(flat).all(axis=1))
        for part in np.array_split(rows, max(1, -(-len(rows) // _CHUNK))):
            if len(part):
                result[part] = self._spline(flat[part])
        return result.reshape(array.shape)

    def inverse(self, points: npt.ArrayLike) -> FloatArray:
        """What is carried onto points (..., 3), by iteration; NaN where there is nothing.

        It exists once at most where the map does not fold.
        """
        array = np.asarray(points, float)
        goal = array.reshape(-1, 3)
        back = np.linalg.inv(affine_fit(self.source, self.target))
        found = apply_affine(back, goal)
        for _ in range(_ROUNDS):
            lacks = goal - self(found)
            if not np.nanmax(np.abs(lacks), initial=0.0) > _NEAR_MM:
                break
            found = found + lacks @ back[:3, :3].T
        lost = np.abs(goal - self(found)).max(axis=1) > 1e3 * _NEAR_MM
        found[lost] = np.nan
        return found.reshape(array.shape)

    def influence(self, points: npt.ArrayLike) -> FloatArray:
        """By how much each point's target moves what lies at points (m, 3), (m, n)."""
        spline = self._interpolator(np.eye(len(self.source)))
        return np.asarray(spline(np.asarray(points, float)))

    def volume_change(self, points: npt.ArrayLike, step_mm: float = 0.5) -> FloatArray:
        """Determinant of the derivative at points (n, 3), (n,); the map folds where it is <= 0."""
        array = np.asarray(points, float)
        rows = [
            (self(array + step_mm * axis) - self(array - step_mm * axis)) / (2 * step_mm)
            for axis in np.eye(3)
        ]
        return np.asarray(np.linalg.det(np.stack(rows, axis=1)))

    @cached_property
    def _spline(self) -> Any:
        return self._interpolator(self.target)

    def _interpolator(self, values: FloatArray) -> Any:
        from scipy.interpolate import RBFInterpolator

        return RBFInterpolator(
            self.source, values, kernel="linear", degree=1, smoothing=self.stiffness
        )


def _left_out(x: FloatArray, y: FloatArray, stiffness: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How far each point is from what the others predict, (n,) mm, and how far is usual, (n,).

    Rippa, Adv. Comput. Math. 11:193-210, 1999: the coefficient of a point over the diagonal element
    of the inverse. That element is also the inverse variance of the prediction, but for a factor.
    """
    count = len(x)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    center = x.mean(axis=0)
    plane = np.hstack([np.ones((count, 1)), (x - center) / 100.0])
    system = np.zeros((count + 4, count + 4))
    system[:count, :count] = -distances + np.diag(stiffness)
    system[:count, count:], system[count:, :count] = plane, plane.T
    inverse = np.linalg.inv(system)[:count, :count]
    diagonal = np.diag(inverse)
    return np.linalg.norm(inverse @ y, axis=1) / diagonal, 1 / np.sqrt(diagonal)


def _best_smoothing(x: FloatArray, y: FloatArray, squares: FloatArray) -> float:
    def typical(smoothing: float) -> float:
        # The median: what is wrong does not decide.
        return float(np.median(_left_out(x, y, smoothing * squares)[0]))

    return min(SMOOTHINGS, key=typical)
