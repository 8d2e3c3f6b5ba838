"""NIfTI, Analyze and MGH/MGZ, read with nibabel.

What a header states twice, or not at all, is decided as 3D Slicer decides it, so that landmarks lie
on the head that Slicer shows; the reader is told.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, is_singular, voxel_sizes
from BrainLandmarksLib.io.images import checks, itk_formats, orientation
from BrainLandmarksLib.io.images.stored import Stored

_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's codes of metres, millimetres and microns; anything else counts as millimetres."""

_SAME_MM = 0.1
_SAME_SIZE = 0.01  # as a share
_ZERO_SIZE = "should be non-zero"  # of nibabel's sentence, in whose place we have our own


def open_image(path: Path, assume: str | None) -> Stored:
    """An image whose header is read and whose voxels are not.

    Args:
        assume: Directions of the voxel axes, for an image that does not state them.

    Raises:
        UserError: it is damaged, no scalar volume, or does not say where its voxels lie.
    """
    import nibabel as nib

    notes: list[str] = []
    with _errors(path), _log_kept(notes):
        image: Any = nib.load(path)
        checks.kind(path.name, image.get_data_dtype())
        proxy = image.dataobj
        shape = tuple(int(n) for n in image.shape)
        if len(shape) > 3 and 0 in shape[3:]:
            shape = tuple(n or 1 if axis > 2 else n for axis, n in enumerate(shape))
            notes.append(
                f"the header of {path.name} says that it holds no volume (a dimension of 0); it "
                "was read as one"
            )
        checks.dimensions(path.name, shape)
        volume = (shape[0], shape[1], shape[2])
        offset = proxy.offset
        header = image.header
        if isinstance(header, nib.Nifti1Header):
            if header.is_single and offset == 0:
                offset = header.single_vox_offset
                notes.append(
                    f"the header of {path.name} says that its voxels begin inside the header; they "
                    f"were read from byte {offset}, which 3D Slicer does not do"
                )
            lacks, affine = _of_nifti(path, header, volume, notes)
        else:
            lacks, affine = _of_others(path, image)
        if lacks:
            affine, note = orientation.resolve(path.name, lacks, assume, volume, affine)
            notes.append(note)
        spec = (volume, proxy.dtype, offset, proxy.slope, proxy.inter)
        proxy = nib.arrayproxy.ArrayProxy(proxy.file_like, spec, order=proxy.order)

    def voxels(dtype: type[np.floating]) -> np.ndarray:
        with _errors(path):
            return np.asarray(np.asanyarray(proxy, dtype=dtype))

    return Stored(path.name, volume, affine, voxels, bool(lacks), tuple(notes))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what nibabel raises about a bad file into a sentence."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, PermissionError):
            raise UserError(f"{path.name} may not be read; check its permissions.") from error
        raise checks.damaged(path.name) from error
    except MemoryError as error:
        raise UserError(f"{path.name} does not fit into this computer's memory.") from error


@contextmanager
def _log_kept(notes: list[str]) -> Iterator[None]:
    """What nibabel reports of header fields that it repaired, as notes instead of on stderr."""
    from nibabel.imageglobals import logger

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if _ZERO_SIZE not in record.getMessage():
                notes.append(f"a field of the header was repaired: {record.getMessage()}")

    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Keep()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


# Analyze and MGH ----------------------------------------------------------------------------------


def _of_others(path: Path, image: Any) -> tuple[str, FloatArray]:
    """What of its orientation an Analyze or MGH file lacks, or "", and its affine in RAS mm."""
    import nibabel as nib

    affine = np.asarray(image.affine, dtype=np.float64)
    if isinstance(image, nib.MGHImage):
        with nib.openers.ImageOpener(str(path)) as file:
            file.seek(28)
            flag = int(np.frombuffer(file.read(2), ">i2")[0])
            sizes = np.frombuffer(file.read(12), ">f4").astype(np.float64)
        if flag > 0:
            return "", affine
        # nibabel takes 1 mm, as the flag says that nothing is known; most such files do know.
        if np.isfinite(sizes).all() and sizes.min() > 0:
            affine = _centred(affine, sizes, image.shape)
        return "its RAS flag is 0", affine
    if isinstance(image, nib.AnalyzeImage) and not _has_spm_matrix(path):
        return "Analyze 7.5 has no field for it", affine
    return "", affine


