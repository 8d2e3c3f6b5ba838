"""Landmarks as Slicer's Markups JSON files (.mrk.json), in LPS."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import lps_to_ras, ras_to_lps
from BrainLandmarksLib.io.landmarks.matching import (
    DESCRIPTION,
    IMPLAUSIBLE_MARK,
    PLAUSIBILITY,
    assemble,
    confidence_of,
    is_lps,
    landmark_name,
    match_rows,
    read_text,
    write_text,
)
from BrainLandmarksLib.protocol import Group, Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet, is_plausible

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)


def write_mrk_json(
    path: str | os.PathLike[str],
    landmarks: LandmarkSet,
    extra: Mapping[str, Any] | None = None,
    *,
    plausibility: float | None = None,
) -> None:
    """Write one Slicer markups file with one locked fiducial list per group, in LPS.

    Slicer has no colour per point, hence a list per group in the group's colour. Control points
    carry the landmark's label, and its name, confidence, status and note as description; a missing
    one keeps its place with status "missing" and an empty position, as Slicer itself writes it.

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
        if not is_plausible(plausibility):
            for markup in markups:
                markup["name"] += IMPLAUSIBLE_MARK
    content = {"@schema": MARKUPS_SCHEMA, **stated, **(extra or {}), "markups": markups}
    text = json.dumps(content, indent=2, allow_nan=False)
    write_text(path, text + "\n")


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
    """Description of a control point: the landmark's name, confidence, status and note.

    >>> description_of(landmarks, 0)
    'left frontal pole (confidence 0.93, model)'
    """
    confidence = landmarks.confidence[row]
    level = f"confidence {confidence:.3f}, " if math.isfinite(confidence) else ""
    name = landmarks.protocol.landmarks[row].name
    note = f": {landmarks.notes[row]}" if landmarks.notes[row] else ""
    return f"{name} ({level}{landmarks.status[row]}{note})"


def note_of_description(description: str) -> str:
    """The note that a description of `description_of` carries; "" without one."""
    found = DESCRIPTION.match(description)
    return (found["note"] or "") if found else ""


def status_of_description(description: str) -> str | None:
    """The status that a description of `description_of` states, or None for any other text."""
    found = DESCRIPTION.match(description)
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
        content = json.loads(read_text(path))
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
    rows = match_rows(name, protocol, labels, [landmark_name(note) for note in notes])
    return assemble(
        protocol,
        (
            (row, *_read_control_point(name, label, markup, number, point, status))
            for row, label, (markup, number, point) in zip(rows, labels, points, strict=True)
        ),
    )


def _read_control_point(
    name: str, label: str, markup: dict[str, Any], number: int, point: dict[str, Any], status: str
) -> tuple[Sequence[float], str, float, str]:
    place = f"{name}, point {label}"
    units = markup.get("coordinateUnits", "mm")
    if units != "mm" and units != ["mm", "mm", "mm"]:
        raise UserError(f"{name} is in {units}; landmark files are in mm.")
    description = str(point.get("description", ""))
    note = note_of_description(description)
    if point.get("positionStatus", "defined") != "defined":
        return (math.nan,) * 3, "missing", math.nan, note
    position = _json_position(place, point.get("position"))
    if is_lps(name, markup.get("coordinateSystem", "LPS")):
        position = lps_to_ras(position).tolist()
    found = DESCRIPTION.match(description)
    if found and found["status"] != "missing":
        return position, found["status"], confidence_of(place, found["confidence"] or ""), note
    values: Sequence[Any] = ()
    for measurement in markup.get("measurements") or ():
        if measurement.get("name") == "confidence":
            values = measurement.get("controlPointValues") or ()
    # The values are positional and do not follow points that were added or removed.
    listed = len(values) == len(markup["controlPoints"])
    # A point that was missing and is there now: what was said of it no longer holds.
    return position, status, confidence_of(place, str(values[number]) if listed else ""), ""


def _json_position(place: str, values: object) -> list[float]:
    numbers = values if isinstance(values, list) else []
    if len(numbers) != 3 or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        for value in numbers
    ):
        raise UserError(f"{place}: the position is not three numbers.")
    return [float(value) for value in numbers]
