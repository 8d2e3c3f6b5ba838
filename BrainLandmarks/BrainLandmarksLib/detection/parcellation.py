"""The parcellation network: which voxel of a head is which structure.

HighRes3DNet as it was published segments brains (Li et al., IPMI 2017). Ours sees the head upright,
in the pose that its landmarks give, in the brain's box alone, and gives the probability of every
structure that the rules read (:mod:`..annotation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from BrainLandmarksLib.annotation.probability_map import ProbabilityMap
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.intensity import UPPER_LIMIT, foreground_percentile
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.network.inference import (
    FoldedHighRes3DNet,
    freed_memory_returned,
    inference_heatmaps,
)

BORDER_MM = 6.0
"""How far beyond the outermost landmarks of the brain the box reaches at least."""

DEEP = 0.6
"""Share of the box along each axis, in its middle, whose brightest tissue is white matter: farther
out there is fat, which is brighter."""

TILE_VOXELS = 750_000
"""About what the network sees at once: more would take more memory."""

MARGIN = 8
"""Voxels beyond a tile that the network sees as well, where another tile begins."""

_MULTIPLE = 16
"""The widest stage of the network works on every 4th voxel, in tiles of 4 (`network.winograd`)."""


@dataclass(frozen=True)
class Parcellation:
    """A brain in structures.

    Args:
        labels: Which voxel is which structure, in the head's pose.
        plausibility: How much what was found is a head, 0 to 1.
        device: Where the networks ran: "cpu", "cuda" or "mps".
        notes: Sentences the user should see, without a full stop.
    """

    labels: ProbabilityMap
    plausibility: float
    device: str
    notes: tuple[str, ...] = ()


def brain_box(pose: FloatArray, points: FloatArray, voxel_mm: float) -> Grid:
    """The box of a brain, its axes those of the head.

    Args:
        pose: 4x4, from the upright head to the image's RAS.
        points: (n, 3) landmarks on and in the brain, RAS mm, NaN where missing.
        voxel_mm: Side of its voxels.
    """
    here = apply_affine(np.linalg.inv(pose), points[np.isfinite(points).all(1)])
    low, high = here.min(0) - BORDER_MM, here.max(0) + BORDER_MM
    shape = -(-np.ceil((high - low) / voxel_mm).astype(int) // _MULTIPLE) * _MULTIPLE
    affine = np.eye(4)
    affine[:3, :3] *= voxel_mm
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * voxel_mm
    i, j, k = (int(n) for n in shape)
    return Grid((i, j, k), pose @ affine)


def box_input(head: Volume, grid: Grid) -> npt.NDArray[np.float32]:
    """What the parcellation network is shown: white matter at about 1, air at 0.

    Args:
        head: Image with air near 0 (`intensity.subtract_background`).
    """
    values = resample(head, grid)
    low = [round(n * (1 - DEEP) / 2) for n in values.shape]
    deep = values[tuple(slice(a, n - a) for a, n in zip(low, values.shape))]
    level = np.float32(foreground_percentile(deep.ravel()))
    return np.clip(values / level, 0, UPPER_LIMIT)


def parcellate(
    network: nn.Module,
    structures: tuple[int, ...],
    head: Volume,
    grid: Grid,
    precision: str = "auto",
    on_tile: Callable[[float], None] = lambda done: None,
) -> ProbabilityMap:
    """Probabilities of every structure in a box.

    Args:
        network: From cubes to one logit per structure, folded where it is ours.
        structures: Their numbers (`annotation.schemes`), 0 for everything else.
        head: Image with air near 0.
        grid: Of `brain_box`.
        precision: Of `inference.inference_heatmaps`.
        on_tile: Called before each tile with the share that is done.
    """
    values = box_input(head, grid)
    result = np.empty((len(structures), *grid.shape), np.float16)
    axis = int(np.argmax(grid.shape))
    tiles = list(_tiles(grid.shape[axis], -(-values.size // TILE_VOXELS)))
    with freed_memory_returned():
        for number, (seen, inner, target) in enumerate(tiles):
            on_tile(number / len(tiles))
            cube = np.ascontiguousarray(values[_along(axis, seen)])
            logits = _logits(network, torch.from_numpy(cube)[None, None], precision)
            found = logits[(slice(None), *_along(axis, inner))].softmax(0)
            result[(slice(None), *_along(axis, target))] = found.to(torch.float16).cpu().numpy()
            del logits, found
    return ProbabilityMap(result, structures, grid)


@torch.inference_mode()
def _logits(network: nn.Module, cube: torch.Tensor, precision: str) -> torch.Tensor:
    """(C, I, J, K) of one cube, (1, 1, I, J, K)."""
    if isinstance(network, FoldedHighRes3DNet):
        return inference_heatmaps(network, cube, precision)[0]
    device = next(network.parameters(), cube).device
    logits: torch.Tensor = network(cube.to(device))[0]
    return logits


def _tiles(size: int, count: int) -> Iterator[tuple[slice, slice, slice]]:
    """Of each of some tiles: what the network sees, what of that is the tile, and where it goes."""
    edges = np.linspace(0, size, count + 1).round().astype(int).tolist()
    for start, stop in pairwise(edges):
        low = max(start - MARGIN, 0)
        yield (
            slice(low, min(stop + MARGIN, size)),
            slice(start - low, stop - low),
            slice(start, stop),
        )


def _along(axis: int, part: slice) -> tuple[slice, slice, slice]:
    """A part of a box along one axis."""
    first, second, third = (part if k == axis else slice(None) for k in range(3))
    return first, second, third
