"""Landmark files: Slicer markups (.mrk.json), a table (.csv) and the older .fcsv.

RAS millimetres inside, in .csv and in .fcsv; LPS in .mrk.json, Slicer's own convention. Every file
says which. Readers match points to the protocol by label, never by position alone, and refuse what
they do not understand, and sets that as a whole cannot be a head's as it lies in the scanner.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.conformity import need_plausible
from BrainLandmarksLib.delimited import (
    Sheet,
    coordinates_of,
    need_no_surplus,
    number,
    read_sheet,
    separator_of,
)
from BrainLandmarksLib.errors import UserError, nearest
from BrainLandmarksLib.files import whole_file
from BrainLandmarksLib.geometry import lps_to_ras, ras_to_lps
from BrainLandmarksLib.landmarks import PLAUSIBLE, STATUSES, LandmarkSet
from BrainLandmarksLib.protocol import Group, Protocol

PLAUSIBILITY = "plausibility"
"""What files call how much the detection is of a head, 0 to 1 (`detection.plausibility`)."""

IMPLAUSIBLE_MARK = " (implausible)"
"""Ends the name of a list whose points are of no head."""

CSV_COLUMNS = ("index", "label", "group", "r", "a", "s", "confidence", "status")

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)

# A description reads "left frontal pole (confidence 0.93, model)". It is the only field of a
# control point that survives every round trip through Slicer, so it carries both.
_DESCRIPTION = re.compile(
    r"^(?P<name>.*?) \((?:confidence (?P<confidence>[0-9.]+), )?(?P<status>"
    + "|".join(STATUSES)
    + r")\)$"
)
# What Slicer calls points nobody named: F-1, F_2, landmarks-3, or nothing but a number.
_UNNAMED = re.compile(r"^(?:(?P<stem>.*)[-_ ])?(?P<number>\d+)$")

FCSV_COLUMNS = (
    "id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc",
    "associatedNodeID",
)  # fmt: skip
# Slicer 5 writes two more cells than it names in the header.
_UNNAMED_FCSV_COLUMNS = ("positionStatus", "autoCreated")
_FCSV_STATUSES = {"0": False, "1": False, "2": True, "3": False}
"""Slicer's position status: undefined, preview, defined, missing; whether there is a point."""

_Row = tuple[int, Sequence[float], str, float]
"""Row of the protocol, RAS position (NaN if missing), status, confidence (NaN if none)."""


def write_landmarks(
    path: str | os.PathLike[str], landmarks: LandmarkSet, *, plausibility: float | None = None
) -> None:
    """Write a landmark file in the format its suffix names: .mrk.json, .csv or .fcsv.

    >>> write_landmarks("head_landmarks.mrk.json", landmarks)

    Args:
        plausibility: Of the detection that found them; the file states it, and is marked if it is
            implausible.

    Raises:
        UserError: the suffix is none of these, or the file cannot be written.
    """
    _by_suffix(path, _WRITERS)(path, landmarks, plausibility=plausibility)


def read_landmarks(
    path: str | os.PathLike[str],
    protocol: Protocol,
    *,
    status: str = "truth",
    any_pose: bool = False,
) -> LandmarkSet:
    """Read a landmark file in the format its suffix names: .mrk.json, .json, .csv or .fcsv.

    Args:
        protocol: The landmarks to look for; those the file lacks come back missing.
        status: Status of points whose file does not state one.
        any_pose: Also take a head that lies with its left on the patient's right: this program's
            own answer on an image that was turned, or a file that is to be judged.

    Raises:
        UserError: the file is missing, damaged, its points do not fit the protocol, or all of them
            together cannot be right (:func:`.conformity.need_plausible`).
    """
    landmarks: LandmarkSet = _by_suffix(path, _READERS)(path, protocol, status=status)
    need_plausible(protocol, landmarks.points, Path(path).name, any_pose=any_pose)
    return landmarks


# Slicer markups -----------------------------------------------------------------------------------


