"""Reading images of heads and resampling them: nothing here knows about landmarks."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import (
    FloatArray,
    Grid,
    canonical,
    is_singular,
    lps_affine_to_ras,
    shear_degrees,
)

if TYPE_CHECKING:
    import SimpleITK

ImageArray = npt.NDArray[np.float32]

NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img", ".img.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

MIN_VOXELS = 8
MIN_EXTENT_MM = 60.0
MAX_EXTENT_MM = 3000.0
MAX_SHEAR_DEGREES = 1.0

MANY_VOXELS = 2**27
"""More than any scanner's head has; `thinned` makes them fewer."""

_FWHM_PER_SIGMA = 2.3548200450309493


@dataclass(eq=False)
class Volume:
    """One image of a head: float32 voxel values and the grid they lie on.

    >>> volume = read_image("head.nii.gz")
    >>> cube = geometry.cube(volume.grid.center_ras, field_of_view_mm=208, size=64)
    >>> resample(volume, cube).shape
    (64, 64, 64)
    """

    data: ImageArray
    grid: Grid

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise ValueError(f"data of shape {self.data.shape} on a grid of {self.grid.shape}")


# Reading ------------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike[str]) -> Volume:
    """Read one 3-D image of a head: NIfTI, MGH/MGZ, NRRD, MetaImage or a folder of DICOM files.

    Returns:
        Volume in RAS axis order (axes permuted and flipped, never resampled), float32, with the
        header's intensity scaling applied.

    Raises:
        UserError: If the file is missing, unreadable or damaged, or holds something else than one
            three-dimensional scalar image of a head with a usable affine.
    """
    path = Path(path)
    _check_readable(path)
    if path.is_dir():
        data, affine = _read_dicom_folder(path)
    elif path.name.lower().endswith(NIBABEL_SUFFIXES):
        data, affine = _read_with_nibabel(path)
    elif path.name.lower().endswith(ITK_SUFFIXES):
        data, affine = _read_with_itk(path)
    else:
        raise UserError(
            f"{path.name} is not an image this program reads; give .nii, .nii.gz, .mgz, .mgh, "
            ".nrrd, .nhdr, .mha or a folder of DICOM files."
        )
    _check_affine(path.name, affine)
    data, affine = canonical(data, affine)
    volume = Volume(np.ascontiguousarray(data, dtype=np.float32), Grid(data.shape, affine))
    _check_size(path.name, volume.grid)
    _check_values(path.name, volume.data)
    return volume


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """The grid that `read_image` gives an image, from the header alone where that is possible.

    Raises:
        UserError: As `read_image`, as far as the header tells.
    """
    path = Path(path)
    _check_readable(path)
    if path.is_dir() or not path.name.lower().endswith(NIBABEL_SUFFIXES):
        return read_image(path).grid
    image, affine = _open_with_nibabel(path)
    _check_affine(path.name, affine)
    # An array of that shape without memory of its own.
    voxels = np.broadcast_to(np.float32(0), image.shape[:3])
    voxels, affine = canonical(voxels, affine)
    grid = Grid(voxels.shape, affine)
    _check_size(path.name, grid)
    return grid


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path} does not exist; check the path.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path.name} may not be read; check its permissions.")


