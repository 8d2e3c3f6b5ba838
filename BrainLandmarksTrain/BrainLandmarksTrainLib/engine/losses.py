"""Losses on heatmaps and on the coordinates a spatial softmax reads from them (paper, III-E).

With logits ``H`` of one landmark, ``phi = softmax(H)`` over the voxels and ``p_hat`` the mean voxel
coordinate under ``phi``:

- heatmap loss ``L_h = -sum(T * log(phi))``, T a Gaussian round the true point that sums to one;
- coordinate loss ``L_c = |p - p_hat|**2`` (or ``|p - p_hat|``), in voxels;
- mixed loss ``L_M = alpha * L_h + (1 - alpha) * L_c``.

Each is averaged over the landmarks that are present. T, ``phi`` and the gradient are never built
as separate K x N^3 volumes: T is only non-zero in a small window, and the gradient has the closed
form ``phi * (g_h + sum_a g_a * (x_a - p_hat_a)) - g_h * T``, so a step costs a few passes over the
logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Coordinate = Literal["mse", "euclidean"]

#: Half-width of the window that holds the target Gaussian, in standard deviations.
TARGET_EXTENT = 4.0


def visible(points: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Which points count: not NaN and inside the cube. ``(B, K, 3)`` ijk to ``(B, K)`` bool."""
    size = points.new_tensor(shape)
    inside = (points >= -0.5) & (points <= size - 0.5)  # a comparison with NaN is false
    return inside.all(-1)


def target_window(
    points: Tensor, shape: tuple[int, int, int], sigma: float
) -> tuple[Tensor, Tensor]:
    """The non-zero part of the target heatmaps.

    Args:
        points: ``(B, K, 3)`` ijk voxel coordinates, no NaN.
        shape: size of the cube, ``(D, H, W)``.
        sigma: standard deviation of the Gaussian, in voxels.

    Returns:
        Flat voxel indices ``(B, K, M)`` and the Gaussian's values there, which sum to one over M.
    """
    radius = math.ceil(TARGET_EXTENT * sigma)
    offsets = torch.arange(-radius, radius + 1, device=points.device)
    indices, values = [], []
    for axis, size in enumerate(shape):
        position = points[..., axis, None]
        index = position.round().long() + offsets
        value = torch.exp(-0.5 * ((index - position) / sigma) ** 2)
        value = value * ((index >= 0) & (index < size))
        indices.append(index.clamp(0, size - 1))
        values.append(value / value.sum(-1, keepdim=True))
    i, j, k = indices
    flat = (i[..., :, None, None] * shape[1] + j[..., None, :, None]) * shape[2]
    flat = flat + k[..., None, None, :]
    u, v, w = values
    value = u[..., :, None, None] * v[..., None, :, None] * w[..., None, None, :]
    return flat.flatten(2), value.flatten(2)


