"""The voxels of a stack of DICOM slices, and slices stacked at a slant set upright."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, shear_degrees
from BrainLandmarksLib.io.images import checks
from BrainLandmarksLib.io.images.dicom.frames import Frame
from BrainLandmarksLib.io.images.dicom.stacks import Stack
from BrainLandmarksLib.io.images.itk_formats import check_kind, simple_itk


@dataclass(frozen=True, eq=False)
class Rectangular:
    """How slices stacked at a slant come onto a rectangular grid: each is shifted in its plane.

    Args:
        degrees: The slant, between the direction of stacking and the slices' normal.
        shape: Voxels of the grid, which holds all of every slice.
        affine: ijk -> RAS mm of the grid.
        start: Where slice 0 begins in the grid, in voxels along i and j.
        shift: How much further each next slice begins.
    """

    degrees: float
    shape: tuple[int, int, int]
    affine: FloatArray
    start: FloatArray
    shift: FloatArray

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: FloatArray) -> Rectangular | None:
        """For slices with this affine; None where they are stacked upright.

        Args:
            shape: Their voxels.
            affine: ijk -> RAS mm, 4x4; i and j are at right angles.
        """
        if shear_degrees(affine) <= checks.MAX_SHEAR_DEGREES:
            return None
        i, j, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
        shift = np.array([step @ i / (i @ i), step @ j / (j @ j)])
        upright = affine.copy()
        upright[:3, 2] = step - shift[0] * i - shift[1] * j
        if shear_degrees(upright) > checks.MAX_SHEAR_DEGREES or not upright[:3, 2].any():
            return None  # refused for its shear
        last = shift * (shape[2] - 1)
        low = np.floor(np.minimum(last, 0))
        more = np.ceil(np.maximum(last, 0)) - low
        upright[:3, 3] = affine[:3, 3] + low[0] * i + low[1] * j
        tall = float(np.linalg.norm(upright[:3, 2]))
        degrees = float(np.degrees(np.arccos(min(1.0, tall / float(np.linalg.norm(step))))))
        size = (shape[0] + int(more[0]), shape[1] + int(more[1]), shape[2])
        return cls(degrees, size, upright, -low, shift)

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Slices (I, J, K) on the grid, linearly interpolated; around them lies the least value."""
        from scipy import ndimage

        outside = float(data.min())
        out = np.full(self.shape, outside, dtype=np.float32)
        for k in range(data.shape[2]):
            out[: data.shape[0], : data.shape[1], k] = data[:, :, k]
            ndimage.shift(
                out[:, :, k].copy(), self.start + k * self.shift, out[:, :, k],
                order=1, mode="grid-constant", cval=outside,
            )  # fmt: skip
        return out


def read_pixels(name: str, stack: Stack, tilt: Rectangular | None) -> np.ndarray:
    """The values of a stack, (I, J, K) in float32, each slice with its own scaling.

    Raises:
        UserError: a file is damaged or compressed in a way that ITK does not know.
    """
    data = np.empty(stack.shape, dtype=np.float32)
    by_file: defaultdict[Path, list[tuple[int, Frame]]] = defaultdict(list)
    for k, frame in enumerate(stack.frames):
        by_file[frame.file].append((k, frame))
    for file, wanted in by_file.items():
        pixels = _read(name, file)
        for k, frame in wanted:
            if frame.index >= len(pixels) or pixels.shape[:0:-1] != frame.shape:
                raise _damaged(name)
            plane = pixels[frame.index].T
            (slope, intercept), (scale, offset) = frame.scaling, frame.applied
            if frame.scaling != frame.applied and scale != 0:
                plane = (plane - offset) / scale * slope + intercept
            data[:, :, k] = plane
    return data if tilt is None else tilt.apply(data)


def _read(name: str, file: Path) -> np.ndarray:
    """All frames of a file, (frames, rows, columns), float32."""
    sitk = simple_itk()
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.SetImageIO("GDCMImageIO")
        reader.ReadImageInformation()
        check_kind(name, reader.GetPixelID(), reader.GetNumberOfComponents())
        reader.SetOutputPixelType(sitk.sitkFloat32)
        pixels = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        raise _damaged(name) from error
    return pixels.reshape(-1, *pixels.shape[-2:])


def _damaged(name: str) -> UserError:
    return UserError(f"the DICOM series in {name} is damaged or incomplete; export it again.")
