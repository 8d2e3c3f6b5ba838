"""NRRD and MetaImage, read with SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, lps_affine_to_ras
from BrainLandmarksLib.io.images import checks, orientation
from BrainLandmarksLib.io.images.stored import Stored

if TYPE_CHECKING:
    import SimpleITK

_NRRD_SPACES = (
    "left-posterior-superior", "lps", "right-anterior-superior", "ras",
    "left-anterior-superior", "las",
)  # fmt: skip
_LONGEST_HEADER = 1 << 16


def simple_itk() -> Any:
    """The module SimpleITK, which says nothing on its own.

    Raises:
        UserError: it is not installed.
    """
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise UserError(
            "reading NRRD, MetaImage and DICOM needs SimpleITK; run pip install SimpleITK, or "
            "give a NIfTI file."
        ) from error
    # ITK's warnings go straight to stderr and may quote header fields of the patient.
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def read(path: Path, assume: str | None) -> Stored:
    """Read a NRRD or MetaImage file.

    Raises:
        UserError: it is damaged, no scalar volume, or does not state its orientation.
    """
    sitk = simple_itk()
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        check_kind(path.name, reader.GetPixelID(), reader.GetNumberOfComponents())
        checks.dimensions(path.name, reader.GetSize())
        image = reader.Execute()
    except RuntimeError as error:
        raise checks.damaged(path.name) from error
    data = sitk.GetArrayFromImage(image).transpose()
    data = data.reshape(data.shape[:3])
    affine = ras_affine(image)
    shape = (int(data.shape[0]), int(data.shape[1]), int(data.shape[2]))
    notes: tuple[str, ...] = ()
    lacks = _lacks(path)
    if lacks:
        affine, note = orientation.resolve(path.name, lacks, assume, shape, affine)
        notes = (note,)
    return Stored(
        path.name, shape, affine, lambda dtype: data.astype(dtype, copy=False), bool(lacks), notes
    )


def ras_affine(image: SimpleITK.Image | SimpleITK.ImageFileReader) -> FloatArray:
    """The ijk -> RAS affine of an image or of a header; ITK counts in LPS."""
    affine = np.eye(4)
    dimension = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (dimension, dimension))[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return lps_affine_to_ras(affine)


def check_kind(name: str, pixel_id: int, components: int) -> None:
    """Check that ITK's pixels are scalars.

    Raises:
        UserError: they are not.
    """
    sitk = simple_itk()
    if pixel_id in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        checks.kind(name, np.dtype(np.complex64))
    if components != 1:
        checks.kind(name, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))


def _lacks(path: Path) -> str:
    """What of the orientation a header lacks; "" if it states it.

    ITK fills in what is lacking and does not report it, so the text of the header is read.
    """
    fields = _fields(path)
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        space = fields.get("space", "").lower().removesuffix("-time")
        if space not in _NRRD_SPACES:
            return "no anatomical space in the header"
        return "" if "space directions" in fields else "no space directions in the header"
    if not fields.keys() & {"transformmatrix", "rotation", "orientation"}:
        # Without a matrix ITK takes the axes for these.
        stated = fields.get("anatomicalorientation", "").upper() == "RAI"
        return "" if stated else "no TransformMatrix in the header"
    return ""


def _fields(path: Path) -> dict[str, str]:
    """The fields of a NRRD or MetaImage header, in lower case, up to the voxels."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        text = line.decode("latin-1").strip()
        if not text and fields:
            break  # of NRRD
        separator = ":" if text.find(":") > 0 and "=" not in text.split(":")[0] else "="
        key, found, value = text.partition(separator)
        if found and not text.startswith("#"):
            fields[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            break  # of MetaImage
    return fields