def write_mrk_json(
    path: str | os.PathLike[str],
    landmarks: LandmarkSet,
    extra: Mapping[str, Any] | None = None,
    *,
    plausibility: float | None = None,
) -> None:
    """Write one Slicer markups file with one locked fiducial list per group, in LPS.

    Slicer has no colour per point, hence a list per group in the group's colour. Control points
    carry the landmark's label, and its name, confidence and status as description; a missing one
    keeps its place with status "missing" and an empty position, as Slicer itself writes it.

    Args:
        extra: More entries of the file's top level. Slicer ignores them, and drops them when it
            writes the file again.
        plausibility: One more such entry. Below `landmarks.PLAUSIBLE` the lists are also named
            "... (implausible)", which Slicer shows and keeps.

    Raises:
        UserError: the file cannot be written.
    """
    markups = [_markup(landmarks, group) for group in landmarks.protocol.groups]
    stated: dict[str, Any] = {}
    if plausibility is not None:
        stated[PLAUSIBILITY] = round(plausibility, 4)
        if plausibility < PLAUSIBLE:
            for markup in markups:
                markup["name"] += IMPLAUSIBLE_MARK
    content = {"@schema": MARKUPS_SCHEMA, **stated, **(extra or {}), "markups": markups}
    text = json.dumps(content, indent=2, allow_nan=False)
    _write_text(path, text + "\n")


def _markup(landmarks: LandmarkSet, group: Group) -> dict[str, Any]:
    rows = range(group.first - 1, group.last)
    points = [_control_point(landmarks, row) for row in rows]
    confidence = landmarks.confidence[group.first - 1 : group.last]
    measurements = []
    if np.isfinite(confidence).any():
        # JSON has no NaN; 0 stands at points that carry no confidence.
        values = [round(float(c), 4) if math.isfinite(c) else 0.0 for c in confidence]
        measurements.append({"name": "confidence", "enabled": True, "controlPointValues": values})
    return {
        "type": "Fiducial",
        "name": group.name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": True,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": measurements,
        "display": _display(group),
    }


def _control_point(landmarks: LandmarkSet, row: int) -> dict[str, Any]:
    landmark = landmarks.protocol.landmarks[row]
    absent = landmarks.status[row] == "missing"
    position = [round(float(x), 4) + 0.0 for x in ras_to_lps(landmarks.points[row])]
    return {
        "id": str(landmark.index),
        "label": landmark.label,
        "description": description_of(landmarks, row),
        "associatedNodeID": "",
        "position": "" if absent else position,
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": True,
        "visibility": True,
        "positionStatus": "missing" if absent else "defined",
    }


def description_of(landmarks: LandmarkSet, row: int) -> str:
    """Description of a control point: the landmark's name, confidence and status.

    >>> description_of(landmarks, 0)
    'left frontal pole (confidence 0.93, model)'
    """
    confidence = landmarks.confidence[row]
    level = f"confidence {confidence:.3f}, " if math.isfinite(confidence) else ""
    name = landmarks.protocol.landmarks[row].name
    return f"{name} ({level}{landmarks.status[row]})"


def status_of_description(description: str) -> str | None:
    """The status that a description of `description_of` states, or None for any other text."""
    found = _DESCRIPTION.match(description)
    return found["status"] if found else None


def _display(group: Group) -> dict[str, Any]:
    color = [round(channel, 4) for channel in group.rgb]
    return {
        "visibility": True,
        "opacity": 1.0,
        "color": color,
        "selectedColor": color,
        "activeColor": [0.4, 1.0, 0.0],
        "propertiesLabelVisibility": False,
        # 88 labels at once hide the anatomy; the viewer switches them on group by group.
        "pointLabelsVisibility": False,
        "textScale": 2.5,
        "glyphType": "Sphere3D",
        "glyphScale": 1.0,
        "glyphSize": 2.0,
        "useGlyphScale": False,
        "sliceProjection": False,
        "snapMode": "unconstrained",
    }


