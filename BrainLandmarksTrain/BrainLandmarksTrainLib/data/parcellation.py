"""What the parcellation network learns from: boxes of scans and rendered heads, with their classes.

A box lies anywhere in the head, mostly about landmarks: their rules read the structures there.
Image and classes come from one deformation, so they agree to a rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.imaging import intensity
from BrainLandmarksTrainLib.engine.segmentation import IGNORE, SURE
from BrainLandmarksTrainLib.synthesis.appearance import Appearance
from BrainLandmarksTrainLib.synthesis.deformation import Deformation
from BrainLandmarksTrainLib.synthesis.generator import HeadGenerator
from BrainLandmarksTrainLib.synthesis.head import Head, nearest
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import Variation

from .classes import Classes
from .scans import TrainingScan
from .segmentations import ClassMap

EDGE = 3
"""Voxels so near the edge of a box do not count: too little is seen of what is about them."""

_BELOW, _NEAR_LANDMARKS = 0.15, 0.6
"""Shares of the boxes that lie below the brain and in its lowest part, where muscles look like
cortex, and about a landmark; the others lie anywhere in the head."""

_LOWEST = 0.28
"""Share of the landmarks' height that is the lowest part."""

MIDLINE_MM = 14.0
"""The parts that a label map may not tell from the whole lie so near the midline."""

_BRAIN_VOXELS = 2000
"""From so many voxels of brain it can be seen how bright white matter is."""

_GAIN = 0.15
"""Largest logarithm of the error in that."""

_BRIGHT = 0.99
_ASIDE_MM = 18.0
_INWARDS = 0.97


@dataclass(frozen=True)
class Parcelled:
    """An image and its classes on the voxels of a lattice.

    Args:
        image: (I, J, K), white matter at about 1.
        classes: (I, J, K) uint8, `IGNORE` where nothing is known.
        readings: (C, C), what a class may be.
        flipped: Whether left and right are swapped, not yet in the classes.
    """

    image: torch.Tensor
    classes: torch.Tensor
    readings: np.ndarray
    flipped: bool


class Source(Protocol):
    """Images with their classes."""

    def __call__(self, lattice: Lattice, rng: np.random.Generator, /) -> Parcelled:
        """One of them on the voxels of a lattice."""


@dataclass(frozen=True)
class ParcelledScan:
    """A scan and its classes."""

    scan: TrainingScan
    classes: ClassMap

    @functools.cached_property
    def level(self) -> float:
        """Brightness of white matter: 99 % of the brain is darker."""
        labels = self.classes.voxels().numpy()
        brain = np.argwhere((labels > 0) & (labels != IGNORE))[::7]
        ras = apply_affine(self.classes.affine, brain)
        stored = load_file(self.scan.file)["image"].float()
        ijk = np.rint(apply_affine(np.linalg.inv(self.scan.affine), ras)).astype(int)
        ijk = np.clip(ijk, 0, np.array(stored.shape) - 1)
        if len(ijk) < _BRAIN_VOXELS // 7:
            return intensity.foreground_percentile(stored.flatten())
        return max(float(np.quantile(stored.numpy()[tuple(ijk.T)], _BRIGHT)), 1e-6)


@dataclass(frozen=True)
class ScanSource:
    """Scans, varied (`Source`).

    Args:
        scans: What is drawn from.
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
        variation: Ranges of pose and anatomy; the rest of it concerns rendered heads.
        appearance: What else varies; None for scans as they are.
    """

    scans: Sequence[ParcelledScan]
    mean_shape: FloatArray
    variation: Variation
    appearance: Appearance | None = None

    def __call__(self, lattice: Lattice, rng: np.random.Generator) -> Parcelled:
        """A scan on the voxels of a lattice."""
        chosen = self.scans[int(rng.integers(len(self.scans)))]
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        deformation = Deformation.random(self.variation, rng, noise, lattice.reach_mm, "cpu")
        to_head = chosen.scan.to_head(self.mean_shape)
        image = chosen.scan.seen(lattice, deformation, to_head) / chosen.level
        if self.appearance is not None:
            image = self.appearance(image, lattice, rng, noise) * _gain(rng)
        to_voxel = np.linalg.inv(chosen.classes.affine) @ to_head
        where = deformation.on_lattice(*lattice.coarse.axes("cpu"))
        classes = nearest(chosen.classes.voxels(), to_voxel, where)
        return Parcelled(image, classes, chosen.classes.readings, deformation.flips)


