"""Transforms as ITK's files, the only place where they are in LPS.

ITK's transforms carry the points of the *fixed* image into the moving one, which is what resampling
needs; the transforms of this library carry the moving image's points onto the fixed one's. Both
kinds of file are read by 3D Slicer and ANTs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, ras_to_lps
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.images.itk_formats import simple_itk

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS to LPS, and back."""

_KINDS = (
    "AffineTransform", "Euler3DTransform", "VersorRigid3DTransform", "Similarity3DTransform",
    "ScaleVersor3DTransform", "ScaleSkewVersor3DTransform", "TranslationTransform",
    "CompositeTransform",
)  # fmt: skip


def write_linear(path: str | os.PathLike[str], affine: npt.ArrayLike) -> None:
    """Write a transform as ITK's text file (.tfm).

    Args:
        affine: 4x4, carries RAS points of the moving image onto the fixed one.

    Raises:
        UserError: the file cannot be written.
    """
    sitk = simple_itk()
    matrix = FLIP @ np.linalg.inv(np.asarray(affine, float)) @ FLIP
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    with atomic_write(path) as unfinished:
        _written(path, lambda: sitk.WriteTransform(transform, str(unfinished)))


def read_linear(path: str | os.PathLike[str]) -> FloatArray:
    """The 4x4 affine of ITK's file of a linear transform, moving to fixed, RAS.

    Raises:
        UserError: it is missing, damaged, or no linear transform.
    """
    sitk = simple_itk()
    name = Path(path).name
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise UserError(f"{name} is missing or is not a transform of ITK; check it.") from error
    if not transform.IsLinear() or transform.GetName() not in _KINDS:
        raise UserError(f"{name} is not a linear transform; give a .tfm of one.")
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis in range(3):
        unit = tuple(float(k == axis) for k in range(3))
        matrix[:3, axis] = np.array(transform.TransformPoint(unit)) - origin
    return np.asarray(np.linalg.inv(FLIP @ matrix @ FLIP))


def write_field(
    path: str | os.PathLike[str], grid: Grid, to_moving: Callable[[FloatArray], FloatArray]
) -> None:
    """Write a map of space as a displacement field (.nii.gz), as ITK, ANTs and Slicer read it.

    Args:
        grid: Where it is sampled, in the fixed image's space.
        to_moving: Carries RAS points (..., 3) of the fixed image into the moving one.

    Raises:
        UserError: the file cannot be written.
    """
    sitk = simple_itk()
    at = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    shift = ras_to_lps(to_moving(at) - at)
    image = sitk.GetImageFromArray(np.ascontiguousarray(shift.transpose(2, 1, 0, 3)), True)
    affine = FLIP @ grid.affine
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / grid.spacing).ravel().tolist())
    with atomic_write(path) as unfinished:
        _written(path, lambda: sitk.WriteImage(image, str(unfinished)))


def _written(path: str | os.PathLike[str], write: Callable[[], Any]) -> None:
    try:
        write()
    except RuntimeError as error:
        raise UserError(f"cannot write {path}; choose a folder you can write to.") from error
