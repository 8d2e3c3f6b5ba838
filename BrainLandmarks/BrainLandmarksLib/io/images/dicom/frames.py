"""What a DICOM slice says of itself: where it lies and what it shows.

A classic file is one frame; an enhanced file holds many, whose headers are nested in "functional
groups", some shared by all frames. Both come out alike here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError

_SHARED, _EACH = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

_READ = (
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ProtocolName",
    "SequenceName", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "EchoTime", "EffectiveEchoTime", "EchoNumbers", "RepetitionTime", "InversionTime",
    "TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue", "TriggerTime",
    "ComplexImageComponent", "AcquisitionContrast", "RescaleSlope", "RescaleIntercept",
    _SHARED, _EACH,
)  # fmt: skip

_MANY_COMPONENTS = ("MIXED", "")
_COMPONENTS = {"M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY"}
"""In the image type of classic files, from the third word on."""


@dataclass(frozen=True)
class Series:
    """What is said of a whole series.

    Args:
        uid: Its unique identifier.
        number: As on the scanner's console; "" if there is none.
        description: What the people at the scanner call it.
        words: Everything that may tell its contrast, in lower case.
        modality: "MR", "CT", ...
    """

    uid: str
    number: str
    description: str
    words: str
    modality: str


@dataclass(frozen=True)
class Frame:
    """One slice.

    Args:
        file: Where it is.
        index: Which frame of the file, from 0.
        identity: The same for a copy of the file.
        series: What it belongs to.
        shape: Columns and rows.
        spacing: Distance of columns, and of rows, in mm; None if not stated.
        position: Centre of its first pixel, LPS mm; None if not stated.
        directions: Those of growing column and row index, six cosines; None if not stated.
        colours: Whether pixels are colours.
        kind: Words of the image type, upper case.
        component: MAGNITUDE, PHASE, REAL, IMAGINARY or "".
        contrast: What an enhanced file says of its contrast, such as T1; "".
        echo_ms: Echo time; None if not stated.
        varied: What slices of one place may differ in, by name.
        scaling: Slope and intercept that turn its stored into its real values.
        applied: The ones that GDCM applies, those of the file's first frame.
    """

    file: Path
    index: int
    identity: tuple[str, int]
    series: Series
    shape: tuple[int, int]
    spacing: tuple[float, float] | None
    position: tuple[float, ...] | None
    directions: tuple[float, ...] | None
    colours: bool
    kind: tuple[str, ...]
    component: str
    contrast: str
    echo_ms: float | None
    varied: Mapping[str, Any]
    scaling: tuple[float, float]
    applied: tuple[float, float]


def read_frames(file: Path) -> list[Frame]:
    """The slices of a file; none if it is no DICOM image.

    Raises:
        UserError: pydicom is not installed, or the header is damaged.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(
            "reading DICOM needs pydicom; run pip install pydicom, or give a NIfTI file."
        ) from error
    marked = _is_marked(file)
    if marked is None:
        return []
    try:
        # pydicom's warnings quote header fields, which may be the patient's.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_READ)
            )
            return _frames(file, dataset)
    except PermissionError as error:
        raise UserError(f"{file.name} may not be read; check its permissions.") from error
    except (
        pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError,
        AttributeError, NotImplementedError, IndexError,
    ) as error:  # fmt: skip
        if not marked:
            return []
        raise UserError(
            f"the DICOM file {file.name} has a damaged header; copy or export it again."
        ) from error


def _is_marked(file: Path) -> bool | None:
    """Whether a file has DICOM's mark; None if it does not look like DICOM without one either."""
    try:
        with file.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return None  # a link to nowhere, a socket
    if head[128:] == b"DICM":
        return True
    # Files written before there was a mark begin with the tags of one of the first groups.
    return False if head[:2] in (b"\x08\x00", b"\x02\x00") else None