class HeatmapCrossEntropy(torch.autograd.Function):
    """Cross entropy and coordinate of every heatmap in one pass, with the closed-form gradient."""

    @staticmethod
    def forward(ctx: Any, heatmaps: Tensor, points: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Cross entropy ``(B, K)`` and coordinates ``(B, K, 3)`` of logits ``(B, K, D, H, W)``."""
        d, h, w = heatmaps.shape[2:]
        logits = heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()
        peak = logits.amax((2, 3, 4), keepdim=True)
        mass = (logits - peak).exp_()
        plane = mass.sum(4)
        marginals = (plane.sum(3), plane.sum(2), mass.sum((2, 3)))
        total = marginals[0].sum(-1)
        axes = [torch.arange(n, device=mass.device, dtype=mass.dtype) for n in (d, h, w)]
        coordinates = torch.stack([(m @ x) / total for m, x in zip(marginals, axes)], -1)
        index, target = target_window(points.to(mass.dtype), (d, h, w), sigma)
        expected = (logits.flatten(2).gather(2, index) * target).sum(-1)
        cross_entropy = total.log() + peak.flatten(1) - expected
        ctx.save_for_backward(mass, total, coordinates, index, target)
        ctx.dtype = heatmaps.dtype
        return cross_entropy, coordinates

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Gradient with respect to the logits; the points get none."""
        entropy_gradient, coordinate_gradient = gradients
        mass, total, coordinates, index, target = ctx.saved_tensors
        weight = coordinate_gradient / total[..., None]
        offset = entropy_gradient / total - (weight * coordinates).sum(-1)
        fields = []
        for axis, size in enumerate(mass.shape[2:]):
            x = torch.arange(size, device=mass.device, dtype=mass.dtype)
            fields.append(weight[..., axis, None] * x)
        i = (fields[0] + offset[..., None])[..., :, None, None]
        j, k = fields[1][..., None, :, None], fields[2][..., None, None, :]
        # Fill in the layout of the logits: no transposed copy of K x N^3 numbers.
        gradient = torch.empty_like(mass)
        torch.add((i + j).expand_as(mass), k, out=gradient)
        gradient.mul_(mass)
        flat = gradient.flatten(2)
        flat.scatter_add_(2, index, -entropy_gradient[..., None] * target)
        return gradient.to(ctx.dtype), None, None


@dataclass(frozen=True)
class LossParts:
    """A loss and what it is made of; scalars in voxels (``heatmap`` in nats)."""

    total: Tensor
    heatmap: Tensor
    coordinate: Tensor
    radial_error: Tensor
    """Mean distance between predicted and true points, in voxels, detached."""
    coordinates: Tensor
    """Predicted ijk coordinates, ``(B, K, 3)``."""
    count: int
    """Landmarks that counted."""


class MixedLoss:
    """The paper's mixed loss ``alpha * L_h + (1 - alpha) * L_c``.

    >>> loss = MixedLoss(alpha=0.4, sigma=1.5)
    >>> parts = loss(network(cube), points)
    >>> parts.total.backward()

    Args:
        alpha: weight of the heatmap loss; 1 is L_h alone, 0 is L_c alone.
        sigma: standard deviation of the target Gaussian, in voxels.
        coordinate: ``"mse"`` as in the paper, or ``"euclidean"``, the distance itself, whose
            gradient does not fade as a landmark gets close.
    """

    def __init__(
        self, alpha: float = 0.4, sigma: float = 1.5, coordinate: Coordinate = "mse"
    ) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        if sigma <= 0.0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        if coordinate not in ("mse", "euclidean"):
            raise ValueError(f"the coordinate loss is 'mse' or 'euclidean', got {coordinate!r}")
        self.alpha = alpha
        self.sigma = sigma
        self.coordinate = coordinate

    def __call__(self, heatmaps: Tensor, points: Tensor, divisor: float | None = None) -> LossParts:
        """Compare heatmaps ``(B, K, D, H, W)`` with ijk points ``(B, K, 3)``, NaN = missing.

        Args:
            divisor: what the sums over landmarks are divided by, where these are a part of a
                larger batch; by default their own number.
        """
        d, h, w = heatmaps.shape[2:]
        present = visible(points, (d, h, w))
        count = int(present.sum())
        points = torch.where(present[..., None], points, torch.zeros_like(points))
        entropy, coordinates = HeatmapCrossEntropy.apply(heatmaps, points, self.sigma)
        weight = present.to(entropy.dtype) / (divisor or max(count, 1))
        squared = (coordinates - points).square().sum(-1)
        # The small constant keeps the gradient of the root finite at zero distance.
        distance = (squared + 1e-6).sqrt()
        heatmap = (entropy * weight).sum()
        coordinate = ((squared if self.coordinate == "mse" else distance) * weight).sum()
        return LossParts(
            total=self.alpha * heatmap + (1.0 - self.alpha) * coordinate,
            heatmap=heatmap.detach(),
            coordinate=coordinate.detach(),
            radial_error=(squared.detach().sqrt() * weight).sum(),
            coordinates=coordinates.detach(),
            count=count,
        )
