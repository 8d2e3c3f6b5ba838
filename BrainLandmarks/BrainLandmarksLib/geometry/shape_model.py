"""How landmarks vary together over heads: a Gaussian in the canonical pose.

It answers two questions that one heatmap cannot: is this point where the others say it should be
(``deviation``), and if a person moves some points, where do the others go (``resolve``)?

Point distribution model: Cootes et al., Comput. Vis. Image Underst. 61:38-59, 1995. Shrinkage of
the covariance: Ledoit and Wolf, J. Multivar. Anal. 88:365-411, 2004.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import onto, rigid_fit

CORRECTED_MM = 0.5
"""Standard deviation along each axis of a point that a person has placed."""

USUAL_DEVIATION, RARE_DEVIATION = 1.6, 4.0
"""What `ShapeModel.deviation` gives for most points of most heads, and for hardly any."""

_POSE_MM = 30.0
"""How far a head's pose may be off, mm: much more than it is, so that it has no say."""

_MIRROR = np.diag([-1.0, 1.0, 1.0])
_FILL_ROUNDS = 10


@dataclass(frozen=True)
class ShapeModel:
    """Gaussian over the K landmarks of a head in the canonical pose, millimetres.

    The covariance is ``modes.T @ modes + residual_mm**2 * identity``.

    >>> model = ShapeModel.fit(heads, protocol.mirror_permutation())
    >>> model.deviation(points).argmax()            # the point that fits the others least
    >>> moved = model.resolve(points, corrected, sigma_mm)

    Args:
        mean: (K, 3) mean landmarks.
        modes: (M, 3 K) principal directions, each as long as its standard deviation, coordinates
            of a landmark side by side.
        residual_mm: standard deviation of what the modes leave out, along each axis.
    """

    mean: FloatArray
    modes: FloatArray
    residual_mm: float

    def __post_init__(self) -> None:
        count = self.mean.size
        if self.mean.ndim != 2 or self.mean.shape[1] != 3 or self.modes.shape[1:] != (count,):
            raise ValueError("the modes of a shape model need three numbers for each landmark")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.modes).all()):
            raise ValueError("a shape model must be finite")
        if not self.residual_mm > 0:
            raise ValueError("the residual of a shape model must be above zero")

    @classmethod
    def fit(
        cls,
        heads: Sequence[npt.ArrayLike],
        mirror: npt.NDArray[np.int64],
        mean: npt.ArrayLike,
        modes: int = 40,
    ) -> ShapeModel:
        """Fit to landmark sets of heads, each counted together with its mirror image.

        Args:
            heads: (K, 3) landmarks of each head in any pose, RAS mm, NaN for missing ones.
            mirror: (K,) index of each landmark's left-right partner.
            mean: (K, 3) landmarks in the canonical pose, which heads are aligned with rigidly.
            modes: how many principal directions to keep at most.

        Raises:
            ValueError: fewer than two heads, or a head with too few landmarks.
        """
        target = np.array(mean, float)
        if len(heads) < 2:
            raise ValueError("a shape model needs two heads or more")
        rows = []
        for head in heads:
            points = np.array(head, float)
            for each in (points, (points @ _MIRROR)[mirror]):
                rows.append(onto(each, target).ravel())
        data = np.array(rows)
        center = np.nanmean(data, axis=0)
        covariance = _shrunk(_filled(data - center))
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = min(modes, len(values) - 1)
        residual = float(np.sqrt(max(values[kept:].mean(), 1e-6)))
        spread = np.sqrt(np.maximum(values[:kept] - residual**2, 0.0))
        return cls(center.reshape(-1, 3), (vectors[:, :kept] * spread).T, residual)

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """The model as float32 arrays by name, to be written."""
        parts = {"mean": self.mean, "modes": self.modes, "residual_mm": [self.residual_mm]}
        return {name: np.ascontiguousarray(part, np.float32) for name, part in parts.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[np.float32]]) -> ShapeModel:
        """The model of `arrays`.

        Raises:
            KeyError, IndexError, ValueError: one is missing or does not fit.
        """
        mean, modes = (arrays[name].astype(float) for name in ("mean", "modes"))
        return cls(mean, modes, float(arrays["residual_mm"][0]))

    @property
    def covariance(self) -> FloatArray:
        """(3 K, 3 K), mm^2."""
        return self.modes.T @ self.modes + self.residual_mm**2 * np.eye(self.mean.size)

    @cached_property
    def free_covariance(self) -> FloatArray:
        """The covariance with any small rigid motion added.

        Heads were aligned before they were compared, so a part that differs moved all other parts
        a little the other way. In a head whose pose is only known from its points this must cost
        nothing, or a correction here would shift the sure points there.
        """
        moves = np.zeros((6, *self.mean.shape))
        moves[:3] = _POSE_MM * np.eye(3)[:, None, :]
        arm = self.mean - self.mean.mean(0)
        size = max(float(np.sqrt((arm**2).sum(1).mean())), 1.0)
        moves[3:] = _POSE_MM / size * np.cross(np.eye(3)[:, None, :], arm[None])
        flat = moves.reshape(6, -1)
        return self.covariance + flat.T @ flat

    def pose(self, points: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
        """4x4 rigid affine from the canonical pose to a head's, RAS mm.

        Args:
            points: (K, 3) RAS mm, NaN for missing ones.
            weights: (K,) how far to trust each.

        Raises:
            ValueError: fewer than three points, or all on one line.
        """
        return rigid_fit(self.mean, points, weights)

    def deviation(self, points: npt.ArrayLike, sigma_mm: npt.ArrayLike = 2.0) -> FloatArray:
        """How far each landmark is from where all the others expect it, in standard deviations.

        About 1.6 is usual (the root mean square is the square root of 3), 4 is rare.

        Args:
            points: (K, 3) RAS mm, NaN for missing ones.
            sigma_mm: error of the points along each axis, (K,) or one for all.

        Returns:
            (K,), NaN for missing points.
        """
        array = np.array(points, float)
        known = np.isfinite(array).all(1)
        deviation = np.full(len(array), np.nan)
        if known.sum() < 4:
            return deviation
        offset = self._offset(array, known)
        rows = np.repeat(known, 3)
        noise = np.broadcast_to(np.asarray(sigma_mm, float), known.shape)[known]
        precision = np.linalg.inv(
            self.free_covariance[np.ix_(rows, rows)] + np.diag(np.repeat(noise**2, 3))
        )
        # Conditional of one block given the rest: its precision is the diagonal block, and the
        # residual is block^-1 (precision @ offset) (e.g. Rasmussen & Williams 2006, eq. 5.12).
        weighted = (precision @ offset[rows]).reshape(-1, 3, 1)
        count = len(weighted)
        blocks = precision.reshape(count, 3, count, 3)[range(count), :, range(count)]
        squares = weighted.transpose(0, 2, 1) @ np.linalg.solve(blocks, weighted)
        found = np.sqrt(np.maximum(squares[:, 0, 0], 0.0))
        deviation[known] = found
        return deviation

    def resolve(
        self,
        found: npt.ArrayLike,
        corrected: npt.ArrayLike,
        sigma_mm: npt.ArrayLike,
    ) -> FloatArray:
        """The network's landmarks after a person has corrected some: where do the others go?

        The network's points are the shape's with independent errors of ``sigma_mm``; what is then
        left uncertain, P = (S^-1 + D^-1)^-1, tells how the errors of two points go together. The
        corrections d of the points C move the others by P[., C] (P[C, C] + 0.5^2 I)^-1 d, so
        a correction of nothing moves nothing, and uncertain points follow more than sure ones.

        Args:
            found: (K, 3) RAS mm as the network found them, NaN for missing ones.
            corrected: (K, 3) RAS mm as a person placed them, NaN where none did.
            sigma_mm: (K,) error of the network's points along each axis.

        Returns:
            (K, 3) RAS mm: corrected points exactly as they were placed, the others moved; points
            that were neither found nor placed stay NaN.
        """
        net, placed = np.array(found, float), np.array(corrected, float)
        known, given = np.isfinite(net).all(1), np.isfinite(placed).all(1)
        result = np.where(given[:, None], placed, net)
        sigma = np.broadcast_to(np.asarray(sigma_mm, float), known.shape)
        if not given.any() or known.sum() < 4:
            return result
        turn = self.pose(net, known / np.where(known, sigma, 1.0) ** 2)[:3, :3]
        certain = np.where(known, 1.0 / sigma**2, 0.0)
        posterior = np.linalg.inv(
            np.linalg.inv(self.free_covariance) + np.diag(np.repeat(certain, 3))
        )
        # A point that the network did not find is compared with where the shape expects it.
        offset = (placed - np.where(known[:, None], net, self._expected(net, known)))[given]
        rows = np.repeat(given, 3)
        system = posterior[np.ix_(rows, rows)] + CORRECTED_MM**2 * np.eye(rows.sum())
        change = posterior[:, rows] @ np.linalg.solve(system, (offset @ turn).ravel())
        free = known & ~given
        result[free] += (change.reshape(-1, 3) @ turn.T)[free]
        return result

    def _expected(self, points: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
        """(K, 3) RAS mm: every landmark as the known ones lead to expect it."""
        rows = np.repeat(known, 3)
        covariance = self.free_covariance
        offset = self._offset(points, known)
        system = covariance[np.ix_(rows, rows)] + CORRECTED_MM**2 * np.eye(rows.sum())
        expected = covariance[:, rows] @ np.linalg.solve(system, offset[rows])
        return apply_affine(self.pose(points), self.mean + expected.reshape(-1, 3))

    def _offset(self, points: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
        """(3 K,) points in the canonical pose less the mean; zero where unknown."""
        posed = apply_affine(np.linalg.inv(self.pose(points)), points)
        return np.where(known[:, None], posed - self.mean, 0.0).ravel()


def uncertainty(confidence: npt.ArrayLike, deviation: npt.ArrayLike) -> FloatArray:
    """How much a landmark deserves a look: what the confidence leaves, times the deviation.

    Args:
        confidence: (K,) 0 to 1; NaN counts as 0.5.
        deviation: (K,) of `ShapeModel.deviation`; NaN, and less than usual, count as usual.
    """
    left = 1.0 - np.nan_to_num(np.asarray(confidence, float), nan=0.5)
    misfit = np.nan_to_num(np.asarray(deviation, float), nan=USUAL_DEVIATION) / USUAL_DEVIATION
    return np.asarray(left * np.maximum(misfit, 1.0))


def write_shape(path: Path, shape: ShapeModel) -> None:
    """Write a shape model as a safetensors file of float32 arrays."""
    from safetensors.numpy import save_file

    save_file(shape.arrays(), path)


def read_shape(path: Path) -> ShapeModel:
    """Read a file of `write_shape`.

    Raises:
        UserError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        data = load_file(path)
        return ShapeModel.of_arrays(data)
    except (OSError, SafetensorError, KeyError, IndexError, ValueError):
        raise UserError(
            f"{path.name} of the model {path.parent.name} is damaged; install the model again."
        ) from None


def sigma_of_confidence(
    confidence: npt.ArrayLike, threshold_mm: float, low_mm: float = 0.5, high_mm: float = 10.0
) -> FloatArray:
    """Error along each axis, mm, that a confidence stands for.

    A confidence p says that the error is below ``threshold_mm`` with probability p. For errors
    that are Gaussian and alike in all directions their length follows a Maxwell distribution, the
    p-quantile of which is ``threshold_mm``.

    Args:
        confidence: 0 to 1; NaN counts as 0.
        threshold_mm: the error that still counts as right (`decoding.Calibration`).
        low_mm, high_mm: limits of the result.
    """
    from scipy.special import gammaincinv

    p = np.clip(np.nan_to_num(np.asarray(confidence, float)), 1e-6, 1 - 1e-6)
    quantile = np.sqrt(2 * gammaincinv(1.5, p))
    return np.asarray(np.clip(threshold_mm / quantile, low_mm, high_mm))


def _filled(data: FloatArray) -> FloatArray:
    """Centred rows with NaN replaced by what the others of the row lead to expect (EM)."""
    missing = np.isnan(data)
    full = np.where(missing, 0.0, data)
    for _ in range(_FILL_ROUNDS if missing.any() else 0):
        covariance = _shrunk(full)
        for row, lost in zip(full, missing):
            if lost.any():
                known = ~lost
                row[lost] = covariance[np.ix_(lost, known)] @ np.linalg.solve(
                    covariance[np.ix_(known, known)], row[known]
                )
    return full


def _shrunk(data: FloatArray) -> FloatArray:
    """Covariance of centred rows (n, d), shrunk to a multiple of the identity (Ledoit and Wolf)."""
    count, size = data.shape
    sample = data.T @ data / count
    level = np.trace(sample) / size
    target = level * np.eye(size)
    distance = ((sample - target) ** 2).sum()
    # Mean over the rows of |x x' - S|^2 without forming each product.
    scatter = ((data**2).sum(1) ** 2).sum() / count - (sample**2).sum()
    share = min(max(scatter / count, 0.0) / max(distance, 1e-12), 1.0)
    return np.asarray(share * target + (1 - share) * sample)