def read_mrk_json(
    path: str | os.PathLike[str], protocol: Protocol, *, status: str = "truth"
) -> LandmarkSet:
    """Read a Slicer markups file of one or more lists; points are matched by label.

    Args:
        protocol: The landmarks to look for; those the file lacks come back missing.
        status: Status of points whose description does not state one.

    Raises:
        UserError: not a markups file, not in millimetres, a position that is no three numbers, a
            label the protocol does not know, or the same landmark twice.
    """
    name = Path(path).name
    try:
        content = json.loads(_read_text(path))
        points = [
            (markup, number, point)
            for markup in content["markups"]
            for number, point in enumerate(markup["controlPoints"])
        ]
        labels = [str(point.get("label", "")) for _, _, point in points]
        notes = [str(point.get("description", "")) for _, _, point in points]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{name} is not a Slicer markups file; save the landmarks from Slicer as .mrk.json."
        ) from error
    rows = _match(name, protocol, labels, [_landmark_name(note) for note in notes])
    return _assemble(
        protocol,
        (
            (row, *_read_control_point(name, label, markup, number, point, status))
            for row, label, (markup, number, point) in zip(rows, labels, points, strict=True)
        ),
    )


def _read_control_point(
    name: str, label: str, markup: dict[str, Any], number: int, point: dict[str, Any], status: str
) -> tuple[Sequence[float], str, float]:
    place = f"{name}, point {label}"
    units = markup.get("coordinateUnits", "mm")
    if units != "mm" and units != ["mm", "mm", "mm"]:
        raise UserError(f"{name} is in {units}; landmark files are in mm.")
    if point.get("positionStatus", "defined") != "defined":
        return (math.nan,) * 3, "missing", math.nan
    position = _json_position(place, point.get("position"))
    if _is_lps(name, markup.get("coordinateSystem", "LPS")):
        position = lps_to_ras(position).tolist()
    found = _DESCRIPTION.match(str(point.get("description", "")))
    if found and found["status"] != "missing":
        return position, found["status"], _confidence(place, found["confidence"] or "")
    values: Sequence[Any] = ()
    for measurement in markup.get("measurements") or ():
        if measurement.get("name") == "confidence":
            values = measurement.get("controlPointValues") or ()
    # The values are positional and do not follow points that were added or removed.
    listed = len(values) == len(markup["controlPoints"])
    return position, status, _confidence(place, str(values[number]) if listed else "")


# Table --------------------------------------------------------------------------------------------