def stem(path: str | os.PathLike[str]) -> str:
    """The file or folder name without its image suffix: `head` of `scans/head.nii.gz`."""
    name = Path(path).resolve().name
    for suffix in sorted(NIBABEL_SUFFIXES + ITK_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _open_with_nibabel(path: Path) -> tuple[Any, FloatArray]:
    """An image whose voxels are not read yet, and its affine."""
    import nibabel as nib

    # nibabel reports each repaired header field on stderr; none of them concerns the user.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with _nibabel_errors(path):
        image: Any = nib.load(path)
        _check_kind(path.name, image.get_data_dtype())
        _check_dimensions(path.name, image.shape)
        affine = np.asarray(image.affine, dtype=np.float64)
        header = image.header
        if isinstance(header, nib.Nifti1Header) and not header["qform_code"] + header["sform_code"]:
            raise UserError(
                f"{path.name} does not say how it is oriented (its sform and qform codes are 0), "
                "so left and right cannot be told apart; export it again with its orientation."
            )
        return image, affine


def _read_with_nibabel(path: Path) -> tuple[np.ndarray, FloatArray]:
    image, affine = _open_with_nibabel(path)
    # Out-of-range integers become inf here and are reported as such further down.
    with _nibabel_errors(path), np.errstate(over="ignore", invalid="ignore"):
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    return data.reshape(data.shape[:3]), affine


@contextmanager
def _nibabel_errors(path: Path) -> Iterator[None]:
    """Turn what nibabel raises about a bad file into a sentence."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, PermissionError):
            raise UserError(f"{path.name} may not be read; check its permissions.") from error
        raise UserError(
            f"{path.name} is damaged, incomplete or not the image its name says; copy or export "
            "it again."
        ) from error
    except MemoryError as error:
        raise UserError(f"{path.name} does not fit into this computer's memory.") from error


def _read_with_itk(path: Path) -> tuple[np.ndarray, FloatArray]:
    sitk = _simple_itk()
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        _check_itk_kind(path.name, reader.GetPixelID(), reader.GetNumberOfComponents())
        _check_dimensions(path.name, reader.GetSize())
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(
            f"{path.name} is damaged, incomplete or not the image its name says; copy or export "
            "it again."
        ) from error
    return _from_itk(image)


def _read_dicom_folder(folder: Path) -> tuple[np.ndarray, FloatArray]:
    sitk = _simple_itk()
    try:
        files = _largest_dicom_series(sitk, folder)
        if not files:
            raise UserError(
                f"the folder {folder.name} holds no DICOM images; give the folder of one T1 "
                "series, or an image file."
            )
        if len(files) == 1:
            image = sitk.ReadImage(files[0])
            _check_itk_kind(folder.name, image.GetPixelID(), image.GetNumberOfComponentsPerPixel())
            _check_dimensions(folder.name, image.GetSize())
            return _from_itk(image)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        reader.MetaDataDictionaryArrayUpdateOn()
        image = reader.Execute()
        _check_itk_kind(folder.name, image.GetPixelID(), image.GetNumberOfComponentsPerPixel())
        positions = [reader.GetMetaData(n, "0020|0032") for n in range(len(files))]
    except RuntimeError as error:
        raise UserError(
            f"the DICOM series in {folder.name} is damaged or incomplete; export it again."
        ) from error
    _check_slice_distances(folder.name, positions)
    return _from_itk(image)


def _largest_dicom_series(sitk: Any, folder: Path) -> list[str]:
    """The files of the series that takes most space on disk, in slice order; [] if none."""
    best: list[str] = []
    best_bytes = 0
    for directory, _, names in sorted(os.walk(folder)):
        if not names:
            continue
        for series in sitk.ImageSeriesReader.GetGDCMSeriesIDs(directory, True):
            files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(directory, series, True)
            size = sum(os.path.getsize(file) for file in files)
            if size > best_bytes:
                best, best_bytes = list(files), size
    return best


def _check_slice_distances(name: str, positions: Sequence[str]) -> None:
    points = np.array([[float(x) for x in p.split("\\")] for p in positions])
    distances = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if np.ptp(distances) > 0.05 * np.median(distances):
        raise UserError(
            f"the DICOM series in {name} has missing or repeated slices; give the folder of one "
            "complete 3-D T1 series."
        )


def _simple_itk() -> Any:
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


def _from_itk(image: SimpleITK.Image) -> tuple[np.ndarray, FloatArray]:
    """Voxels in i, j, k order and the ijk -> RAS affine; ITK counts in LPS."""
    sitk = _simple_itk()
    data = sitk.GetArrayFromImage(image).transpose()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection()[:9], (3, 3)) * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return data.reshape(data.shape[:3]), lps_affine_to_ras(affine)


def _check_itk_kind(name: str, pixel_id: int, components: int) -> None:
    sitk = _simple_itk()
    if pixel_id in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        _check_kind(name, np.dtype(np.complex64))
    if components != 1:
        _check_kind(name, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))


def _check_kind(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.fields is not None:
        raise UserError(
            f"{name} holds colours or vectors, not intensities; give the original T1 image."
        )
    if dtype.kind == "c":
        raise UserError(f"{name} holds complex numbers; give the magnitude image.")


def _check_dimensions(name: str, shape: Sequence[int]) -> None:
    if len(shape) > 3 and int(np.prod(shape[3:])) != 1:
        raise UserError(
            f"{name} is a series of {int(np.prod(shape[3:]))} volumes; give one 3-D T1 volume."
        )
    if len(shape) < 3 or min(shape[:3]) == 1:
        raise UserError(f"{name} is a two-dimensional image; give a 3-D T1 volume.")


def _check_affine(name: str, affine: FloatArray) -> None:
    if not np.isfinite(affine).all() or is_singular(affine):
        raise UserError(
            f"{name} has a singular affine: its header does not say where the voxels lie; export "
            "it again."
        )
    shear = shear_degrees(affine)
    if shear > MAX_SHEAR_DEGREES:
        raise UserError(
            f"{name} has a sheared affine (voxel axes {90 - shear:.0f} degrees apart); resample it "
            "to a rectangular grid first."
        )


def _check_size(name: str, grid: Grid) -> None:
    shape = " x ".join(str(n) for n in grid.shape)
    extent = " x ".join(f"{mm:.0f}" for mm in grid.extent)
    if min(grid.shape) < MIN_VOXELS:
        raise UserError(
            f"{name} has only {shape} voxels; a head needs at least {MIN_VOXELS} along every axis."
        )
    if grid.extent.min() < MIN_EXTENT_MM or grid.extent.max() > MAX_EXTENT_MM:
        raise UserError(
            f"{name} covers {extent} mm, which cannot be a head; check the voxel size in its "
            "header."
        )


def _check_values(name: str, data: ImageArray) -> None:
    # The sum is finite only if every value is, short of an overflow, which is looked at closely.
    if not np.isfinite(data.sum(dtype=np.float64)) and not np.isfinite(data).all():
        count = int((~np.isfinite(data)).sum())
        raise UserError(
            f"{name} has voxels that are not numbers ({count} are NaN or infinite); replace them, "
            "for example with 0, and try again."
        )
    if data.min() == data.max():
        raise UserError(f"{name} is empty: every voxel has the value {data.flat[0]:g}.")


# Resampling ---------------------------------------------------------------------------------------


def thinned(volume: Volume, largest: int = MANY_VOXELS, finest_mm: float = 1.0) -> Volume:
    """A very large image with fewer voxels; any other as it is.

    Blocks of voxels are averaged, which keeps the memory that follows in proportion to a head.

    Args:
        volume: The image.
        largest: Voxels up to which nothing is done.
        finest_mm: Averaged voxels are at most this large.
    """
    factors = [max(1, int(finest_mm / mm)) for mm in volume.grid.spacing]
    if volume.data.size <= largest or max(factors) == 1:
        return volume
    shape = [n // f for n, f in zip(volume.grid.shape, factors)]
    (a, b, c), (fa, fb, fc) = shape, factors
    data = np.empty(shape, np.float32)
    for i in range(a):  # slab by slab: the sums need room, too
        slab = volume.data[i * fa : (i + 1) * fa, : b * fb, : c * fc]
        data[i] = slab.reshape(fa, b, fb, c, fc).mean((0, 2, 4), dtype=np.float32)
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    affine[:3, :3] *= factors
    return Volume(data, Grid((a, b, c), affine))


def resample(volume: Volume, grid: Grid, *, order: int = 1) -> ImageArray:
    """Values of the image on another grid; 0 (air) where the image does not reach.

    Before a coarser grid is sampled, the image is smoothed along each of its own axes by a
    Gaussian that makes a voxel see about as much of the head as the new spacing: with the
    voxels' point spread taken as Gaussians of full width at half maximum s (in mm),
    sigma = sqrt((s_out / 2.355)^2 - (s_in / 2.355)^2), where s_out is the width of the new voxel
    along the source axis. Finer grids get no smoothing. The image counts as 0 beyond its
    border throughout, so padding it with air, or cropping air, changes nothing.

    Args:
        grid: Target grid; its affine may be oblique to the image's.
        order: 1: trilinear with the smoothing above. 0: nearest voxel, for label maps.

    Returns:
        float32 of shape `grid.shape`.
    """
    data, affine = canonical(volume.data, volume.grid.affine)
    source = Grid(data.shape, affine)
    data = np.ascontiguousarray(data, dtype=np.float32)
    to_source = np.linalg.inv(source.affine) @ grid.affine
    if order == 0:
        return _nearest(data, to_source, grid.shape)
    if order != 1:
        raise ValueError(f"order is 0 (nearest) or 1 (linear), not {order}")
    sigmas = _smoothing(source, grid)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    corners = corners @ to_source[:3, :3].T + to_source[:3, 3]
    # The last axis first: it is the contiguous one, and each step shrinks what follows.
    for axis in (2, 1, 0):
        if sigmas[axis] > 0:
            low, high = np.floor(corners[:, axis].min()), np.ceil(corners[:, axis].max())
            kept = _kept_indices(int(low), int(high), data.shape[axis], sigmas[axis])
            data = _smooth(data, axis, kept, sigmas[axis])
            to_source[axis, 3] -= kept[0]
            to_source[axis] /= kept[1] - kept[0]
    return _trilinear(data, to_source, grid.shape)


def _smoothing(source: Grid, target: Grid) -> FloatArray:
    """Standard deviation of the Gaussian along each source axis, in source voxels, (3,)."""
    directions = source.affine[:3, :3] / source.spacing
    # Variance of the target voxel's point spread as seen along each source axis.
    spread = ((directions.T @ target.affine[:3, :3]) ** 2).sum(axis=1)
    variance = (spread - source.spacing**2) / _FWHM_PER_SIGMA**2
    # Below a tenth of a voxel there is nothing to smooth, only rounding.
    variance[variance < (0.1 * source.spacing) ** 2] = 0
    return np.asarray(np.sqrt(variance) / source.spacing)


def _kept_indices(low: int, high: int, size: int, sigma: float) -> npt.NDArray[np.int64]:
    """Indices along one source axis at which the smoothed image is kept: equidistant, at least two.

    Counted from where the target begins (index `low`), not from the image's border, so cropping
    and padding keep the same points of the head; they end where the smoothed image is all air.
    """
    # Three samples per four sigmas: linear interpolation between them stays within 2 percent.
    step = max(1, int(0.75 * sigma))
    reach = _reach(sigma) + step
    start = low + step * max(0, (-reach - low) // step)
    stop = min(high, size - 1 + reach)
    return np.asarray(start + step * np.arange(max(2, -(-(stop - start) // step) + 1)))


def _reach(sigma: float) -> int:
    """Half length of the truncated Gaussian, in voxels."""
    return int(np.ceil(4 * sigma))


def _smooth(data: np.ndarray, axis: int, kept: npt.NDArray[np.int64], sigma: float) -> ImageArray:
    """The image convolved with a Gaussian along one axis, at the kept indices only."""
    reach = _reach(sigma)
    first = min(max(0, int(kept[0]) - reach), data.shape[axis])
    last = max(first, min(data.shape[axis], int(kept[-1]) + reach + 1))
    offsets = np.arange(first, last) - kept[:, None]
    weights = np.where(np.abs(offsets) <= reach, np.exp(-0.5 * (offsets / sigma) ** 2), 0)
    weights /= np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).sum()
    # A dense matrix product beats a convolution here: one BLAS call, and the samples that are not
    # kept are never computed.
    matrix = weights.astype(np.float32)
    block = data[(slice(None),) * axis + (slice(first, last),)]
    i, j, k = block.shape
    if axis == 2:
        return np.asarray(block.reshape(i * j, k) @ matrix.T).reshape(i, j, len(kept))
    if axis == 1:
        # Moved to the front: one large product instead of one small product per slice.
        front = matrix @ block.transpose(1, 0, 2).reshape(j, i * k)
        return np.ascontiguousarray(front.reshape(len(kept), i, k).transpose(1, 0, 2))
    return np.asarray(matrix @ block.reshape(i, j * k)).reshape(len(kept), j, k)


def _trilinear(data: ImageArray, to_index: FloatArray, shape: tuple[int, int, int]) -> ImageArray:
    """Trilinear interpolation at the indices an affine gives for each voxel of `shape`.

    Beyond the outermost samples the data falls linearly to 0 over one sample.
    """
    corners: list[tuple[Any, Any]] = []
    weights: list[tuple[Any, Any]] = []
    for axis in range(3):
        index = _indices(to_index, axis, shape)
        size = data.shape[axis]
        np.clip(index, -1, size, out=index)
        floor = np.floor(index)
        above = index - floor
        cell = floor.astype(np.int64)
        near = np.where((cell >= 0) & (cell < size), 1 - above, 0).astype(np.float32)
        far = np.where(cell + 1 < size, above, 0).astype(np.float32)
        stride = int(np.prod(data.shape[axis + 1 :]))
        last = size - 1
        corners.append((cell.clip(0, last) * stride, (cell + 1).clip(0, last) * stride))
        weights.append((near, far))
    flat = data.reshape(-1)
    result = np.zeros(shape, dtype=np.float32)
    for i, wi in zip(corners[0], weights[0], strict=True):
        for j, wj in zip(corners[1], weights[1], strict=True):
            ij, wij = i + j, wi * wj
            for k, wk in zip(corners[2], weights[2], strict=True):
                result += flat[ij + k] * (wij * wk)
    return result


def _nearest(data: np.ndarray, to_index: FloatArray, shape: tuple[int, int, int]) -> ImageArray:
    inside = np.ones(shape, dtype=bool)
    indices = []
    for axis in range(3):
        index = np.rint(_indices(to_index, axis, shape)).astype(np.int64)
        inside &= (index >= 0) & (index < data.shape[axis])
        indices.append(np.clip(index, 0, data.shape[axis] - 1))
    return np.where(inside, data[tuple(indices)], 0).astype(np.float32)


def _indices(to_index: FloatArray, axis: int, shape: tuple[int, int, int]) -> ImageArray:
    """One source coordinate of every voxel of `shape`, float32."""
    i, j, k = (np.arange(n, dtype=np.float64) for n in shape)
    row = to_index[axis]
    return np.asarray(
        row[0] * i[:, None, None] + row[1] * j[:, None] + row[2] * k + row[3], dtype=np.float32
    )


# Where the head is --------------------------------------------------------------------------------


def foreground(volume: Volume) -> npt.NDArray[np.bool_]:
    """Which voxels are head rather than air; (I, J, K).

    Otsu's threshold (IEEE Trans. SMC 9, 1979) on the square root of the intensities, which
    splits air from tissue rather than dark from bright tissue. Expects air near 0
    (`intensity.air_to_zero`).
    """
    values = np.sqrt(np.clip(volume.data, 0, None))
    top = float(np.percentile(values, 99.5))
    if top <= 0:
        return np.zeros(volume.data.shape, dtype=bool)
    counts, edges = np.histogram(values, bins=128, range=(0, top))
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
        between = np.where((below > 0) & (above > 0), below * above * gap**2, 0)
    return np.asarray(values > edges[1 + int(between.argmax())])
