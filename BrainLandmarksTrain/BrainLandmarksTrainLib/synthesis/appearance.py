"""What scanners do to images: blur, shading, noise; and how scans of one head differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .deformation import Spline
from .lattice import Lattice

SHADING_MM = 90.0
"""How far apart the control points of a shading lie."""

_DETAIL_VOXELS = 0.8


def blur(image: torch.Tensor, sigma: float, axis: int) -> torch.Tensor:
    """Gaussian along one axis, sigma in voxels, nothing (0) outside."""
    radius = int(np.ceil(3 * sigma))
    t = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel /= kernel.sum()
    moved = image.movedim(axis, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    blurred = torch.nn.functional.conv1d(flat, kernel[None, None], padding=radius)
    return blurred.view(moved.shape).movedim(-1, axis).contiguous()


def shading(
    axes: Sequence[torch.Tensor], reach_mm: float, deviation: float, noise: torch.Generator
) -> torch.Tensor:
    """Smooth random factors on the lattice of some axes; ``deviation`` is that of their log."""
    field = Spline.random(1, deviation, SHADING_MM, reach_mm, noise, axes[0].device)
    return field.on_lattice(*axes)[0].exp()


def rician(image: torch.Tensor, scale: float, noise: torch.Generator) -> torch.Tensor:
    """An image with Rician noise: the magnitude of a complex signal."""
    real = torch.randn(image.shape, generator=noise).to(image.device)
    imaginary = torch.randn(image.shape, generator=noise).to(image.device)
    return torch.hypot(image + scale * real, scale * imaginary)


@dataclass(frozen=True)
class Appearance:
    """How scans of one head differ: in what share of them, and how far.

    Images are scaled so that bright tissue is about 1.
    """

    shading: tuple[float, float] = (0.8, 0.45)
    """Share, largest deviation of the logarithm."""
    gamma: tuple[float, float] = (0.6, 0.35)
    """Share, largest logarithm of the power that intensities are taken to."""
    blur: tuple[float, float, float] = (0.3, 0.3, 1.0)
    """Share, least and largest sigma along each axis, voxels."""
    sharpening: tuple[float, float, float] = (0.25, 0.3, 1.0)
    """Share, least and largest part of the detail that is added: scans of finer voxels show it."""
    noise: tuple[float, float] = (0.5, 0.05)
    """Share, largest scale."""

    def __call__(
        self,
        image: torch.Tensor,
        lattice: Lattice,
        rng: np.random.Generator,
        noise: torch.Generator,
    ) -> torch.Tensor:
        """Another scan of the same head: an image (I, J, K) on the voxels of a lattice, changed."""
        if rng.random() < self.shading[0]:
            axes = lattice.coarse.axes(image.device)
            deviation = rng.uniform(0, self.shading[1])
            image = image * shading(axes, lattice.reach_mm, deviation, noise)
        if rng.random() < self.gamma[0]:
            image = image.clamp(min=0) ** float(np.exp(rng.uniform(-1, 1) * self.gamma[1]))
        if rng.random() < self.blur[0]:
            for axis, sigma in enumerate(rng.uniform(*self.blur[1:], 3)):
                image = blur(image, sigma, axis)
        if rng.random() < self.sharpening[0]:
            smooth = image
            for axis in range(3):
                smooth = blur(smooth, _DETAIL_VOXELS, axis)
            image = image + rng.uniform(*self.sharpening[1:]) * (image - smooth)
            image = image.clamp(min=0)
        if rng.random() < self.noise[0]:
            image = rician(image, rng.uniform(0, self.noise[1]), noise)
        return image
