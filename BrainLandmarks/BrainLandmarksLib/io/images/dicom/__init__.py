"""DICOM: a folder of files, or one of many frames, as one volume.

    headers      what each slice says of itself (frames.py)
    -> stacks    slices of one volume, in order (stacks.py)
    -> choice    the volume that is most like a T1, or the one that was asked for (choice.py)
    -> voxels    its pixels, on a rectangular grid (pixels.py)

pydicom reads the headers and ITK (GDCM) the pixels, compressed ones too.

>>> stored = read(Path("study"), series="3")
"""

from __future__ import annotations

import os
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images import checks
from BrainLandmarksLib.io.images.dicom.choice import choose
from BrainLandmarksLib.io.images.dicom.frames import read_frames
from BrainLandmarksLib.io.images.dicom.pixels import Rectangular, read_pixels
from BrainLandmarksLib.io.images.dicom.stacks import stacks_of
from BrainLandmarksLib.io.images.stored import Stored


def read(path: Path, series: str | None) -> Stored:
    """One volume of a folder, at any depth, or of a file.

    Raises:
        UserError: there is none, several could be meant, or its slices make no volume.
    """
    name = path.name or str(path)
    files = _files(path)
    frames = [frame for file in files for frame in read_frames(file)]
    if not frames:
        for file in files:
            checks.readable(file)  # what is there may be placeholders
        raise UserError(
            f"{_the(path)} holds no DICOM images; give the folder of one T1 series, or an image "
            "file."
        )
    if path.is_file() and len(frames) == 1:
        raise UserError(
            f"{name} is one slice of a DICOM series; give the folder that holds the whole series."
        )
    stack, notes = choose(_the(path), stacks_of(frames), series)
    if stack.problem:
        raise UserError(f"{stack.title} in {_the(path)} {stack.problem}.")
    shape, affine = stack.shape, stack.affine
    tilt = Rectangular.of(shape, affine)
    if tilt is not None:
        notes += (
            f"the slices of {stack.title} are stacked at a slant of {tilt.degrees:.0f} degrees "
            "(gantry tilt); they were resampled onto a rectangular grid",
        )
        shape, affine = tilt.shape, tilt.affine
    return Stored(
        name,
        shape,
        affine,
        lambda dtype: read_pixels(name, stack, tilt).astype(dtype, copy=False),
        notes=notes,
    )


def _the(path: Path) -> str:
    return f"the folder {path.name}" if path.is_dir() else path.name


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [
        Path(folder) / name
        for folder, _, names in sorted(os.walk(path))
        for name in sorted(names)
        if not name.startswith(".")
    ]
