"""Landmarks as tables (.csv), in RAS."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.delimited import (
    Sheet,
    coordinates_of,
    read_sheet,
)
from BrainLandmarksLib.io.landmarks.matching import (
    PLAUSIBILITY,
    assemble,
    confidence_of,
    match_rows,
    number_text,
    read_text,
    write_text,
)
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import STATUSES, LandmarkSet

CSV_COLUMNS = ("index", "label", "group", "r", "a", "s", "confidence", "status", "note")


def write_csv(
    path: str | os.PathLike[str], landmarks: LandmarkSet, *, plausibility: float | None = None
) -> None:
    """Write a table with one row per landmark: index,label,group,r,a,s,confidence,status,note.

    r, a, s are RAS millimetres. Missing landmarks keep their row with empty coordinates.

    Args:
        plausibility: One more column, the same in every row.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    stated = {} if plausibility is None else {PLAUSIBILITY: number_text(plausibility, 3)}
    writer.writerow([*CSV_COLUMNS, *stated])
    for row, landmark in enumerate(landmarks.protocol.landmarks):
        coordinates = [number_text(x, 4) for x in landmarks.points[row]]
        level = number_text(landmarks.confidence[row], 3)
        about = [landmark.index, landmark.label, landmark.group]
        said = [landmarks.status[row], landmarks.notes[row]]
        writer.writerow([*about, *coordinates, level, *said, *stated.values()])
    write_text(path, text.getvalue())


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
    sheet = read_sheet(name, read_text(path))
    lacking = [column for column in ("label", "r", "a", "s") if column not in sheet.columns]
    if lacking:
        raise UserError(
            f"{name} has no column {', '.join(lacking)}; a landmark table has the columns "
            f"{','.join(CSV_COLUMNS)} with r, a, s in RAS millimetres."
        )
    rows = match_rows(name, protocol, [row["label"] for row in sheet.rows], [""] * len(sheet.rows))
    return assemble(
        protocol,
        (
            (row, *_read_table_row(name, sheet, cells, status))
            for row, cells in zip(rows, sheet.rows, strict=True)
        ),
    )


def _read_table_row(
    name: str, sheet: Sheet, cells: dict[str, str], status: str
) -> tuple[Sequence[float], str, float, str]:
    place = f"{name}, row {cells['label']}"
    stated = cells.get("status") or status
    coordinates = [cells[axis] for axis in "ras"]
    note = cells.get("note", "")
    if stated not in STATUSES:
        raise UserError(f"{place}: status {stated!r} is none of {', '.join(STATUSES)}.")
    if stated == "missing" or not any(coordinates):
        return (math.nan,) * 3, "missing", math.nan, note
    level = cells.get("confidence", "")
    return (
        coordinates_of(place, coordinates, sheet.separator),
        stated,
        confidence_of(place, level.replace(",", ".") if sheet.separator != "," else level),
        note,
    )
