"""Intensity normalisation: the same few lines for training, evaluation and detection.

MRI intensities have no unit. The network sees air as 0 and the bright end of the tissue as 1, so
that the zero padding of its convolutions is simply more air.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    CubeT = TypeVar("CubeT", npt.NDArray[np.float32], torch.Tensor)
else:
    CubeT = TypeVar("CubeT")

UPPER_LIMIT = 1.5
"""Normalised intensities are clipped to [0, UPPER_LIMIT]: vessels and fat do not matter."""

_BRIGHT = 0.99
_AIR_FRACTION = 0.1
_ROUNDS = 3


def normalise(cube: CubeT) -> CubeT:
    """Scale so that the 99th percentile of the foreground is 1, and clip to [0, 1.5].

    Foreground are the voxels above a tenth of that same percentile; the pair is found by a few
    rounds from the percentile of the whole cube, so it hardly depends on how much air surrounds
    the head.

    Args:
        cube: numpy array or torch tensor, (..., D, H, W), air near 0 (see
            `subtract_background`). Leading axes (batch, channel) are normalised one by one.

    Returns:
        float32 of the same type, shape and device. A cube without any positive voxel gives zeros.
    """
    if isinstance(cube, np.ndarray):
        flat = cube.reshape(-1, int(np.prod(cube.shape[-3:]))).astype(np.float32)
        for row in flat:
            np.clip(row / np.float32(foreground_percentile(row)), 0, UPPER_LIMIT, out=row)
        return flat.reshape(cube.shape)
    tensor = cube.float()
    flat_tensor = tensor.reshape(-1, tensor.shape[-3:].numel())
    levels = flat_tensor.new_tensor([foreground_percentile(row) for row in flat_tensor])
    return (flat_tensor / levels[:, None]).clamp(0, UPPER_LIMIT).reshape(tensor.shape)


def foreground_percentile(values: npt.NDArray[np.float32] | torch.Tensor) -> float:
    """99th percentile of the foreground: the level that `normalise` calls 1.

    Args:
        values: Flat array of intensities, air near 0.

    Returns:
        The level in the image's units; infinite if no value is positive.
    """
    values = values[values > 0]
    if len(values) == 0:
        return math.inf
    bright = _quantile(values)
    for _ in range(_ROUNDS):
        bright = _quantile(values[values > _AIR_FRACTION * bright])
    return bright


def _quantile(values: npt.NDArray[np.float32] | torch.Tensor) -> float:
    # An order statistic without interpolation, so numpy and torch give the same number.
    rank = int(_BRIGHT * (len(values) - 1))
    if isinstance(values, np.ndarray):
        return float(np.partition(values, rank)[rank])
    return float(values.kthvalue(rank + 1).values)


def subtract_background(data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Shift a whole image so that air is 0, and clip what lies below.

    Most T1 images have air at 0 already and come back unchanged but for the noise floor. Three
    kinds differ: images stored with an offset, whose lowest values are far from 0; skull-stripped
    z-scores, where exactly 0 fills the outside and lies in the middle of the brain's values; and
    images that are no magnitudes, where the noise of air lies on both sides of 0.

    Args:
        data: (I, J, K) image values of any range, finite.

    Returns:
        float32, same shape, minimum 0.
    """
    # A sample is enough for a percentile, and 16 million voxels are slow to sort.
    step = max(1, round((data.size / 500_000) ** (1 / 3)))
    sample = data[::step, ::step, ::step].ravel()
    values, counts = np.unique(sample, return_counts=True)
    fill, share = values[counts.argmax()], counts.max() / sample.size
    rest = sample[sample != fill]
    if share > 0.2 and rest.size:
        low, high = np.percentile(rest, [1, 99])
        if low < fill - 0.05 * (high - low) and fill < high:
            filled = data == fill
            return np.where(filled, 0, np.clip(data - low, 0, None)).astype(np.float32)
    level = np.float32(np.percentile(sample, 1))
    if level < 0:
        # Noise on both sides of 0 makes no offset: this is no magnitude image, and air is at 0.
        near = sample[np.abs(sample) <= -level]
        if near.size > 0.2 * sample.size and abs(np.median(near)) < -0.25 * level:
            level = np.float32(0)
    return np.clip(data - level, 0, None).astype(np.float32)
