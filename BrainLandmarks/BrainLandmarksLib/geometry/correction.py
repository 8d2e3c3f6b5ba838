"""What annotated scans teach about a network's points: how heads vary, and how the points err.

A network is wrong in a way of its own. It places some landmarks beside themselves in the same
direction on most heads, and points whose common plane or outline it has misjudged are wrong
together. Both can be measured on annotated scans, without training. Then the best guess of where
the landmarks of a new head are is the mean of what the shape of heads and the points together leave
possible (Gaussian conditioning, Rasmussen & Williams 2006, eq. 2.24).

>>> correction = Correction(ShapeModel.fit(heads, mirror, mean), {"fine": PointErrors.fit(lacks)})
>>> better = correction(points, "fine")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.shape_model import ShapeModel

FEWEST_HEADS = 5
"""Of a landmark that fewer heads have nothing is learnt."""

TOGETHER = 0.5
"""Share of the measured correlation of errors that is believed; so few heads exaggerate it."""

FADES = 6
"""How fast the shape model loses its say on heads that are less familiar than those learnt from:
with this power of how much more unusual they are."""

GROWTH, STRETCH = 0.1, 0.04
"""Heads of other people than those that were learnt from differ by these shares in size, and along
each axis besides; it must not cost them anything."""

_LEAST_MM = 0.4
_MOST_SIGMAS = 4.0
_MODES = 24
_SHAPE = "shape."
_ARRAYS = ("offset", "modes", "residual", "heads")


@dataclass(frozen=True)
class PointErrors:
    """What the points of a network lack, in the canonical pose of a head, mm.

    The covariance of the errors is ``modes.T @ modes + diag(residual**2)``.

    Args:
        offset: (K, 3) what they lack on the usual head.
        modes: (M, 3 K) how errors go together, coordinates of a landmark side by side.
        residual: (K, 3) standard deviation of what is left, along each axis.
        heads: (K,) how many heads each landmark's are of; with fewer than `FEWEST_HEADS` they mean
            nothing.
        familiar: `Correction.strangeness` up to which a head is like those that were learnt from.
    """

    offset: FloatArray
    modes: FloatArray
    residual: FloatArray
    heads: FloatArray
    familiar: float = 1.0

    def __post_init__(self) -> None:
        count = self.offset.size
        if self.offset.shape[1:] != (3,) or self.residual.shape != self.offset.shape:
            raise ValueError("the errors of points need three numbers for each landmark")
        if self.modes.shape[1:] != (count,) or self.heads.shape != self.offset.shape[:1]:
            raise ValueError("the errors of points must all be of the same landmarks")
        every = (self.offset, self.modes, self.residual, self.heads)
        if not all(np.isfinite(array).all() for array in every):
            raise ValueError("the errors of points must be finite")
        if not ((self.residual > 0).all() and 0 < self.familiar < np.inf):
            raise ValueError("the residual of point errors must be above zero")

    @classmethod
    def fit(cls, lacks: FloatArray, mirror: npt.NDArray[np.int64]) -> PointErrors:
        """The errors of a network, each head counted together with its mirror image.

        Args:
            lacks: (n, K, 3) truth less found points of each head in the canonical pose, NaN where
                either is missing.
            mirror: (K,) index of each landmark's left-right partner.
        """
        both = np.concatenate([lacks, (lacks * [-1.0, 1.0, 1.0])[:, mirror]])
        heads = np.isfinite(lacks).all(2).sum(0)
        heads = np.minimum(heads, heads[mirror])
        enough = heads >= FEWEST_HEADS
        offset, variance = np.zeros(lacks.shape[1:]), np.ones(lacks.shape[1:])
        if not enough.any():
            return cls(offset, np.zeros((0, offset.size)), variance, heads.astype(float))
        offset[enough] = np.nanmedian(both[:, enough], axis=0)
        rest = np.where(
            np.isfinite(both).all(2)[..., None] & enough[:, None], both - offset, np.nan
        )
        # One head that went wrong must not distort all of them.
        scale = 1.48 * np.nanmedian(np.abs(rest[:, enough]), axis=0)
        limit = _MOST_SIGMAS * np.maximum(scale, _LEAST_MM)
        rest[:, enough] = np.clip(rest[:, enough], -limit, limit)
        variance[enough] = np.nanmean(rest[:, enough] ** 2, axis=0)
        variance = np.maximum(variance, _LEAST_MM**2)
        rows = np.nan_to_num(rest).reshape(len(rest), -1)
        _, lengths, directions = np.linalg.svd(rows, full_matrices=False)
        modes = (lengths * np.sqrt(TOGETHER / len(rows)))[:_MODES, None] * directions[:_MODES]
        explained = (modes**2).sum(0).reshape(offset.shape)
        least = (1 - TOGETHER) * variance
        residual = np.sqrt(np.maximum(variance - explained, least))
        return cls(offset, modes, residual, heads.astype(float))

    @property
    def covariance(self) -> FloatArray:
        """(3 K, 3 K), mm^2."""
        return np.asarray(self.modes.T @ self.modes + np.diag(self.residual.ravel() ** 2))


@dataclass(frozen=True)
class Correction:
    """Puts the points of a network where annotated scans say that they belong.

    Args:
        shape: How landmarks vary over heads.
        errors: Name of a network to the errors of its points.
    """

    shape: ShapeModel
    errors: Mapping[str, PointErrors]

    def __call__(self, points: FloatArray, part: str) -> FloatArray:
        """The points of a network, (K, 3) RAS mm; what is missing, NaN, stays missing.

        Points of an unknown network, landmarks of which nothing has been learnt, and sets of fewer
        than four others stay as they are.
        """
        seen = self._seen(points, part)
        if seen is None:
            return points
        pose, known, placed, expected, strangeness = seen
        # What is likely of a head is not forced upon one that is like no other.
        share = min(1.0, (self.errors[part].familiar / max(strangeness, 1e-9)) ** FADES)
        result = points.copy()
        result[known] = apply_affine(pose, placed + share * (expected - placed))
        return result

    def strangeness(self, points: FloatArray, part: str) -> float:
        """Mean square of the standardised points of a head; NaN where nothing can be said."""
        seen = self._seen(points, part)
        return float("nan") if seen is None else seen[-1]

    def _seen(
        self, points: FloatArray, part: str
    ) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray, FloatArray, float] | None:
        """Pose, which points count, where they are and are expected in the canonical pose, and how
        strange that is; None where nothing can be said."""
        if part not in self.errors:
            return None
        errors, shape = self.errors[part], self.shape
        known = np.isfinite(points).all(1) & (errors.heads >= FEWEST_HEADS)
        if known.sum() < 4:
            return None
        try:
            pose = shape.pose(points)
        except ValueError:  # all points in one place or on one line
            return None
        placed = (apply_affine(np.linalg.inv(pose), points) + errors.offset)[known]
        rows = np.repeat(known, 3)
        unusual = (placed - shape.mean[known]).ravel()
        prior = self._prior[np.ix_(rows, rows)]
        weights = np.linalg.solve(prior + errors.covariance[np.ix_(rows, rows)], unusual)
        expected = shape.mean[known] + (prior @ weights).reshape(-1, 3)
        return pose, known, placed, expected, float(unusual @ weights) / len(unusual)

    @cached_property
    def _prior(self) -> FloatArray:
        """(3 K, 3 K) how landmarks vary over heads of any people, in any pose, mm^2."""
        arm = self.shape.mean - self.shape.mean.mean(0)
        along = [STRETCH * np.where(np.arange(3) == axis, arm, 0.0).ravel() for axis in range(3)]
        modes = np.array([GROWTH * arm.ravel(), *along])
        return np.asarray(self.shape.free_covariance + modes.T @ modes)


def write_correction(path: Path, correction: Correction) -> None:
    """Write a correction as a safetensors file of float32 arrays."""
    from safetensors.numpy import save_file

    arrays = {_SHAPE + name: array for name, array in correction.shape.arrays().items()}
    for part, errors in correction.errors.items():
        arrays |= {f"{part}.{of}": getattr(errors, of) for of in _ARRAYS}
        arrays[f"{part}.familiar"] = np.array([errors.familiar])
    save_file({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, path)


def read_correction(path: Path) -> Correction:
    """Read a file of `write_correction`.

    Raises:
        UserError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        data = {name: array.astype(float) for name, array in load_file(path).items()}
        shape = ShapeModel.of_arrays(
            {k.removeprefix(_SHAPE): v for k, v in data.items() if k.startswith(_SHAPE)}
        )
        parts = [name.removesuffix(".offset") for name in data if name.endswith(".offset")]
        errors = {}
        for part in parts:
            offset, modes, residual, heads = (data[f"{part}.{of}"] for of in _ARRAYS)
            familiar = float(data[f"{part}.familiar"][0])
            errors[part] = PointErrors(offset, modes, residual, heads, familiar)
        if any(e.offset.shape != shape.mean.shape for e in errors.values()):
            raise ValueError("shape and errors are of different landmarks")
        return Correction(shape, errors)
    except (OSError, SafetensorError, KeyError, IndexError, ValueError):
        raise UserError(
            f"{path.name} of the model {path.parent.name} is damaged; install the model again."
        ) from None
