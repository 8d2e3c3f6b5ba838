"""What the refinement network learns from: boxes near landmarks, guesses like the fine network's.

In detection a box lies round points that the fine network has found, and these points, off by some
millimetres, are the prior. Training draws both: a box at a random place near a landmark, and for
every landmark in it a guess that is wrong at random, most a little, some by far. So the network
learns what the guess does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksTrainLib.synthesis.generator import HeadSampler

from .scans import ScanSampler

ASIDE_MM = 14.0
"""How far from a landmark the middle of a box lies at most, along each axis."""

GUESS_MM, GUESS_SPREAD = 1.7, 0.5
"""Errors of the guesses along each axis: the median of their standard deviations, and the standard
deviation of the logarithm of these. The distances then are 3.1 mm in the mean."""

EDGE = 3
"""A landmark within so many voxels of the box's edge does not count: too little of it is seen."""

_FEWEST = 3
_ATTEMPTS = 50


@dataclass(frozen=True)
class RefinementSampler:
    """Makes training samples of boxes (`engine.batches.Sampler`), with guesses.

    Args:
        inner: makes the images; its lattice is moved to every box.
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
    """

    inner: HeadSampler | ScanSampler
    mean_shape: FloatArray

    def __call__(
        self, step: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalised cube (1, I, J, K), points and guesses (K, 3) in voxels, NaN missing."""
        for _ in range(_ATTEMPTS):
            near = self.mean_shape[rng.integers(len(self.mean_shape))]
            middle = near + rng.uniform(-ASIDE_MM, ASIDE_MM, 3)
            x, y, z = (float(at) for at in middle)
            lattice = replace(self.inner.lattice, center_mm=(x, y, z))
            cube, points = replace(self.inner, lattice=lattice)(step, rng)
            size = torch.tensor(cube.shape[1:])
            seen = ((points >= EDGE - 0.5) & (points <= size - EDGE - 0.5)).all(1)
            if seen.sum() >= min(_FEWEST, len(points)):
                break
        points = torch.where(seen[:, None], points, torch.nan)
        deviation = GUESS_MM * np.exp(GUESS_SPREAD * rng.standard_normal((len(points), 1)))
        error = deviation * rng.standard_normal(points.shape) / lattice.spacing_mm
        return cube, points, points + torch.from_numpy(error).float()