def _gain(rng: np.random.Generator) -> float:
    """An error in how bright white matter is."""
    return float(np.exp(rng.uniform(-_GAIN, _GAIN)))


@dataclass(frozen=True)
class LabelledHead:
    """A head for rendering, and its classes on the same voxels, (I, J, K) uint8."""

    head: Head
    classes: torch.Tensor
    readings: np.ndarray


@dataclass(frozen=True)
class HeadSource:
    """Heads, rendered (`Source`)."""

    heads: Sequence[LabelledHead]
    variation: Variation

    def __call__(self, lattice: Lattice, rng: np.random.Generator) -> Parcelled:
        """A rendered head on the voxels of a lattice."""
        chosen = self.heads[int(rng.integers(len(self.heads)))]
        head = chosen.head
        mirror = np.arange(len(head.landmarks))  # of no use here: the points are not asked for
        generator = HeadGenerator([head], mirror, self.variation)
        image, deformation = generator.render(head, lattice, rng)
        to_voxel = np.linalg.inv(head.affine) @ head.to_head
        where = deformation.on_lattice(*lattice.coarse.axes(chosen.classes.device))
        classes = nearest(chosen.classes, to_voxel, where)
        brain = image[(classes > 0) & (classes != IGNORE)]
        if len(brain) > _BRAIN_VOXELS:
            level = float(brain.quantile(_BRIGHT))
        else:
            level = intensity.foreground_percentile(image.flatten())
        image = image / max(level, 1e-6) * _gain(rng)
        far = (where[0].abs() > MIDLINE_MM) & (classes != IGNORE)
        classes = torch.where(far, classes + SURE, classes)
        return Parcelled(image, classes, chosen.readings, deformation.flips)


@dataclass(frozen=True)
class ParcellationSampler:
    """Makes training samples of boxes with classes (`engine.batches.Sampler`).

    Args:
        source: Makes the images.
        classes: The network's.
        lattice: Voxels of a sample; it is moved to every box.
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
        middle_mm: Where all boxes lie; by default anywhere.
    """

    source: Source
    classes: Classes
    lattice: Lattice
    mean_shape: FloatArray
    middle_mm: tuple[float, float, float] | None = None

    def __call__(
        self, step: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalised cube (1, I, J, K), its classes (I, J, K), and what these may be, (C, C)."""
        x, y, z = self.middle_mm or (float(at) for at in self._anywhere(rng))
        made = self.source(replace(self.lattice, center_mm=(x, y, z)), rng)
        labels, readings = made.classes.cpu().long(), made.readings
        if made.flipped:
            swap = self.classes.mirrored
            table = torch.full((IGNORE + 1,), IGNORE)
            for sure in (0, SURE):
                table[sure : sure + len(swap)] = torch.from_numpy(swap) + sure
            labels, readings = table[labels], readings[swap][:, swap]
        inner = torch.full_like(labels, IGNORE)
        inside = (slice(EDGE, -EDGE),) * 3
        inner[inside] = labels[inside]
        cube = made.image.cpu().float().clamp(0, intensity.UPPER_LIMIT)[None]
        return cube, inner.to(torch.uint8), torch.from_numpy(readings)

    def _anywhere(self, rng: np.random.Generator) -> FloatArray:
        shape = self.mean_shape
        low, high = shape.min(0), shape.max(0)
        kind = rng.random()
        if kind < _BELOW:
            highest = low[2] + _LOWEST * (high[2] - low[2])
            return rng.uniform([*low[:2], low[2] - _ASIDE_MM], [*high[:2], highest])
        if kind < _BELOW + _NEAR_LANDMARKS:
            near = shape[rng.integers(len(shape))] * _INWARDS
            return np.asarray(near + rng.uniform(-_ASIDE_MM, _ASIDE_MM, 3))
        return rng.uniform(low, high)

    def tiles(self) -> list[ParcellationSampler]:
        """Samplers of boxes that together show the landmarks and what is about them."""
        low, high = self.mean_shape.min(0) - _ASIDE_MM / 2, self.mean_shape.max(0) + _ASIDE_MM / 2
        middles = []
        for first, last, count in zip(low, high, self.lattice.shape):
            side = (count - 2 * EDGE) * self.lattice.spacing_mm
            boxes = int(np.ceil((last - first) / side))
            at = (np.arange(boxes) - (boxes - 1) / 2) * side + (first + last) / 2
            middles.append([float(m) for m in at])
        return [
            replace(self, middle_mm=(x, y, z))
            for x in middles[0]
            for y in middles[1]
            for z in middles[2]
        ]
