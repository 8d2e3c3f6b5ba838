"""Refinement in finer voxels: small boxes round the landmarks that the fine network found.

A cube round the whole head has voxels of some millimetres. What a landmark is defined by is often
finer, and near by. The refinement network sees boxes of such a cube, each in voxels half as long or
less, and adds what it sees to what is known already: its heatmaps are likelihoods, the point found
before is a Gaussian prior. Both the training and the detection put them together here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from BrainLandmarksLib.geometry.affine import FloatArray

PRIOR_MM = 2.0
"""Standard deviation of the prior along each axis when landmarks are found."""

MARGIN = 4
"""Voxels round a box whose landmarks are left to another box: too much beside them is not seen."""


def with_prior(heatmaps: Tensor, points: Tensor, sigma: float) -> Tensor:
    """Logits with the logarithm of a Gaussian prior added.

    Args:
        heatmaps: ``(B, K, D, H, W)``.
        points: ``(B, K, 3)`` ijk, where each landmark is expected; a NaN expects nothing.
        sigma: standard deviation, in voxels.
    """
    total = heatmaps
    for axis, size in enumerate(heatmaps.shape[2:]):
        x = torch.arange(size, device=points.device, dtype=points.dtype)
        away = torch.nan_to_num((x - points[..., axis, None]) / sigma, nan=0.0)
        shape = [*away.shape[:2], 1, 1, 1]
        shape[2 + axis] = size
        total = total - 0.5 * away.square().view(shape)
    return total


def boxes(points: FloatArray, side_mm: float) -> Iterator[tuple[FloatArray, npt.NDArray[np.intp]]]:
    """Boxes that together hold all points: few, though not the fewest.

    The next box is always the one that holds most of the points that are left.

    Args:
        points: (K, 3) in axes along the boxes' sides, mm; NaN rows are in no box.
        side_mm: of a box, without its margin.

    Yields:
        Middle of a box, (3,), and the rows of its points.
    """
    left = np.flatnonzero(np.isfinite(points).all(1))
    while len(left):
        best = left[:0]
        for start in left:
            held = _grown(points, left, start, side_mm)
            if len(held) > len(best):
                best = held
        chosen = points[best]
        yield (chosen.min(0) + chosen.max(0)) / 2, best
        left = np.setdiff1d(left, best)


def _grown(
    points: FloatArray, left: npt.NDArray[np.intp], start: np.intp, side_mm: float
) -> npt.NDArray[np.intp]:
    """Rows of a box that grows from one point towards its neighbours as far as it may."""
    away = np.abs(points[left] - points[start]).max(1)
    low = high = points[start]
    held = []
    for row in left[np.argsort(away, kind="stable")]:
        lower, higher = np.minimum(low, points[row]), np.maximum(high, points[row])
        if (higher - lower).max() <= side_mm:
            low, high = lower, higher
            held.append(row)
    return np.array(held, np.intp)
