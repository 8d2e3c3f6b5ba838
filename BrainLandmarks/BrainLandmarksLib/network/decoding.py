"""From heatmaps to coordinates, and from a heatmap's shape to a confidence.

A heatmap is a grid of logits; its softmax over the voxels is the probability that the landmark
lies in each. Coordinates are voxel coordinates "ijk" along the cube's three axes, with voxel
centres at integers; :class:`BrainLandmarksLib.geometry.grid.Grid` turns them into RAS millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Decoded:
    """What :func:`decode` reads from heatmaps; tensors of shape ``(B, K, 3)`` or ``(B, K)``."""

    coordinates: Tensor
    """Mean voxel coordinates under the softmax, or under a sharpened one, ijk."""
    spread: Tensor
    """Root of the trace of the softmax's covariance, in voxels: how far the mass lies from its
    mean. About 1.7 times the width of the target Gaussian for a sure landmark."""
    peak_mass: Tensor
    """Probability within ``radius`` voxels of the highest voxel, along each axis; 0 to 1."""


def _masses(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Unnormalised softmax ``(B, K, D, H, W)`` and its sum ``(B, K)``, in at least float32."""
    if heatmaps.ndim != 5:
        raise ValueError(f"heatmaps must be (B, K, D, H, W), got shape {tuple(heatmaps.shape)}")
    logits = heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()
    mass = torch.exp(logits - logits.amax((2, 3, 4), keepdim=True))
    return mass, mass.sum((2, 3, 4))