def _centred(affine: FloatArray, sizes: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Axes with other voxel sizes, (3,) in mm, and the middle of the image at the origin."""
    centred = affine.copy()
    centred[:3, :3] *= sizes / voxel_sizes(affine)
    centred[:3, 3] = -centred[:3, :3] @ (np.array(shape[:3]) / 2)
    return centred


def _has_spm_matrix(path: Path) -> bool:
    """Whether SPM's .mat beside an Analyze file holds its affine, with left and right in it."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    name = path.name.removesuffix(".gz")
    beside = path.with_name(name[: name.rindex(".")] + ".mat")
    if not beside.exists():
        return False
    try:
        # The other variable, M, leaves left and right to a setting of each site.
        return "mat" in loadmat(str(beside))
    except (MatReadError, NotImplementedError, ValueError) as error:
        raise checks.damaged(beside.name) from error


# NIfTI --------------------------------------------------------------------------------------------


def _of_nifti(
    path: Path, header: Any, shape: tuple[int, int, int], notes: list[str]
) -> tuple[str, FloatArray]:
    """What of its orientation a NIfTI lacks, or "", and its affine; contradictions go to notes.

    A header says so up to three times: sform, qform, and voxel sizes. Where they agree, that is
    it. Where they do not, ITK decides, which is what 3D Slicer reads with.
    """
    mm = _UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    raw = _raw_sizes(path, header)
    sizes = raw * mm
    unusable = not np.isfinite(raw).all() or bool((raw == 0).any())
    stated: dict[str, FloatArray] = {}
    for name in ("sform", "qform"):
        if int(header[f"{name}_code"]) > 0:
            matrix = header.get_sform() if name == "sform" else header.get_qform()
            stated[name] = _in_mm(np.asarray(matrix, dtype=np.float64), mm)
    if not stated:
        if unusable:
            raise _no_sizes(path.name)
        guess = _in_mm(np.asarray(header.get_best_affine(), dtype=np.float64), mm)
        return "its sform and qform codes are 0", guess
    if unusable:
        if "sform" not in stated or is_singular(stated["sform"]):
            raise _no_sizes(path.name)
        notes.append(
            f"the header of {path.name} gives a voxel size of 0 (pixdim), so the one of its sform "
            "was used; 3D Slicer takes 1 mm for it and shows the image in another place"
        )
        return "", stated["sform"]
    found = _contradictions(stated, sizes, shape)
    chosen = stated.get("sform", stated.get("qform"))
    assert chosen is not None
    if found:
        slicer = _of_itk(path)
        if slicer is not None:
            chosen = slicer
        notes.append(
            f"the header of {path.name} contradicts itself: {' and '.join(found)}; it was read as "
            "3D Slicer reads it, which other programs may not"
        )
    return "", chosen


def _raw_sizes(path: Path, header: Any) -> FloatArray:
    """The voxel sizes as they stand in the file, (3,): nibabel repairs them when it loads."""
    import nibabel as nib

    beside = path
    for suffix in (".img", ".img.gz"):
        if path.name.lower().endswith(suffix):
            beside = path.with_name(path.name[: -len(suffix)] + ".hdr" + suffix[4:])
    with nib.openers.ImageOpener(str(beside if beside.exists() else path)) as file:
        stored = type(header).from_fileobj(file, check=False)
    return np.abs(np.asarray(stored["pixdim"][1:4], dtype=np.float64))


def _in_mm(affine: FloatArray, mm: float) -> FloatArray:
    scaled = affine.copy()
    scaled[:3] *= mm
    return scaled


def _no_sizes(name: str) -> UserError:
    return UserError(
        f"the header of {name} does not give the size of a voxel (pixdim is 0); export it again."
    )


def _contradictions(
    stated: dict[str, FloatArray], sizes: FloatArray, shape: tuple[int, int, int]
) -> list[str]:
    """Clauses on what of a header disagrees; none for most."""
    found = []
    if len(stated) == 2:
        last = np.array(shape) - 1
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * last
        places = [corners @ a[:3, :3].T + a[:3, 3] for a in stated.values()]
        apart = float(np.linalg.norm(places[0] - places[1], axis=1).max())
        if not apart <= _SAME_MM:  # true of NaN, too
            found.append(f"its sform and qform place the same voxels up to {apart:.0f} mm apart")
    if "sform" in stated:
        own = voxel_sizes(stated["sform"])
        if not np.abs(own / sizes - 1).max() <= _SAME_SIZE:
            found.append(
                f"its sform has voxels of {_product(own)}, its pixdim of {_product(sizes)}"
            )
    return found


def _product(sizes: FloatArray) -> str:
    return " x ".join(f"{mm:.3g}" for mm in sizes) + " mm"


def _of_itk(path: Path) -> FloatArray | None:
    """The affine that ITK reads, in RAS mm; None if it refuses the header."""
    sitk = itk_formats.simple_itk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return itk_formats.ras_affine(reader)
