"""The parcellation network: which voxel of a head is which structure.

HighRes3DNet as it was published segments brains (Li et al., IPMI 2017). Ours sees the head upright,
in the pose that its landmarks give, in the brain's box alone, and gives the probability of every
structure that the rules read (:mod:`..annotation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
from BrainLandmarksLib.network.inference import FoldedHighRes3DNet, inference_heatmaps

BORDER_MM = 9.0
"""How far beyond the outermost landmarks of the brain the box reaches."""

DEEP = 0.6
"""Share of the box along each axis, in its middle, whose brightest tissue is white matter: farther
out there is fat, which is brighter."""

TILE = 72
MARGIN = 12
"""Voxels along each side of what the network sees at once, and of the part of it that another tile
sees better."""

_MULTIPLE = 4


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
    padded = np.pad(values, MARGIN)
    result = np.empty((len(structures), *grid.shape), np.float16)
    tiles = list(_tiles(grid.shape))
    for number, (start, stop) in enumerate(tiles):
        on_tile(number / len(tiles))
        seen = padded[tuple(slice(a, b + 2 * MARGIN) for a, b in zip(start, stop))]
        cube = torch.from_numpy(np.ascontiguousarray(seen))[None, None]
        logits = _logits(network, cube, precision)
        inner = logits[(slice(None), *(slice(MARGIN, n - MARGIN) for n in logits.shape[1:]))]
        target = tuple(slice(a, b) for a, b in zip(start, stop))
        result[(slice(None), *target)] = inner.softmax(0).to(torch.float16).cpu().numpy()
    return ProbabilityMap(result, structures, grid)


@torch.inference_mode()
def _logits(network: nn.Module, cube: torch.Tensor, precision: str) -> torch.Tensor:
    """(C, I, J, K) of one cube, (1, 1, I, J, K)."""
    if isinstance(network, FoldedHighRes3DNet):
        return inference_heatmaps(network, cube, precision)[0]
    device = next(network.parameters(), cube).device
    logits: torch.Tensor = network(cube.to(device))[0]
    return logits


def _tiles(
    shape: tuple[int, int, int],
) -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """First and one past the last voxel of tiles of about the same size that cover a box."""
    edges = [np.linspace(0, n, -(-n // TILE) + 1).round().astype(int) for n in shape]
    for i in range(len(edges[0]) - 1):
        for j in range(len(edges[1]) - 1):
            for k in range(len(edges[2]) - 1):
                yield (
                    (int(edges[0][i]), int(edges[1][j]), int(edges[2][k])),
                    (int(edges[0][i + 1]), int(edges[1][j + 1]), int(edges[2][k + 1])),
                )
