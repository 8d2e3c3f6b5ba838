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

WITH_RULES = "+rules"
"""Behind the name of a network: its points and those by rule, together."""

ANSWER = "answer"
"""Name of the errors of the final points, of heads that the correction was not learnt from."""

FARTHEST_MM = 10.0
CREDIBLE = 3.5
"""A point by rule farther from where it is expected, in mm or standard deviations along an axis,
has jumped and does not count."""

MOST = 0.5
"""Share of the points by rule that are credible if the parcellation is worth anything."""

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
    def fit(
        cls, lacks: FloatArray, mirror: npt.NDArray[np.int64], together: float = TOGETHER
    ) -> PointErrors:
        """The errors of a network, each head counted together with its mirror image.

        Args:
            lacks: (n, K, 3) truth less found points of each head in the canonical pose, NaN where
                either is missing.
            mirror: (K,) index of each landmark's left-right partner.
            together: Share of the measured correlation that is believed.
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
        modes = (lengths * np.sqrt(together / len(rows)))[:_MODES, None] * directions[:_MODES]
        explained = (modes**2).sum(0).reshape(offset.shape)
        least = (1 - together) * variance
        residual = np.sqrt(np.maximum(variance - explained, least))
        return cls(offset, modes, residual, heads.astype(float))

    @property
    def covariance(self) -> FloatArray:
        """(3 K, 3 K), mm^2."""
        return np.asarray(self.modes.T @ self.modes + np.diag(self.residual.ravel() ** 2))


@dataclass(frozen=True)
class Correction:
    """Puts the points of a network where annotated scans say that they belong.

    Landmarks may be seen more than once: by a network, and by the rules on a parcellation. Then
    ``errors`` knows both together, by the name of the network with `WITH_RULES` behind it, the
    landmarks of the network first.

    Args:
        shape: How landmarks vary over heads.
        errors: Name of a network to the errors of its points; of `ANSWER`, to those that remain.
    """

    shape: ShapeModel
    errors: Mapping[str, PointErrors]

    def __call__(self, points: FloatArray, part: str) -> FloatArray:
        """The points of a network, (K, 3) RAS mm; what is missing, NaN, stays missing.

        Points of an unknown network, landmarks of which nothing has been learnt, and sets of fewer
        than four others stay as they are.
        """
        expected = self._expected(points, part)
        return points if expected is None else expected.applied(points)

    def fused(self, points: FloatArray, rules: FloatArray, part: str) -> Fused:
        """One answer from the points of a network and those of the rules, each (K, 3) RAS mm.

        Each has its say by how exact it was on annotated scans, given how they err together. A
        point by rule that lies where the network and the shape of heads cannot be that wrong is
        left out; if most are, the parcellation has failed, and all are.
        """
        alone = self._expected(points, part)
        nothing = np.full(len(points), np.nan)
        known_by = part + WITH_RULES
        if alone is None or known_by not in self.errors:
            return Fused(points if alone is None else alone.applied(points), nothing)
        corrected = alone.applied(points)
        both = self.errors[known_by]
        count = len(points)
        given = np.isfinite(rules).all(1) & (both.heads[count:] >= FEWEST_HEADS)
        # In the canonical pose: what a rule usually lacks does not count as disagreement.
        away = (rules - corrected) @ alone.pose[:3, :3] + both.offset[count:]
        apart = np.linalg.norm(away, axis=1)
        variance = np.diag(both.covariance).reshape(2, count, 3).sum(0)
        credible = (apart <= FARTHEST_MM) & (np.sqrt((away**2 / variance).mean(1)) <= CREDIBLE)
        used = given & credible & np.isfinite(points).all(1)
        if not used.any() or used.sum() < MOST * given.sum():
            return Fused(corrected, nothing)
        kept = np.where(used[:, None], rules, np.nan)
        together = self._expected(np.concatenate([points, kept]), known_by, alone.pose)
        if together is None:
            return Fused(corrected, nothing)
        return Fused(together.applied(points), np.where(used, apart, np.nan))

    def strangeness(self, points: FloatArray, part: str) -> float:
        """Mean square of the standardised points of a head; NaN where nothing can be said."""
        expected = self._expected(points, part)
        return float("nan") if expected is None else expected.strangeness

    def _expected(
        self, points: FloatArray, part: str, pose: FloatArray | None = None
    ) -> _Expected | None:
        """Where the landmarks are, given points of which each landmark has one or more, (S K, 3).

        None where nothing can be said.
        """
        if part not in self.errors:
            return None
        errors, shape = self.errors[part], self.shape
        count = len(shape.mean)
        seen = np.isfinite(points).all(1) & (errors.heads >= FEWEST_HEADS)
        known = np.asarray(seen.reshape(-1, count).any(0))
        if known.sum() < 4:
            return None
        if pose is None:
            try:
                pose = shape.pose(points[:count])
            except ValueError:  # all points in one place or on one line
                return None
        of = np.flatnonzero(seen) % count
        mine, rows = _triples(of), _triples(np.flatnonzero(seen))
        placed = (apply_affine(np.linalg.inv(pose), points) + errors.offset)[seen]
        unusual = (placed - shape.mean[of]).ravel()
        noise = errors.covariance[np.ix_(rows, rows)]
        weights = np.linalg.solve(self._prior[np.ix_(mine, mine)] + noise, unusual)
        towards = self._prior[np.ix_(_triples(np.flatnonzero(known)), mine)] @ weights
        expected = shape.mean[known] + towards.reshape(-1, 3)
        strangeness = float(unusual @ weights) / len(unusual)
        # Without the shape each landmark is the mean of its own points.
        trust = 1 / np.diag(noise).reshape(-1, 3)
        total, share = np.zeros((count, 3)), np.zeros((count, 3))
        np.add.at(total, of, trust * placed)
        np.add.at(share, of, trust)
        # What is likely of a head is not forced upon one that is like no other.
        familiar = min(1.0, (errors.familiar / max(strangeness, 1e-9)) ** FADES)
        bare = total[known] / share[known]
        return _Expected(pose, known, bare + familiar * (expected - bare), strangeness)

    @cached_property
    def _prior(self) -> FloatArray:
        """(3 K, 3 K) how landmarks vary over heads of any people, in any pose, mm^2."""
        arm = self.shape.mean - self.shape.mean.mean(0)
        along = [STRETCH * np.where(np.arange(3) == axis, arm, 0.0).ravel() for axis in range(3)]
        modes = np.array([GROWTH * arm.ravel(), *along])
        return np.asarray(self.shape.free_covariance + modes.T @ modes)


@dataclass(frozen=True)
class Fused:
    """Points of a network, corrected, and which of them the rules had a say in.

    Args:
        points: (K, 3) RAS mm.
        apart: (K,) mm between where the rules and all else see a landmark; NaN where the rules had
            no say.
    """

    points: FloatArray
    apart: FloatArray

    @property
    def by_rule(self) -> npt.NDArray[np.bool_]:
        """(K,) True where a point by rule counted as well."""
        return np.asarray(np.isfinite(self.apart))


@dataclass(frozen=True)
class _Expected:
    """Where the known landmarks of a head are expected, in its canonical pose."""

    pose: FloatArray
    known: npt.NDArray[np.bool_]
    points: FloatArray
    strangeness: float

    def applied(self, points: FloatArray) -> FloatArray:
        """(K, 3) RAS mm, those of which nothing is known as they are."""
        result = points.copy()
        result[self.known] = apply_affine(self.pose, self.points)
        return result


def _triples(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Indices of the coordinates of points."""
    return np.asarray((3 * rows[:, None] + np.arange(3)).ravel())


def _times(part: str) -> int:
    """How often each landmark is seen."""
    return 2 if part.endswith(WITH_RULES) else 1


def write_correction(path: Path, correction: Correction) -> None:
    """Write a correction as a safetensors file: float32, the large matrices of modes float16."""
    from safetensors.numpy import save_file

    arrays = {_SHAPE + name: array for name, array in correction.shape.arrays().items()}
    for part, errors in correction.errors.items():
        arrays |= {f"{part}.{of}": getattr(errors, of) for of in _ARRAYS}
        arrays[f"{part}.familiar"] = np.array([errors.familiar])
    stored = {
        name: np.ascontiguousarray(array, np.float16 if name.endswith("modes") else np.float32)
        for name, array in arrays.items()
    }
    save_file(stored, path)


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
        if any(len(errors[part].offset) != len(shape.mean) * _times(part) for part in errors):
            raise ValueError("shape and errors are of different landmarks")
        return Correction(shape, errors)
    except (OSError, SafetensorError, KeyError, IndexError, ValueError):
        raise UserError(
            f"{path.name} of the model {path.parent.name} is damaged; install the model again."
        ) from None
