"""Synthetic training heads: label maps turned into images of random anatomy, pose and contrast.

A head that exists only as labels becomes an endless supply of images (Billot et al., SynthSeg,
Med. Image Anal. 86:102789, 2023). Every sample draws

* an anatomy: size, shear, smooth non-linear deformation, left-right flip;
* a scanner: contrast per tissue (T1-like in half of the samples), texture, partial volume, slice
  thickness, bias field, noise;
* a protocol: pose in the scanner, field of view that may cut the neck or the top.

The landmarks are carried through the very same functions, point by point: the deformation is a
cubic B-spline whose value at a point is known exactly, and its inverse is solved to 1e-3 mm.
Points that a rule places (equal distances along a contour, extremes) do not follow a deformation,
though: training deforms label maps first and places the landmarks anew
(:mod:`.deformed_copies`), and draws only pose, size and scanner here.
Everything runs on torch tensors, on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from BrainLandmarksLib.imaging import intensity

from .appearance import blur, rician, shading
from .deformation import Deformation, image_points, rotation_matrix
from .head import Head, nearest_voxels
from .lattice import Lattice, in_cube
from .tissues import EXTRACEREBRAL, NAMES, TISSUES
from .variation import Variation

_HEAD_REACH_MM = 104.0


@dataclass(frozen=True)
class HeadSampler:
    """Makes the samples that the trainer takes (`engine.batches.Sampler`)."""

    generator: HeadGenerator
    lattice: Lattice

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised cube (1, I, J, K) and points (K, 3) in voxels, NaN missing."""
        image, points = self.generator.sample(self.lattice, rng)
        cube = intensity.normalise(image)[None]
        return cube, torch.as_tensor(points, dtype=torch.float32)