def write_csv(
    path: str | os.PathLike[str], landmarks: LandmarkSet, *, plausibility: float | None = None
) -> None:
    """Write a table with one row per landmark: index,label,group,r,a,s,confidence,status.

    r, a, s are RAS millimetres. Missing landmarks keep their row with empty coordinates.

    Args:
        plausibility: One more column, the same in every row.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    stated = {} if plausibility is None else {PLAUSIBILITY: _number(plausibility, 3)}
    writer.writerow([*CSV_COLUMNS, *stated])
    for row, landmark in enumerate(landmarks.protocol.landmarks):
        coordinates = [_number(x, 4) for x in landmarks.points[row]]
        level = _number(landmarks.confidence[row], 3)
        status = landmarks.status[row]
        about = [landmark.index, landmark.label, landmark.group]
        writer.writerow([*about, *coordinates, level, status, *stated.values()])
    _write_text(path, text.getvalue())


def read_csv(
    path: str | os.PathLike[str], protocol: Protocol, *, status: str = "truth"
) -> LandmarkSet:
    """Read the table that `write_csv` writes; only label, r, a and s are required columns.

    Args:
        protocol: The landmarks to look for; those the file lacks come back missing.
        status: Status of points whose row does not state one.

    Raises:
        UserError: columns are missing, a coordinate is no number, a label the protocol does not
            know, or the same landmark twice.
    """
    name = Path(path).name
    sheet = read_sheet(name, _read_text(path))
    lacking = [column for column in ("label", "r", "a", "s") if column not in sheet.columns]
    if lacking:
        raise UserError(
            f"{name} has no column {', '.join(lacking)}; a landmark table has the columns "
            f"{','.join(CSV_COLUMNS)} with r, a, s in RAS millimetres."
        )
    rows = _match(name, protocol, [row["label"] for row in sheet.rows], [""] * len(sheet.rows))
    return _assemble(
        protocol,
        (
            (row, *_read_table_row(name, sheet, cells, status))
            for row, cells in zip(rows, sheet.rows, strict=True)
        ),
    )


def _read_table_row(
    name: str, sheet: Sheet, cells: dict[str, str], status: str
) -> tuple[Sequence[float], str, float]:
    place = f"{name}, row {cells['label']}"
    stated = cells.get("status") or status
    coordinates = [cells[axis] for axis in "ras"]
    if stated not in STATUSES:
        raise UserError(f"{place}: status {stated!r} is none of {', '.join(STATUSES)}.")
    if stated == "missing" or not any(coordinates):
        return (math.nan,) * 3, "missing", math.nan
    level = cells.get("confidence", "")
    return (
        coordinates_of(place, coordinates, sheet.separator),
        stated,
        _confidence(place, level.replace(",", ".") if sheet.separator != "," else level),
    )


# Older Slicer fiducials ---------------------------------------------------------------------------


def write_fcsv(
    path: str | os.PathLike[str], landmarks: LandmarkSet, *, plausibility: float | None = None
) -> None:
    """Write Slicer's older fiducial format, version 4.6, in RAS (CoordinateSystem = 0).

    The format cannot say that a point is missing, so missing landmarks are left out and named in a
    comment; labels identify the rest.

    Args:
        plausibility: Stated in a comment.

    Raises:
        UserError: the file cannot be written.
    """
    lines = ["# Markups fiducial file version = 4.6", "# CoordinateSystem = 0"]
    lines.append(f"# columns = {','.join(FCSV_COLUMNS)}")
    if plausibility is not None:
        lines.append(f"# {PLAUSIBILITY} = {_number(plausibility, 3)}")
    rows = []
    for row, landmark in enumerate(landmarks.protocol.landmarks):
        if landmarks.status[row] == "missing":
            lines.append(f"# missing = {landmark.label}")
            continue
        position = ",".join(_number(x, 4) for x in landmarks.points[row])
        # Slicer's reader does not understand quoted commas in the description.
        rows.append(
            f"vtkMRMLMarkupsFiducialNode_{landmark.index},{position},0,0,0,1,1,1,1,"
            f"{landmark.label},{landmark.name.replace(',', ' ')},"
        )
    _write_text(path, "\n".join(lines + rows) + "\n")


def read_fcsv(
    path: str | os.PathLike[str], protocol: Protocol, *, status: str = "truth"
) -> LandmarkSet:
    """Read a .fcsv file of any version; its header says whether it is in RAS or LPS.

    The label of a row is a landmark's label, or, as in the AFIDs files, its number. Points that
    Slicer 5 marks as undefined, as a preview or as missing come back missing.

    Args:
        protocol: The landmarks to look for; those the file lacks come back missing.
        status: Status given to the points: the format has none.

    Raises:
        UserError: no header, a coordinate that is no number, a landmark the protocol does not
            know, or the same landmark twice.
    """
    name = Path(path).name
    system, sheet = _read_fiducials(name, _read_text(path))
    flip = _is_lps(name, system)
    labels = [row["label"] for row in sheet.rows]
    rows = _match(name, protocol, labels, [row.get("desc", "") for row in sheet.rows])

    def read(row: int, label: str, cells: dict[str, str]) -> _Row:
        place = f"{name}, point {label}"
        placed = _FCSV_STATUSES.get(cells.get("positionStatus") or "2")
        if placed is None:
            raise UserError(
                f"{place}: the position status {cells['positionStatus']!r} is none of Slicer's; "
                "save the landmarks from Slicer again."
            )
        if not placed:
            return row, (math.nan,) * 3, "missing", math.nan
        position = coordinates_of(place, [cells[axis] for axis in "xyz"], sheet.separator)
        return row, lps_to_ras(position).tolist() if flip else position, status, math.nan

    return _assemble(
        protocol,
        (
            read(row, label, cells)
            for row, label, cells in zip(rows, labels, sheet.rows, strict=True)
        ),
    )


def _read_fiducials(name: str, text: str) -> tuple[str, Sheet]:
    """Coordinate system and rows of a .fcsv file, also after a spreadsheet has saved it.

    A spreadsheet fills all lines up to one length (``# CoordinateSystem = LPS,,,,``), may quote
    them, and may separate by semicolons.
    """
    lines = [line for line in text.splitlines() if line.strip(' ,;\t"')]
    separator = separator_of(line for line in lines if not line.lstrip('" ').startswith("#"))
    system: str | None = None
    columns: list[str] = []
    table: list[list[str]] = []
    for line in lines:
        comment = line.lstrip('" ').startswith("#")
        # Slicer's own lines are separated by commas, whatever became of the rows.
        own = separator if not comment or separator in line else ","
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=own))]
        if not comment:
            table.append(cells)
            continue
        key, _, value = cells[0].lstrip("# ").partition("=")
        if key.strip() == "CoordinateSystem":
            system = value.strip()
        elif key.strip() == "columns":
            names = ",".join([value, *cells[1:]])
            columns = [column.strip() for column in names.split(",")]
    while columns and not columns[-1]:
        columns.pop()
    if system is None or not {"x", "y", "z", "label"} <= set(columns):
        raise UserError(
            f"{name} is not a .fcsv file: it has no header with CoordinateSystem and columns; save "
            "the landmarks from Slicer again."
        )
    if tuple(columns) == FCSV_COLUMNS:
        columns += _UNNAMED_FCSV_COLUMNS
    rows = []
    for cells in table:
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        need_no_surplus(name, cells, columns, cells[0])
        cells += [""] * (len(columns) - len(cells))
        rows.append(dict(zip(columns, cells, strict=True)))
    return system, Sheet(tuple(columns), rows, separator)


# Shared by the readers ----------------------------------------------------------------------------


def _match(name: str, protocol: Protocol, labels: Sequence[str], names: Sequence[str]) -> list[int]:
    """The protocol's row of each point of a file, by label, number or, all unnamed, by order.

    Args:
        labels: What the file calls the points.
        names: The descriptions, "" where there is none; a second witness.
    """
    if not labels:
        raise UserError(f"{name} holds no points.")
    labels = [_plain(label) for label in labels]
    names = [_plain(description) for description in names]
    known = _known(protocol)
    if _are_unnamed(labels, known):
        if len(labels) != len(protocol):
            raise UserError(
                f"{name} has {len(labels)} points without names, {protocol.name} has "
                f"{len(protocol)} landmarks; name the points by their labels."
            )
        return list(range(len(labels)))
    # Numbers mean something only in a whole set: 1 to 32 of another protocol are other landmarks.
    numbered = len(labels) == len(protocol)
    running = not numbered and labels == [str(n) for n in range(1, len(labels) + 1)]
    rows: list[int] = []
    for label, description in zip(labels, names, strict=True):
        row = known.get(label.casefold())
        witness = known.get(description.casefold())
        if row is None and (not label or (running and witness is not None)):
            # Numbers that only count the rows of a part of a set say nothing.
            row = witness
        if row is None and (numbered or witness is not None):
            row = _counted(label, protocol)
        if row is None:
            raise UserError(_unknown(name, protocol, label))
        if witness is not None and witness != row:
            raise UserError(
                f"{name}: the point {label} is described as {description}, but in "
                f"{protocol.name} it is {protocol.landmarks[row].name}; correct one of the two."
            )
        if row in rows:
            raise UserError(f"{name} has the landmark {label} twice; remove one of the two.")
        rows.append(row)
    return rows


def _plain(text: str) -> str:
    """A label or description as it is compared: no spaces at the ends, single ones inside."""
    return " ".join(text.split())


def _known(protocol: Protocol) -> dict[str, int]:
    """The row of everything that a landmark is called: label, name, other names; lower case."""
    return {
        _plain(text).casefold(): row
        for row, landmark in enumerate(protocol)
        for text in (*landmark.aliases, landmark.name, landmark.label)
    }


def _counted(label: str, protocol: Protocol) -> int | None:
    """The row of a landmark that is called by its number."""
    if label.isdecimal() and 1 <= int(label) <= len(protocol):
        return int(label) - 1
    return None


def _are_unnamed(labels: Sequence[str], known: dict[str, int]) -> bool:
    """Whether all labels are empty, or one common word and the numbers 1, 2, 3 ..."""
    if any(label.casefold() in known for label in labels):
        return False
    if not any(labels):
        return True
    found = [_UNNAMED.match(label) for label in labels]
    stems = {match["stem"] for match in found if match}
    return (
        all(found)
        and len(stems) == 1
        and None not in stems
        and [int(match["number"]) for match in found if match] == list(range(1, len(labels) + 1))
    )


def _unknown(name: str, protocol: Protocol, label: str) -> str:
    if label.isdecimal():
        return (
            f"{name} has a point {label!r}, which {protocol.name} does not know: points may go by "
            f"number where all {len(protocol)} are there, or where their descriptions say the same."
        )
    near = nearest(label, protocol.labels, 0.4)
    hint = f"; did you mean {near}?" if near else "; check the protocol."
    return f"{name} has a point {label!r}, which {protocol.name} does not know{hint}"


def _landmark_name(description: str) -> str:
    """The name within a description this project wrote; other texts as they are."""
    found = _DESCRIPTION.match(description)
    return found["name"] if found else description


def _assemble(protocol: Protocol, rows: Iterable[_Row]) -> LandmarkSet:
    points = np.full((len(protocol), 3), np.nan)
    confidence = np.full(len(protocol), np.nan)
    statuses = ["missing"] * len(protocol)
    for row, position, status, level in rows:
        points[row], statuses[row], confidence[row] = position, status, level
    return LandmarkSet(protocol, points, statuses, confidence)


def _is_lps(name: str, system: object) -> bool:
    """Whether a coordinate system, as Slicer's headers write it, is LPS; RAS otherwise."""
    if str(system).upper() in ("RAS", "0"):
        return False
    if str(system).upper() in ("LPS", "1"):
        return True
    raise UserError(f"{name} is in the coordinate system {system}; only RAS and LPS are known.")


def _json_position(place: str, values: object) -> list[float]:
    numbers = values if isinstance(values, list) else []
    if len(numbers) != 3 or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        for value in numbers
    ):
        raise UserError(f"{place}: the position is not three numbers.")
    return [float(value) for value in numbers]


