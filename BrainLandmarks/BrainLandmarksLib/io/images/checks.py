"""What every image has to be, whatever its format: a scalar volume of a head's size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.errors import UserError, of_system
from BrainLandmarksLib.geometry.affine import FloatArray, is_singular, shear_degrees
from BrainLandmarksLib.geometry.grid import Grid

MIN_VOXELS = 8
MIN_EXTENT_MM = 60.0
MAX_EXTENT_MM = 3000.0
MAX_SHEAR_DEGREES = 1.0

_POINTER_BYTES = 2048  # no image is so small, and no pointer larger
_LARGEST = float(np.finfo(np.float32).max)


def readable(path: Path) -> None:
    """Check that a file or folder is there, and is no placeholder for one.

    Raises:
        UserError: it is not, or may not be read.
    """
    try:
        _readable(path)
    except OSError as error:
        raise of_system(error) or damaged(path.name) from error


def _readable(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        if "annex" in Path(os.readlink(path)).parts:
            raise _not_fetched(path, "git-annex", "git annex get or datalad get")
        raise UserError(f"{path} is a link to a file that is not there; mend the link.")
    if not path.exists():
        raise UserError(f"{path} does not exist; check the path.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path.name} may not be read; check its permissions.")
    if path.is_file() and path.stat().st_size < _POINTER_BYTES:
        content = path.read_bytes()
        if content.startswith(b"/annex/objects/"):
            raise _not_fetched(path, "git-annex", "git annex get or datalad get")
        if content.startswith(b"version https://git-lfs"):
            raise _not_fetched(path, "Git LFS", "git lfs pull")


def _not_fetched(path: Path, tool: str, command: str) -> UserError:
    return UserError(
        f"{path.name} is a placeholder of {tool}, whose content is not on this computer; fetch it "
        f"with {command}."
    )


def damaged(name: str) -> UserError:
    """What to say of a file that its library cannot make sense of."""
    return UserError(
        f"{name} is damaged, incomplete or not the image its name says; copy or export it again."
    )


def kind(name: str, dtype: np.dtype[Any]) -> None:
    """Check that voxels are real numbers.

    Raises:
        UserError: they are colours, vectors or complex numbers.
    """
    if dtype.fields is not None:
        raise UserError(
            f"{name} holds colours or vectors, not intensities; give the original T1 image."
        )
    if dtype.kind == "c":
        raise UserError(f"{name} holds complex numbers; give the magnitude image.")


def dimensions(name: str, shape: Sequence[int]) -> None:
    """Check that an image is one volume.

    Raises:
        UserError: it is two-dimensional, or a series.
    """
    if len(shape) > 3 and int(np.prod(shape[3:])) != 1:
        raise UserError(
            f"{name} is a series of {int(np.prod(shape[3:]))} volumes; give one 3-D T1 volume."
        )
    if len(shape) >= 3 and min(shape[:3]) < 1:
        raise UserError(
            f"the header of {name} says that it has no voxels along one axis; export it again."
        )
    if len(shape) < 3 or min(shape[:3]) == 1:
        raise UserError(f"{name} is a two-dimensional image; give a 3-D T1 volume.")


def affine(name: str, matrix: FloatArray) -> None:
    """Check that voxels have a place.

    Raises:
        UserError: the affine is singular or sheared.
    """
    if not np.isfinite(matrix).all() or is_singular(matrix):
        raise UserError(
            f"{name} has a singular affine: its header does not say where the voxels lie; export "
            "it again."
        )
    shear = shear_degrees(matrix)
    if shear > MAX_SHEAR_DEGREES:
        raise UserError(
            f"{name} has a sheared affine (voxel axes {90 - shear:.0f} degrees apart); resample it "
            "to a rectangular grid first."
        )


def size(name: str, grid: Grid) -> None:
    """Check that an image can hold a head.

    Raises:
        UserError: it has too few voxels, or too small or large ones.
    """
    shape = " x ".join(str(n) for n in grid.shape)
    extent = " x ".join(f"{mm:.3g}" if mm < 1 else f"{mm:.0f}" for mm in grid.extent)
    if min(grid.shape) < MIN_VOXELS:
        raise UserError(
            f"{name} has only {shape} voxels; a head needs at least {MIN_VOXELS} along every axis."
        )
    if grid.extent.min() < MIN_EXTENT_MM or grid.extent.max() > MAX_EXTENT_MM:
        raise UserError(
            f"{name} covers {extent} mm, which cannot be a head; check the voxel size and its unit "
            "in the header."
        )


def values(name: str, data: np.ndarray, exact: Callable[[], np.ndarray]) -> None:
    """Check that there is something to see.

    Args:
        data: float32.
        exact: Reads the values again in double precision, to tell what is wrong.

    Raises:
        UserError: a value is no number, or all are the same.
    """
    # The sum is finite only if every value is, short of an overflow, which is looked at closely.
    finite = np.isfinite(data.sum(dtype=np.float64)) or np.isfinite(data).all()
    low, high = float(data.min()), float(data.max())
    if finite and low != high:
        return
    stored = exact()
    count = int((~np.isfinite(stored)).sum())
    if count:
        raise UserError(
            f"{name} has voxels that are not numbers ({count} are NaN or infinite); replace them, "
            "for example with 0, and try again."
        )
    low, high = float(stored.min()), float(stored.max())
    if low == high:
        raise UserError(f"{name} is empty: every voxel has the value {high:g}.")
    if max(-low, high) > _LARGEST:
        raise UserError(
            f"{name} has values from {low:g} to {high:g}, more than this program computes with "
            f"({_LARGEST:.1e}); divide them by a constant."
        )
    raise UserError(
        f"{name} has values from {low:g} to {high:g}, whose differences are too small for this "
        "program's single precision; subtract a constant from them or multiply them by one."
    )