def _frames(file: Path, dataset: Any) -> list[Frame]:
    top = _flat(dataset)
    if "Rows" not in top or "Columns" not in top or "SeriesInstanceUID" not in top:
        return []  # a report, a directory, a presentation state
    series = _series(top)
    shared = _groups(dataset, _SHARED)
    each = _groups(dataset, _EACH)
    count = max(int(top.get("NumberOfFrames") or 1), 1)
    if len(each) != count:
        # Without headers of their own the frames of a file have no places.
        each = [{}] * count
    commons = {**top, **(shared[0] if shared else {})}
    if count > 1 and not any(each):
        commons.pop("ImagePositionPatient", None)
    every = [{**commons, **own} for own in each]
    applied = _scaling(every[0])
    return [_frame(file, index, series, header, applied) for index, header in enumerate(every)]


def _flat(item: Any) -> dict[str, Any]:
    """The plain elements of a dataset by keyword, those that are empty left out."""
    return {
        element.keyword: element.value
        for element in item
        if element.VR != "SQ" and element.keyword and element.value not in (None, "")
    }


def _groups(dataset: Any, keyword: str) -> list[dict[str, Any]]:
    """Functional groups, one dictionary for each item: all their elements together."""
    found = []
    for item in dataset.get(keyword) or ():
        header: dict[str, Any] = {}
        for group in item:
            # Makers' own groups repeat elements with other meanings.
            if group.VR == "SQ" and not group.tag.is_private and len(group.value):
                header.update(_flat(group.value[0]))
        found.append(header)
    return found


def _series(header: Mapping[str, Any]) -> Series:
    description = str(header.get("SeriesDescription", "")).strip()
    texts = [description, *(str(header.get(key, "")) for key in ("ProtocolName", "SequenceName"))]
    return Series(
        str(header["SeriesInstanceUID"]),
        str(header.get("SeriesNumber", "")).strip(),
        description,
        " ".join(texts).lower(),
        str(header.get("Modality", "")).upper(),
    )


def _frame(
    file: Path,
    index: int,
    series: Series,
    header: Mapping[str, Any],
    applied: tuple[float, float],
) -> Frame:
    kind = tuple(
        str(word).upper() for word in _many(header.get("FrameType", header.get("ImageType")))
    )
    spacing = _numbers(header.get("PixelSpacing"), 2)
    echo = header.get("EffectiveEchoTime", header.get("EchoTime"))
    varied = {
        "echo": header.get("EchoNumbers", echo),
        "echo time": echo,
        "time point": header.get("TemporalPositionIndex", header.get("TemporalPositionIdentifier")),
        "inversion time": header.get("InversionTime", header.get("InversionTimes")),
        "b-value": header.get("DiffusionBValue"),
        "trigger time": header.get("NominalCardiacTriggerDelayTime", header.get("TriggerTime")),
        "stack": header.get("StackID"),
        "acquisition": header.get("AcquisitionNumber"),
    }
    for number, value in enumerate(_many(header.get("DimensionIndexValues")), start=1):
        varied[f"dimension {number}"] = value
    return Frame(
        file,
        index,
        (str(header.get("SOPInstanceUID", file)), index),
        series,
        (int(header["Columns"]), int(header["Rows"])),
        None if spacing is None else (spacing[1], spacing[0]),
        _numbers(header.get("ImagePositionPatient"), 3),
        _numbers(header.get("ImageOrientationPatient"), 6),
        int(header.get("SamplesPerPixel") or 1) > 1
        or str(header.get("PhotometricInterpretation", "")).startswith("PALETTE"),
        kind,
        _component(header, kind),
        str(header.get("AcquisitionContrast", "")).upper(),
        None if echo is None else float(echo),
        {name: str(value) for name, value in varied.items() if value is not None},
        _scaling(header),
        applied,
    )


def _component(header: Mapping[str, Any], kind: tuple[str, ...]) -> str:
    stated = str(header.get("ComplexImageComponent", "")).upper()
    if stated not in _MANY_COMPONENTS:
        return stated
    for word in kind[2:]:
        if word in _COMPONENTS or word in _COMPONENTS.values():
            return _COMPONENTS.get(word, word)
    return ""


def _scaling(header: Mapping[str, Any]) -> tuple[float, float]:
    return float(header.get("RescaleSlope", 1.0)), float(header.get("RescaleIntercept", 0.0))


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, (str, int, float)) else list(value)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    values = tuple(float(number) for number in _many(value))
    return values if len(values) == count else None