def _confidence(place: str, text: str) -> float:
    if not text:
        return math.nan
    value = number(text)
    if not 0 <= value <= 1:
        raise UserError(f"{place}: the confidence {text!r} is not between 0 and 1.")
    return value


def _number(value: float, digits: int) -> str:
    """Fixed digits; empty for NaN; never a negative zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}" if math.isfinite(value) else ""


def _read_text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{Path(path).name} is not a text file of landmarks.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error


def _write_text(path: str | os.PathLike[str], text: str) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


_Writer = Callable[..., None]
_Reader = Callable[..., LandmarkSet]

_WRITERS: dict[str, Any] = {".mrk.json": write_mrk_json, ".csv": write_csv, ".fcsv": write_fcsv}
_READERS: dict[str, Any] = {
    ".mrk.json": read_mrk_json,
    ".json": read_mrk_json,
    ".csv": read_csv,
    ".fcsv": read_fcsv,
}
FORMATS = tuple(suffix[1:] for suffix in _WRITERS)
"""Names of the formats that can be written: mrk.json, csv, fcsv."""


def _by_suffix(path: str | os.PathLike[str], choices: dict[str, Any]) -> Any:
    # Longest first: .fcsv ends in no other suffix, but .mrk.json also ends in .json.
    for suffix in sorted(choices, key=len, reverse=True):
        if str(path).lower().endswith(suffix):
            return choices[suffix]
    raise UserError(
        f"{Path(path).name} is not a landmark file; use the suffix {', '.join(choices)}."
    )
