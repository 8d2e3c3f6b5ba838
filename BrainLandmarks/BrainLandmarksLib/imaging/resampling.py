"""Images on other grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, canonical
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import ImageArray, Volume

MANY_VOXELS = 2**27
"""More than any scanner's head has; `downsampled` makes them fewer."""

FWHM_PER_SIGMA = 2.3548200450309493


def downsampled(volume: Volume, largest: int = MANY_VOXELS, finest_mm: float = 1.0) -> Volume:
    """A very large image with fewer voxels; any other as it is.

    Blocks of voxels are averaged, which keeps the memory that follows in proportion to a head.

    Args:
        volume: The image.
        largest: Voxels up to which nothing is done.
        finest_mm: Averaged voxels are at most this large.
    """
    factors = [max(1, int(finest_mm / mm)) for mm in volume.grid.spacing]
    if volume.data.size <= largest or max(factors) == 1:
        return volume
    shape = [n // f for n, f in zip(volume.grid.shape, factors)]
    (a, b, c), (fa, fb, fc) = shape, factors
    data = np.empty(shape, np.float32)
    for i in range(a):  # slab by slab: the sums need room, too
        slab = volume.data[i * fa : (i + 1) * fa, : b * fb, : c * fc]
        data[i] = slab.reshape(fa, b, fb, c, fc).mean((0, 2, 4), dtype=np.float32)
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    affine[:3, :3] *= factors
    return Volume(data, Grid((a, b, c), affine))


def resample(volume: Volume, grid: Grid, *, order: int = 1) -> ImageArray:
    """Values of the image on another grid; 0 (air) where the image does not reach.

    Before a coarser grid is sampled, the image is smoothed along each of its own axes by a
    Gaussian that makes a voxel see about as much of the head as the new spacing: with the
    voxels' point spread taken as Gaussians of full width at half maximum s (in mm),
    sigma = sqrt((s_out / 2.355)^2 - (s_in / 2.355)^2), where s_out is the width of the new voxel
    along the source axis. Finer grids get no smoothing. The image counts as 0 beyond its
    border throughout, so padding it with air, or cropping air, changes nothing.

    Args:
        grid: Target grid; its affine may be oblique to the image's.
        order: 1: trilinear with the smoothing above. 0: nearest voxel, for label maps.

    Returns:
        float32 of shape `grid.shape`.
    """
    data, affine = canonical(volume.data, volume.grid.affine)
    source = Grid(data.shape, affine)
    data = np.ascontiguousarray(data, dtype=np.float32)
    to_source = np.linalg.inv(source.affine) @ grid.affine
    if order == 0:
        return _nearest(data, to_source, grid.shape)
    if order != 1:
        raise ValueError(f"order is 0 (nearest) or 1 (linear), not {order}")
    sigmas = _smoothing(source, grid)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    corners = corners @ to_source[:3, :3].T + to_source[:3, 3]
    # The last axis first: it is the contiguous one, and each step shrinks what follows.
    for axis in (2, 1, 0):
        if sigmas[axis] > 0:
            low, high = np.floor(corners[:, axis].min()), np.ceil(corners[:, axis].max())
            kept = _kept_indices(int(low), int(high), data.shape[axis], sigmas[axis])
            data = _smooth(data, axis, kept, sigmas[axis])
            to_source[axis, 3] -= kept[0]
            to_source[axis] /= kept[1] - kept[0]
    return _trilinear(data, to_source, grid.shape)


def _smoothing(source: Grid, target: Grid) -> FloatArray:
    """Standard deviation of the Gaussian along each source axis, in source voxels, (3,)."""
    directions = source.affine[:3, :3] / source.spacing
    # Variance of the target voxel's point spread as seen along each source axis.
    spread = ((directions.T @ target.affine[:3, :3]) ** 2).sum(axis=1)
    variance = (spread - source.spacing**2) / FWHM_PER_SIGMA**2
    # Below a tenth of a voxel there is nothing to smooth, only rounding.
    variance[variance < (0.1 * source.spacing) ** 2] = 0
    return np.asarray(np.sqrt(variance) / source.spacing)


def _kept_indices(low: int, high: int, size: int, sigma: float) -> npt.NDArray[np.int64]:
    """Indices along one source axis at which the smoothed image is kept: equidistant, at least two.

    Counted from where the target begins (index `low`), not from the image's border, so cropping
    and padding keep the same points of the head; they end where the smoothed image is all air.
    """
    # Three samples per four sigmas: linear interpolation between them stays within 2 percent.
    step = max(1, int(0.75 * sigma))
    reach = _reach(sigma) + step
    start = low + step * max(0, (-reach - low) // step)
    stop = min(high, size - 1 + reach)
    return np.asarray(start + step * np.arange(max(2, -(-(stop - start) // step) + 1)))


def _reach(sigma: float) -> int:
    """Half length of the truncated Gaussian, in voxels."""
    return int(np.ceil(4 * sigma))


def _smooth(data: np.ndarray, axis: int, kept: npt.NDArray[np.int64], sigma: float) -> ImageArray:
    """The image convolved with a Gaussian along one axis, at the kept indices only."""
    reach = _reach(sigma)
    first = min(max(0, int(kept[0]) - reach), data.shape[axis])
    last = max(first, min(data.shape[axis], int(kept[-1]) + reach + 1))
    offsets = np.arange(first, last) - kept[:, None]
    weights = np.where(np.abs(offsets) <= reach, np.exp(-0.5 * (offsets / sigma) ** 2), 0)
    weights /= np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).sum()
    # A dense matrix product beats a convolution here: one BLAS call, and the samples that are not
    # kept are never computed.
    matrix = weights.astype(np.float32)
    block = data[(slice(None),) * axis + (slice(first, last),)]
    i, j, k = block.shape
    if axis == 2:
        return np.asarray(block.reshape(i * j, k) @ matrix.T).reshape(i, j, len(kept))
    if axis == 1:
        # Moved to the front: one large product instead of one small product per slice.
        front = matrix @ block.transpose(1, 0, 2).reshape(j, i * k)
        return np.ascontiguousarray(front.reshape(len(kept), i, k).transpose(1, 0, 2))
    return np.asarray(matrix @ block.reshape(i, j * k)).reshape(len(kept), j, k)


def _trilinear(data: ImageArray, to_index: FloatArray, shape: tuple[int, int, int]) -> ImageArray:
    """Trilinear interpolation at the indices an affine gives for each voxel of `shape`.

    Beyond the outermost samples the data falls linearly to 0 over one sample.
    """
    corners: list[tuple[Any, Any]] = []
    weights: list[tuple[Any, Any]] = []
    for axis in range(3):
        index = _indices(to_index, axis, shape)
        size = data.shape[axis]
        np.clip(index, -1, size, out=index)
        floor = np.floor(index)
        above = index - floor
        cell = floor.astype(np.int64)
        near = np.where((cell >= 0) & (cell < size), 1 - above, 0).astype(np.float32)
        far = np.where(cell + 1 < size, above, 0).astype(np.float32)
        stride = int(np.prod(data.shape[axis + 1 :]))
        last = size - 1
        corners.append((cell.clip(0, last) * stride, (cell + 1).clip(0, last) * stride))
        weights.append((near, far))
    flat = data.reshape(-1)
    result = np.zeros(shape, dtype=np.float32)
    for i, wi in zip(corners[0], weights[0], strict=True):
        for j, wj in zip(corners[1], weights[1], strict=True):
            ij, wij = i + j, wi * wj
            for k, wk in zip(corners[2], weights[2], strict=True):
                result += flat[ij + k] * (wij * wk)
    return result


def _nearest(data: np.ndarray, to_index: FloatArray, shape: tuple[int, int, int]) -> ImageArray:
    inside = np.ones(shape, dtype=bool)
    indices = []
    for axis in range(3):
        index = np.rint(_indices(to_index, axis, shape)).astype(np.int64)
        inside &= (index >= 0) & (index < data.shape[axis])
        indices.append(np.clip(index, 0, data.shape[axis] - 1))
    return np.where(inside, data[tuple(indices)], 0).astype(np.float32)


def _indices(to_index: FloatArray, axis: int, shape: tuple[int, int, int]) -> ImageArray:
    """One source coordinate of every voxel of `shape`, float32."""
    i, j, k = (np.arange(n, dtype=np.float64) for n in shape)
    row = to_index[axis]
    return np.asarray(
        row[0] * i[:, None, None] + row[1] * j[:, None] + row[2] * k + row[3], dtype=np.float32
    )
