"""Label maps rendered as scans that training never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.volume import Volume

from .generator import HeadGenerator
from .head import Head
from .lattice import Lattice
from .variation import CANONICAL, Variation

UNSEEN_T1 = replace(
    CANONICAL,
    t1_share=1.0,
    rotation_deg=15.0,
    translation_mm=10.0,
    stripped_share=0.0,
    flip_share=0.0,
    void_share=0.0,
)
"""What held-out heads are rendered as: T1-like scans, turned up to 15 degrees about each axis."""

SCAN = Lattice((208, 240, 240), 1.0, 1)
"""Voxels of a rendered scan."""


def unseen_scans(
    heads: Sequence[Head], mirror: np.ndarray, seed: int
) -> Iterator[tuple[Head, Volume, FloatArray]]:
    """A synthetic scan of each head: (head, volume, (K, 3) true landmarks, RAS mm, NaN missing)."""
    for index, head in enumerate(heads):
        volume, points = render_scan(head, mirror, np.random.default_rng([seed, index]))
        yield head, volume, points


def render_scan(
    head: Head, mirror: np.ndarray, rng: np.random.Generator, variation: Variation = UNSEEN_T1
) -> tuple[Volume, FloatArray]:
    """A synthetic scan of a head and its (K, 3) true landmarks, RAS mm, NaN missing."""
    grid = SCAN.grid
    image, points = HeadGenerator([head], mirror, variation).sample(SCAN, rng, head)
    return Volume(image.numpy(), grid), grid.ijk_to_ras(points)
