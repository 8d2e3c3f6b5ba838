"""What is done to every image before anything is looked for in it, in detection and in training.

The voxels are made fewer where there are very many (`downsampled`), put into one storage order
(`canonical`), and shifted so that air is 0 (`subtract_background`). `intensity.normalise` follows
on what the network sees.
"""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.geometry.affine import canonical
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.intensity import subtract_background
from BrainLandmarksLib.imaging.resampling import downsampled
from BrainLandmarksLib.imaging.volume import Volume


def preprocessed(volume: Volume) -> Volume:
    """The image with few enough voxels, in canonical order, air at 0."""
    return background_subtracted(downsampled(volume))


def background_subtracted(volume: Volume) -> Volume:
    """The image in canonical order, so that nothing can depend on the file's; air at 0."""
    data, affine = canonical(volume.data, volume.grid.affine)
    return Volume(subtract_background(np.ascontiguousarray(data)), Grid(data.shape, affine))
