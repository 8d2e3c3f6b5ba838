"""Parcellations as files: a label map in the image's space, and a table of its structures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.annotation.schemes import numbers
from BrainLandmarksLib.annotation.structures import structure_of
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.io.atomic import atomic_write, atomic_writes
from BrainLandmarksLib.io.tables import Table

SUFFIXES = (".nii.gz", ".nii")
"""Of label maps that can be written."""

COLUMNS = ("index", "name", "abbreviation", "color", "side", "volume_ml")
"""Of the table; the first four are those of BIDS' dseg.tsv."""

Labels = npt.NDArray[np.signedinteger[Any]]


def is_label_map(path: str | os.PathLike[str]) -> bool:
    """Whether a file name is one of a label map."""
    return Path(path).name.lower().endswith(SUFFIXES)


def table_file(path: str | os.PathLike[str]) -> Path:
    """The table beside a label map: `labels.tsv` of `labels.nii.gz`."""
    name = Path(path).name
    suffix = next(s for s in SUFFIXES if name.lower().endswith(s))
    return Path(path).with_name(f"{name[: -len(suffix)]}.tsv")


def write_parcellation(path: str | os.PathLike[str], labels: Labels, grid: Grid) -> Table:
    """Write a label map and the table beside it, both or none; returns the table.

    Raises:
        UserError: they cannot be written.
    """
    target, table = Path(path), structure_table(labels, grid)
    with atomic_writes(target.parent) as unfinished:
        write_label_map(unfinished / target.name, labels, grid)
        table.write_tsv(table_file(unfinished / target.name))
    return table


def write_label_map(path: str | os.PathLike[str], labels: Labels, grid: Grid) -> None:
    """Write labels, (I, J, K), as a NIfTI file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    import nibabel as nib

    small = labels.max(initial=0) <= np.iinfo(np.int16).max
    image = nib.Nifti1Image(labels.astype(np.int16 if small else np.int32), grid.affine)
    # Readers differ in which form they trust; the second cannot hold a sheared grid.
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1, strip_shears=True)
    if not np.allclose(image.get_qform(), grid.affine, atol=1e-3):
        image.set_qform(None, 0)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label", name="structures")
    with atomic_write(path) as unfinished:
        nib.save(image, unfinished)


def read_label_map(path: str | os.PathLike[str]) -> tuple[Labels, Grid]:
    """The labels of a file of `write_label_map`, (I, J, K), and their voxels, RAS mm.

    Raises:
        UserError: the file is missing or damaged.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nib.load(path)
        labels = np.asarray(image.dataobj)
        return labels, Grid(labels.shape, image.affine)
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError) as error:
        name = Path(path).name
        raise UserError(f"the label map {name} cannot be read; make it again.") from error


def structure_table(labels: Labels, grid: Grid) -> Table:
    """One row for each structure of a label map, with its volume; everything else has none."""
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    rows = []
    for number, count in numbers(labels).items():
        if number:
            one = structure_of(number)
            side = one.side or "n/a"
            volume = count * voxel_ml
            rows.append((number, one.name, one.abbreviation, one.color, side, volume))
    return Table(COLUMNS, rows)
