"""Landmarks as Slicer's older fiducial lists (.fcsv)."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import lps_to_ras
from BrainLandmarksLib.io.delimited import (
    Sheet,
    coordinates_of,
    need_no_surplus,
    separator_of,
)
from BrainLandmarksLib.io.landmarks.matching import (
    PLAUSIBILITY,
    LandmarkRow,
    assemble,
    is_lps,
    match_rows,
    number_text,
    read_text,
    write_text,
)
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

FCSV_COLUMNS = (
    "id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc",
    "associatedNodeID",
)  # fmt: skip
# Slicer 5 writes two more cells than it names in the header.
_UNNAMED_FCSV_COLUMNS = ("positionStatus", "autoCreated")
_FCSV_STATUSES = {"0": False, "1": False, "2": True, "3": False}
"""Slicer's position status: undefined, preview, defined, missing; whether there is a point."""


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
        lines.append(f"# {PLAUSIBILITY} = {number_text(plausibility, 3)}")
    rows = []
    for row, landmark in enumerate(landmarks.protocol.landmarks):
        if landmarks.status[row] == "missing":
            lines.append(f"# missing = {landmark.label}")
            continue
        position = ",".join(number_text(x, 4) for x in landmarks.points[row])
        # Slicer's reader does not understand quoted commas in the description.
        rows.append(
            f"vtkMRMLMarkupsFiducialNode_{landmark.index},{position},0,0,0,1,1,1,1,"
            f"{landmark.label},{landmark.name.replace(',', ' ')},"
        )
    write_text(path, "\n".join(lines + rows) + "\n")


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
    system, sheet = _read_fiducials(name, read_text(path))
    flip = is_lps(name, system)
    labels = [row["label"] for row in sheet.rows]
    rows = match_rows(name, protocol, labels, [row.get("desc", "") for row in sheet.rows])

    def read(row: int, label: str, cells: dict[str, str]) -> LandmarkRow:
        place = f"{name}, point {label}"
        placed = _FCSV_STATUSES.get(cells.get("positionStatus") or "2")
        if placed is None:
            raise UserError(
                f"{place}: the position status {cells['positionStatus']!r} is none of Slicer's; "
                "save the landmarks from Slicer again."
            )
        if not placed:
            return row, (math.nan,) * 3, "missing", math.nan, ""
        position = coordinates_of(place, [cells[axis] for axis in "xyz"], sheet.separator)
        return row, lps_to_ras(position).tolist() if flip else position, status, math.nan, ""

    return assemble(
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