class HeadGenerator:
    """Draws synthetic images of one or more heads.

    Example::

        generator = HeadGenerator(heads, protocol.mirror_permutation(), CANONICAL)
        image, points = generator.sample(Lattice((64, 64, 64), 3.25), np.random.default_rng(0))

    ``mirror`` (K,) swaps left and right landmarks when a sample is flipped.
    """

    def __init__(self, heads: Sequence[Head], mirror: np.ndarray, variation: Variation) -> None:
        self.heads = list(heads)
        self.mirror = np.asarray(mirror)
        self.variation = variation

    def sample(
        self, lattice: Lattice, rng: np.random.Generator, head: Head | None = None
    ) -> tuple[torch.Tensor, np.ndarray]:
        """One image and its landmarks.

        Returns (image, points): image float32 (I, J, K), not normalised, air = 0; points (K, 3) in
        voxel coordinates of the lattice, NaN where the landmark is not in the image.
        """
        head = head or self.heads[rng.integers(len(self.heads))]
        image, deformation = self.render(head, lattice, rng)
        points = image_points(deformation, head.to_head, head.landmarks, self.mirror)
        image, seen = self._cut(image, lattice, points, rng)
        image = self._voids(image, lattice, rng)
        return image, in_cube(lattice, np.where(seen[:, None], points, np.nan))

    def render(
        self, head: Head, lattice: Lattice, rng: np.random.Generator
    ) -> tuple[torch.Tensor, Deformation]:
        """An image of a head as `sample` gives it, whole, and where its voxels come from."""
        v = self.variation
        device = head.tissues.device
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        reach = lattice.reach_mm
        deformation = Deformation.random(v, rng, noise, reach, device)
        axes = lattice.axes(device)
        tissue = nearest_voxels(head, deformation.on_lattice(*axes))
        stripped = rng.random() < v.stripped_share
        image = self._signal(tissue, rng, noise, stripped)
        image *= shading(axes, reach, rng.uniform(0, v.bias), noise)
        image = self._thick_slices(image, lattice, rng)
        return self._add_noise(lattice.means(image), rng, noise), deformation

    def _signal(
        self, tissue: torch.Tensor, rng: np.random.Generator, noise: torch.Generator, strip: bool
    ) -> torch.Tensor:
        """Signal of every sub-voxel: a mean and a texture per tissue."""
        v = self.variation
        usual = v.signals or tuple(signal for _, signal in TISSUES.values())
        t1 = np.array([0.0, *usual])
        if rng.random() < v.t1_share:
            spread = np.where(np.isin(NAMES, EXTRACEREBRAL), 0.30, 0.06)
            mean = t1 * (1 + spread * rng.standard_normal(len(t1)))
            # The grey-white and grey-fluid contrasts vary with the sequence, not their order.
            mean = np.clip(mean, 0, 1.4) ** rng.uniform(0.7, 1.5)
        else:
            mean = rng.uniform(0, 1, len(t1))
        texture = rng.uniform(0, v.texture, len(t1))
        mean[0] = 0.0
        texture[0] = 0.0
        if strip:
            hidden = np.isin(NAMES, EXTRACEREBRAL)
            mean[hidden] = 0.0
            texture[hidden] = 0.0
        device = tissue.device
        index = tissue.to(torch.int64)
        means = torch.as_tensor(mean, dtype=torch.float32, device=device)
        textures = torch.as_tensor(texture, dtype=torch.float32, device=device)
        grain = torch.randn(tissue.shape, generator=noise).to(device)
        return (means[index] + textures[index] * grain).clamp_(min=0)

    def _thick_slices(
        self, image: torch.Tensor, lattice: Lattice, rng: np.random.Generator
    ) -> torch.Tensor:
        """Blur of the acquired voxel: a little in plane, a lot across thick slices."""
        v = self.variation
        size = np.full(3, rng.uniform(0.5, 2.0))
        if rng.random() < v.thick_share:
            size[rng.integers(3)] = rng.uniform(2.0, v.thickness_mm)
        step = lattice.spacing_mm / lattice.oversampling
        for axis in range(3):
            sigma = size[axis] / 2.355 / step
            if sigma > 0.3:
                image = blur(image, sigma, axis)
        return image

    def _add_noise(
        self, image: torch.Tensor, rng: np.random.Generator, noise: torch.Generator
    ) -> torch.Tensor:
        return rician(image, rng.uniform(0, self.variation.noise) * float(image.max()), noise)

    def _cut(
        self, image: torch.Tensor, lattice: Lattice, points: np.ndarray, rng: np.random.Generator
    ) -> tuple[torch.Tensor, np.ndarray]:
        """End of the field of view: beyond a plane there is nothing.

        Returns the cut image and which of ``points`` (image mm) are still in it.
        """
        seen = np.isfinite(points).all(1)
        if rng.random() >= self.variation.cut_share or not seen.any():
            return image, seen
        normal = _cut_direction(rng)
        # Mostly below everything that matters (a neck), sometimes through the landmarks.
        height = points[seen] @ normal
        low, high = height.min(), height.max()
        end = max(high + 25 - rng.exponential(22.0), (low + high) / 2)
        x, y, z = (
            torch.as_tensor(
                ((np.arange(n) - (n - 1) / 2) * lattice.spacing_mm + lattice.center_mm[k])
                * normal[k],
                dtype=torch.float32,
                device=image.device,
            )
            for k, n in enumerate(lattice.shape)
        )
        level = x[:, None, None] + y[None, :, None] + z[None, None, :]
        image = torch.where(level <= end, image, 0.0)
        with np.errstate(invalid="ignore"):
            seen &= points @ normal <= end
        return image, seen

    def _voids(
        self, image: torch.Tensor, lattice: Lattice, rng: np.random.Generator
    ) -> torch.Tensor:
        """Boxes without signal (random erasing, Zhong et al., AAAI 2020).

        They are drawn over the whole head, so a lattice that shows a part of it has its share.
        """
        if rng.random() >= self.variation.void_share:
            return image
        image = image.clone()
        for _ in range(rng.integers(1, 4)):
            size = rng.uniform(*self.variation.void_mm, 3) / lattice.spacing_mm
            first = lattice.to_ijk(rng.uniform(-1, 1, 3) * max(lattice.reach_mm, _HEAD_REACH_MM))
            low = np.clip(np.round(first - size / 2), 0, None).astype(int)
            high = np.clip(np.round(first + size / 2), 0, None).astype(int)
            image[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 0.0
        return image


def _cut_direction(rng: np.random.Generator) -> np.ndarray:
    """Unit vector pointing out of the field of view: neck mostly, top or a side at times."""
    axes = np.array([[0, 0, -1], [0, 0, 1], [0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0]], float)
    chosen = rng.choice(6, p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05])
    return rotation_matrix(np.deg2rad(rng.uniform(-15, 15, 3))) @ axes[chosen]
