"""An image in another head's space, by any map of space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import ImageArray, Volume


def moved_onto(volume: Volume, affine: npt.ArrayLike, grid: Grid) -> ImageArray:
    """The image carried by a 4x4 affine, RAS to RAS, on a grid; as `resampling.resample`."""
    return resample(Volume(volume.data, volume.grid.moved(affine)), grid)


def warped_onto(
    volume: Volume, to_volume: Callable[[FloatArray], FloatArray], grid: Grid
) -> ImageArray:
    """The image on a grid in another space, trilinear; 0 where it does not reach.

    Args:
        to_volume: Carries RAS points (..., 3) of the grid's space into the image's.

    Returns:
        float32 of shape `grid.shape`.
    """
    from scipy.ndimage import map_coordinates

    result = np.zeros(grid.shape, np.float32)
    plane = np.moveaxis(np.indices(grid.shape[1:]), 0, -1)
    for i in range(grid.shape[0]):  # slice by slice: coordinates are larger than the image
        ijk = np.concatenate([np.full((*plane.shape[:2], 1), i), plane], axis=2)
        at = volume.grid.ras_to_ijk(to_volume(grid.ijk_to_ras(ijk)))
        result[i] = map_coordinates(volume.data, np.moveaxis(at, -1, 0), order=1, cval=0.0)
    return result