def _moments(mass: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, K, 3)`` and variance ``(B, K, 3)`` of the voxel coordinates under ``mass``."""
    plane = mass.sum(4)
    means, variances = [], []
    for marginal in (plane.sum(3), plane.sum(2), mass.sum((2, 3))):
        x = torch.arange(marginal.shape[-1], device=mass.device, dtype=mass.dtype)
        weight = marginal / total[..., None]
        mean = (weight * x).sum(-1)
        means.append(mean)
        # Second moment about the mean: the difference of two large moments would lose digits.
        variances.append((weight * (x - mean[..., None]) ** 2).sum(-1))
    return torch.stack(means, -1), torch.stack(variances, -1)


def spatial_softmax(heatmaps: Tensor) -> Tensor:
    """Expected voxel coordinate under the softmax of each heatmap (paper, III-E).

    Sub-voxel and differentiable, and every voxel counts: a second bump pulls the result.

    Args:
        heatmaps: logits ``(B, K, D, H, W)``.

    Returns:
        ``(B, K, 3)`` ijk.
    """
    return _moments(*_masses(heatmaps))[0]


def argmax(heatmaps: Tensor) -> Tensor:
    """Voxel coordinate of the highest logit of each heatmap: whole voxels, no second bump counts.

    Args:
        heatmaps: logits ``(B, K, D, H, W)``.

    Returns:
        ``(B, K, 3)`` ijk, of the heatmaps' dtype (float32 for half-precision heatmaps).
    """
    _, _, _, h, w = heatmaps.shape
    flat = heatmaps.flatten(2).argmax(2)
    index = torch.stack([flat // (h * w), flat // w % h, flat % w], -1)
    return index.to(torch.float64 if heatmaps.dtype == torch.float64 else torch.float32)


def _window(volume: Tensor, centre: Tensor, radius: int) -> Tensor:
    """Values ``(B, K, M)`` in a box round ``centre``, zero outside the volume."""
    offset = torch.arange(-radius, radius + 1, device=volume.device)
    axes, inside = [], []
    for axis, size in enumerate(volume.shape[2:]):
        index = centre[..., axis, None].long() + offset
        inside.append((index >= 0) & (index < size))
        axes.append(index.clamp(0, size - 1))
    i, j, k = axes[0][..., :, None, None], axes[1][..., None, :, None], axes[2][..., None, None, :]
    a, b, c = (
        inside[0][..., :, None, None],
        inside[1][..., None, :, None],
        inside[2][..., None, None, :],
    )
    flat = ((i * volume.shape[3] + j) * volume.shape[4] + k).flatten(2)
    return volume.flatten(2).gather(2, flat) * (a & b & c).flatten(2)


def decode(heatmaps: Tensor, radius: int = 3, inverse_temperature: float = 1.0) -> Decoded:
    """Coordinates by spatial softmax, with the features that confidence is made of.

    >>> decoded = decode(network(cube))
    >>> confidence = model.calibration(decoded.spread[0].numpy() * voxel_mm)

    Args:
        heatmaps: logits ``(B, K, D, H, W)``.
        radius: half-width of the window of ``peak_mass``, in voxels.
        inverse_temperature: the coordinates are those under the softmax of the logits times this;
            above 1, faint mass far from the peak pulls them less. The features stay those of the
            softmax.
    """
    mass, total = _masses(heatmaps)
    mean, variance = _moments(mass, total)
    peak = _window(mass, argmax(heatmaps), radius)
    if inverse_temperature != 1.0:
        sharp = mass**inverse_temperature
        mean, _ = _moments(sharp, sharp.sum((2, 3, 4)))
    return Decoded(mean, variance.sum(-1).sqrt(), peak.sum(-1) / total)


@dataclass(frozen=True)
class Calibration:
    """Confidence: the probability that a landmark lies within ``threshold_mm`` of the truth.

    A monotone, piecewise-linear table from one heatmap feature to a probability, fitted on heads
    that training never saw.

    >>> calibration = Calibration.fit(spread_mm, error_mm)
    >>> confidence = calibration(spread_mm)

    Args:
        knots: feature values, strictly increasing.
        probabilities: confidence at each knot, 0 to 1, all falling or all rising.
        threshold_mm: the error that still counts as right.
        feature: what the feature is; a label, for the reader of ``model.json``.
        count: number of landmarks it was fitted on.
        agreement: the same for landmarks that were seen in two ways, from how far apart these are
            in mm; None where there is only one.
    """

    knots: tuple[float, ...]
    probabilities: tuple[float, ...]
    threshold_mm: float = 4.0
    feature: str = "spread_mm"
    count: int = 0
    agreement: Calibration | None = None

    def __post_init__(self) -> None:
        x, p = np.asarray(self.knots, float), np.asarray(self.probabilities, float)
        if x.ndim != 1 or x.shape != p.shape or len(x) == 0:
            raise ValueError("a calibration needs one probability for each knot")
        if not (np.isfinite(x).all() and (np.diff(x) > 0).all()):
            raise ValueError("the knots of a calibration must be finite and increasing")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("the probabilities of a calibration must lie between 0 and 1")
        steps = np.diff(p)
        if not ((steps <= 0).all() or (steps >= 0).all()):
            raise ValueError("the probabilities of a calibration must all fall or all rise")

    def __call__(self, feature: np.ndarray, apart: np.ndarray | None = None) -> np.ndarray:
        """Confidence 0..1 of feature values of any shape; NaN stays NaN, the ends are held.

        Args:
            apart: How far apart the two ways see each landmark, mm, NaN where there is one.
        """
        feature = np.asarray(feature, dtype=np.float64)
        confidence = np.where(
            np.isnan(feature), np.nan, np.interp(feature, self.knots, self.probabilities)
        )
        if self.agreement is None or apart is None:
            return confidence
        return np.where(np.isnan(apart), confidence, self.agreement(apart))

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        errors: np.ndarray,
        *,
        threshold_mm: float = 4.0,
        rising: bool = False,
        knots: int = 16,
        feature: str = "spread_mm",
    ) -> Calibration:
        """Fit by isotonic regression (pool adjacent violators; Zadrozny & Elkan, KDD 2002).

        Args:
            features: ``(n,)`` heatmap feature of each landmark.
            errors: ``(n,)`` distance to the truth in mm; pairs with NaN are left out.
            threshold_mm: the error that still counts as right.
            rising: whether a larger feature means a surer landmark (``peak_mass``); a larger
                ``spread`` means a less sure one.
            knots: most knots to keep.
            feature: name of the feature, kept for the reader.

        Raises:
            ValueError: fewer than two usable pairs.
        """
        x, e = np.ravel(features).astype(float), np.ravel(errors).astype(float)
        good = np.isfinite(x) & np.isfinite(e)
        x, right = x[good], (e[good] <= threshold_mm).astype(float)
        if len(x) < 2:
            raise ValueError("a calibration needs at least two landmarks")
        order = np.argsort(x, kind="stable")
        x, right = x[order], right[order]
        # Equal-count bins first: single landmarks would give a table of zeros and ones.
        bins = np.array_split(np.arange(len(x)), min(knots, max(1, len(x) // 10)))
        centre = np.array([x[b].mean() for b in bins])
        weight = np.array([float(len(b)) for b in bins])
        # One success and one failure more than seen: no finite sample proves certainty.
        value = np.array([(right[b].sum() + 1.0) / (len(b) + 2.0) for b in bins])
        value = _monotone(value if rising else -value, weight)
        value = value if rising else -value
        # Bins of equal features become one knot.
        places, place = np.unique(np.round(centre, 6), return_inverse=True)
        value = np.bincount(place, value * weight) / np.bincount(place, weight)
        return cls(
            tuple(float(v) for v in places),
            tuple(round(float(v), 6) for v in np.clip(value, 0.0, 1.0)),
            float(threshold_mm),
            feature,
            len(x),
        )

    def to_dict(self) -> dict[str, Any]:
        """The table as plain JSON values."""
        agreement = {} if self.agreement is None else {"agreement": self.agreement.to_dict()}
        return {
            **agreement,
            "feature": self.feature,
            "threshold_mm": self.threshold_mm,
            "count": self.count,
            "knots": list(self.knots),
            "probabilities": list(self.probabilities),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Undo :meth:`to_dict`.

        Raises:
            ValueError: a field is missing or the table is not a calibration.
        """
        try:
            return cls(
                tuple(float(v) for v in values["knots"]),
                tuple(float(v) for v in values["probabilities"]),
                float(values["threshold_mm"]),
                str(values["feature"]),
                int(values.get("count", 0)),
                cls.from_dict(values["agreement"]) if "agreement" in values else None,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the calibration lacks or misstates {error}") from None


def _monotone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least-squares fit that never falls (pool adjacent violators)."""
    pools: list[list[float]] = []  # mean, weight, count
    for value, weight in zip(values, weights):
        pools.append([float(value), float(weight), 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, total, count = pools.pop()
            before = pools[-1]
            before[0] = (before[0] * before[1] + mean * total) / (before[1] + total)
            before[1] += total
            before[2] += count
    return np.repeat([p[0] for p in pools], [int(p[2]) for p in pools])
