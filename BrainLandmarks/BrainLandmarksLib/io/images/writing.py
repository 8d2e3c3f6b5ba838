"""Images written as NIfTI files."""

from __future__ import annotations

import os

import numpy as np

from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import ImageArray
from BrainLandmarksLib.io.atomic import atomic_write


def write_image(path: str | os.PathLike[str], data: ImageArray, grid: Grid) -> None:
    """Write values, (I, J, K), as a NIfTI file of float32, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(data, np.float32), grid.affine)
    # Readers differ in which form they trust; the second cannot hold a sheared grid.
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1, strip_shears=True)
    if not np.allclose(image.get_qform(), grid.affine, atol=1e-3):
        image.set_qform(None, 0)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as unfinished:
        nib.save(image, unfinished)
