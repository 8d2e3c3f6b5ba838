"""Reading one image of a head: the module of its format, then the checks that all share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import canonical
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import checks, orientation
from BrainLandmarksLib.io.images.stored import Stored

NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img", ".img.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_SUFFIXES = (".dcm", ".ima")


def read_image(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    assume_orientation: str | None = None,
) -> Volume:
    """Read one 3-D image of a head: NIfTI, MGH/MGZ, NRRD, MetaImage or DICOM.

    Args:
        path: A file, or a folder with the DICOM files of one patient, at any depth.
        series: Which series of a DICOM folder: its number, its UID or a part of its description;
            ``3.2`` is the second volume of series 3. None takes the one that is most like a T1.
        assume_orientation: The directions of the voxel axes i, j, k, such as "RAS", for a file
            that does not state them; such a file is refused otherwise.

    Returns:
        Volume in RAS axis order (axes permuted and flipped; only the slices of a tilted DICOM stack
        are resampled), float32, with the header's intensity scaling applied. Its notes say what of
        the file was uncertain.

    Raises:
        UserError: If the file is missing, unreadable or damaged, or holds something else than one
            three-dimensional scalar image of a head with a usable affine; if a DICOM folder holds
            several that could be meant.
    """
    codes = None if assume_orientation is None else orientation.check_codes(assume_orientation)
    stored = _open(Path(path), series, codes)
    # Values out of float32's range become infinite or 0 here and are reported as such below.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        voxels = stored.voxels(np.float32)
    data, grid = _in_ras_order(stored, voxels)
    volume = Volume(
        np.ascontiguousarray(data, dtype=np.float32),
        grid,
        stored.notes,
        Grid(stored.shape, stored.affine),
        codes if stored.assumed else None,
    )
    checks.size(stored.name, grid)
    checks.values(stored.name, volume.data, lambda: stored.voxels(np.float64))
    return volume


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """The grid that `read_image` gives an image, from the header alone where that is possible.

    Raises:
        UserError: As `read_image`, as far as the header tells.
    """
    stored = _open(Path(path), None, None)
    # An array of that shape without memory of its own.
    _, grid = _in_ras_order(stored, np.broadcast_to(np.float32(0), stored.shape))
    checks.size(stored.name, grid)
    return grid


def _open(path: Path, series: str | None, codes: str | None) -> Stored:
    checks.readable(path)
    name = path.name.lower()
    known = not path.is_dir() and name.endswith(NIBABEL_SUFFIXES + ITK_SUFFIXES)
    if series is not None and known:
        raise UserError(
            f"{path.name} is no DICOM file, so there is no series to choose (--series)."
        )
    if known and name.endswith(NIBABEL_SUFFIXES):
        from BrainLandmarksLib.io.images import nibabel_formats

        stored = nibabel_formats.open_image(path, codes)
    elif known:
        from BrainLandmarksLib.io.images import itk_formats

        stored = itk_formats.read(path, codes)
    elif path.is_dir() or name.endswith(DICOM_SUFFIXES) or _begins_as_dicom(path):
        from BrainLandmarksLib.io.images import dicom

        stored = dicom.read(path, series)
    else:
        raise UserError(
            f"{path.name} is not an image this program reads; give .nii, .nii.gz, .mgz, .mgh, "
            ".nrrd, .nhdr, .mha, .dcm or a folder of DICOM files."
        )
    checks.affine(stored.name, stored.affine)
    if not stored.assumed:
        stored.notes += orientation.contradiction(codes, stored.affine)
    return stored


def _in_ras_order(stored: Stored, data: np.ndarray) -> tuple[np.ndarray, Grid]:
    data, affine = canonical(data, stored.affine)
    return data, Grid(data.shape, affine)


def _begins_as_dicom(path: Path) -> bool:
    """Whether a file of any name has DICOM's mark, as scanners write files without a suffix."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def stem(path: str | os.PathLike[str]) -> str:
    """The file or folder name without its image suffix: `head` of `scans/head.nii.gz`.

    A link goes by its own name, not by that of the file it leads to: in git-annex and DataLad
    datasets every image is a link to a file that is called by its checksum.
    """
    name = Path(path).name
    if name in ("", ".."):  # a folder without a name of its own, such as the working one
        name = Path(path).resolve().name
    suffixes = NIBABEL_SUFFIXES + ITK_SUFFIXES + DICOM_SUFFIXES
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name
