"""DICOM files for tests, with just the tags that matter: classic series and enhanced files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from BrainLandmarksLib.imaging.volume import Volume

AXIAL = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
"""Directions of rows and columns, LPS, such that a RAS volume's own axes are the image's."""


@dataclass
class Plane:
    """One slice of a volume: RAS voxels (I, J), where it lies (LPS mm), and its other tags."""

    pixels: np.ndarray
    position: list[float]
    tags: dict[str, Any]


def planes(
    volume: Volume, shift: Callable[[int], Sequence[float]] = lambda k: (0, 0, 0), **tags: Any
) -> list[Plane]:
    """The slices of an upright RAS volume, from below; `shift` moves the k-th, LPS mm."""
    stored = np.rint(volume.data).astype(np.int16)
    made = []
    for k in range(stored.shape[2]):
        corner = volume.grid.ijk_to_ras([0, 0, k]) * [-1, -1, 1] + np.array(shift(k))
        made.append(Plane(stored[:, :, k], [round(float(x), 6) for x in corner], dict(tags)))
    return made


def write_series(
    folder: Path, volume: Volume, uid: str, slices: Sequence[Plane], **tags: Any
) -> list[Path]:
    """A classic series: one file a slice, in a shuffled order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(len(slices)).permutation(len(slices))
    files = []
    for number, (name, plane) in enumerate(zip(order, slices, strict=True), start=1):
        dataset = _dataset(MRImageStorage, f"{uid}.{number}", uid)
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = plane.position
        dataset.ImageOrientationPatient = AXIAL
        dataset.PixelSpacing = [float(mm) for mm in volume.grid.spacing[[1, 0]]]
        dataset.SliceThickness = float(volume.grid.spacing[2])
        _put(dataset, {**tags, **plane.tags})
        _pixels(dataset, plane.pixels.T[None])
        files.append(folder / f"IM{name:04d}_{uid}")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(file: Path, volume: Volume, slices: Sequence[Plane], **tags: Any) -> None:
    """One file of many frames. A frame's tags may be those of any functional group."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dataset(EnhancedMRImageStorage, "1.2.3.9.1", "1.2.3.9")
    _put(dataset, tags)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_put(Dataset(), {"ImageOrientationPatient": AXIAL})]
    spacing = [float(mm) for mm in volume.grid.spacing[[1, 0]]]
    shared.PixelMeasuresSequence = [_put(Dataset(), {"PixelSpacing": spacing})]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for plane in slices:
        frame = Dataset()
        frame.PlanePositionSequence = [_put(Dataset(), {"ImagePositionPatient": plane.position})]
        for group, values in plane.tags.items():
            setattr(frame, group, [_put(Dataset(), values)])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(frames)
    _pixels(dataset, np.stack([plane.pixels.T for plane in slices]))
    dataset.save_as(file, enforce_file_format=True)


def write_screenshot(file: Path, number: int) -> None:
    """A large picture in colours."""
    dataset = _dataset(SecondaryCaptureImageStorage, f"1.2.3.{number}.1", f"1.2.3.{number}")
    _put(dataset, {"Modality": "OT", "SeriesNumber": number, "SeriesDescription": "T1 screenshot"})
    _pixels(dataset, np.zeros((1, 400, 400, 3), np.uint8))
    dataset.save_as(file, enforce_file_format=True)


def _dataset(kind: str, uid: str, series: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, uid
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, "1.2.3"
    dataset.PatientName, dataset.PatientID = "DOE^JANE", "4711"
    dataset.Modality = "MR"
    return dataset


def _put(dataset: Dataset, tags: dict[str, Any]) -> Dataset:
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    colours = pixels.ndim == 4
    bits = 8 * pixels.dtype.itemsize
    dataset.Rows, dataset.Columns = pixels.shape[1:3]
    dataset.SamplesPerPixel = 3 if colours else 1
    dataset.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
