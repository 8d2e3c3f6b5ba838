"""Survey geometry: a whole-head scan as the quick scan that planning starts from (paper, III-B).

The paper converts the 256 x 256 x 256 voxels of 1 mm of OASIS-3 to "a survey-like image with image
size 224 x 224 x 101 voxels with 2.2 mm slice thickness and zero spacing between the slices". It
does not say how wide a voxel is within a slice, nor which way the slices run. Here a voxel is 1 mm
wide, as in the original: the field of view is then about a cube, 224 x 224 x 222.2 mm. Slices are
axial: the third size is that of the axis from bottom to top.

>>> survey = to_survey(read_image("sub-01_T1w.nii.gz"))
>>> survey.grid.shape, survey.grid.spacing
((224, 224, 101), array([1. , 1. , 2.2]))
"""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, canonical
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.foreground import foreground
from BrainLandmarksLib.imaging.preprocessing import background_subtracted
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume

SHAPE = (224, 224, 101)
SPACING_MM = (1.0, 1.0, 2.2)

_MARGIN_MM = 5.0
_STRAY_SHARE = 0.002


def to_survey(volume: Volume) -> Volume:
    """The image in survey geometry, in its own voxel directions, smoothed before downsampling.

    Landmarks keep their RAS coordinates; those of a neck that is cut off lie outside now.

    Raises:
        UserError: the voxels are coarser than those of a survey.
    """
    grid = survey_grid(volume)
    return Volume(resample(volume, grid), grid)


def survey_grid(volume: Volume) -> Grid:
    """Where the voxels of the survey lie.

    The field of view is in the middle of the image and moves only as far as the head needs: it
    holds the whole head, or, where the head and neck are longer, its upper end. Within a slice,
    voxels lie on those of an image of 1 mm, so that nothing is interpolated there.

    Raises:
        UserError: the voxels are coarser than those of a survey.
    """
    data, affine = canonical(volume.data, volume.grid.affine)
    source = Grid(data.shape, affine)
    spacing = np.array(SPACING_MM)
    if (source.spacing > spacing * 1.01).any():
        size = " x ".join(f"{mm:g}" for mm in source.spacing.round(2))
        wanted = " x ".join(f"{mm:g}" for mm in SPACING_MM)
        raise UserError(
            f"a survey has voxels of {wanted} mm and this image has {size} mm; leave it as it is."
        )
    low, high = _head_bounds(background_subtracted(volume))
    count = np.array(SHAPE)
    # Everything in source voxels, counted from its first voxel's outer face.
    size = count * spacing / source.spacing
    start = (np.array(source.shape) - size) / 2
    start = np.where(low < start, low, start)
    start = np.where(high > start + size, high - size, start)
    # A head longer than the field of view: in plane its middle, upwards its top.
    long = high - low > size
    start[:2] = np.where(long, (low + high - size) / 2, start)[:2]
    first = start + (spacing / source.spacing - 1) / 2
    same = np.isclose(source.spacing, spacing, rtol=1e-3)
    first[same] = np.round(first[same])
    grid = np.array(source.affine)
    grid[:3, :3] *= spacing / source.spacing
    grid[:3, 3] = source.ijk_to_ras(first)
    return Grid(SHAPE, grid)


def _head_bounds(volume: Volume) -> tuple[FloatArray, FloatArray]:
    """Faces of the box that holds the head with a margin, in voxels from the first outer face."""
    head = foreground(volume)
    low, high = np.zeros(3), np.array(head.shape, float)
    for axis in range(3):
        inside = head.sum(axis=tuple(k for k in range(3) if k != axis)).cumsum().astype(float)
        if inside[-1] == 0:
            continue
        # A few bright voxels of noise or of a ghost do not make a head.
        share = inside / inside[-1]
        margin = _MARGIN_MM / volume.grid.spacing[axis]
        low[axis] = max(np.argmax(share > _STRAY_SHARE) - margin, 0)
        high[axis] = min(np.argmax(share >= 1 - _STRAY_SHARE) + 1 + margin, head.shape[axis])
    return low, high
