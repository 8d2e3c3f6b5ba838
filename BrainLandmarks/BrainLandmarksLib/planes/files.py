"""Scan planes in files: a table, JSON with DICOM's vectors, plane nodes for Slicer, slice stacks.

RAS millimetres inside and in the table; here alone they become the LPS of DICOM and of Slicer's
files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray, ras_to_lps
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import ImageArray, Volume
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.landmarks.markups import MARKUPS_SCHEMA
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.planes.prescription import Prescription
from BrainLandmarksLib.planes.stack import Stack
from BrainLandmarksLib.planes.uncertainty import LEVEL, Uncertainty

PROPOSAL = (
    "Scan planes are proposals of research software, which is not a medical device; a technologist "
    "checks each before a scan."
)
"""Stands in every file and in the panel."""

COLUMNS = (
    "plane", "view", "origin R", "origin A", "origin S", "normal R", "normal A", "normal S",
    "row R", "row A", "row S", "column R", "column A", "column S", "width mm", "height mm",
    "slices", "thickness mm", "gap mm", "angle 90 deg", "offset 90 mm", "about row 90 deg",
    "about column 90 deg", "own error deg", "own error mm", "remark",
)  # fmt: skip

NODE_COLORS = {
    "axial": (0.95, 0.29, 0.2),
    "sagittal": (0.93, 0.84, 0.3),
    "coronal": (0.43, 0.7, 0.29),
}
"""Of plane nodes: those of Slicer's three slice views."""


def plane_table(prescriptions: Sequence[Prescription]) -> Table:
    """One row for each plane; what is not known is empty."""
    return Table(COLUMNS, [_row(each) for each in prescriptions])


def _row(each: Prescription) -> list[Any]:
    plane, frame, stack, u = each.plane, each.frame, each.stack, each.uncertainty
    nothing = [float("nan")] * 12
    own = plane.own_error
    vectors = [] if frame is None else [frame.origin, frame.normal, frame.row, frame.column]
    return [
        plane.name,
        plane.view,
        *([float(x) for vector in vectors for x in vector] or nothing),
        *(stack.field_mm if stack else nothing[:2]),
        stack.slices if stack else "",
        plane.thickness_mm,
        plane.gap_mm,
        *([u.angle, u.offset, u.about_row, u.about_column] if u else nothing[:4]),
        *([own.degrees, own.mm] if own else nothing[:2]),
        each.reason,
    ]


def write_json(
    path: str | os.PathLike[str], prescriptions: Sequence[Prescription], about: Mapping[str, Any]
) -> None:
    """Write all that is known of the planes, in RAS, in LPS and in DICOM's words.

    Args:
        about: What else the file states, such as the protocol.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "note": PROPOSAL,
        **about,
        "units": "mm, degrees",
        "planes": [plane_json(each) for each in prescriptions],
    }
    with atomic_write(path) as unfinished:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8", newline="\n")


def plane_json(each: Prescription) -> dict[str, Any]:
    """A plane as plain JSON values; a plane that is not there has a reason and no place."""
    plane, frame, stack = each.plane, each.frame, each.stack
    entry: dict[str, Any] = {"name": plane.name, "purpose": plane.purpose, "view": plane.view}
    if each.reason:
        entry["reason"] = each.reason
    if frame is None:
        return entry
    vectors = {
        "origin": frame.origin, "normal": frame.normal, "row": frame.row, "column": frame.column
    }  # fmt: skip
    entry["RAS"] = {name: _numbers(vector) for name, vector in vectors.items()}
    entry["LPS"] = {name: _numbers(ras_to_lps(vector)) for name, vector in vectors.items()}
    if stack is not None:
        entry["field_of_view_mm"] = {"width": stack.field_mm[0], "height": stack.field_mm[1]}
        entry["slices"] = {
            "number": stack.slices,
            "before_the_plane": stack.below,
            "after_the_plane": stack.above,
            "thickness_mm": stack.thickness_mm,
            "gap_mm": stack.gap_mm,
        }
        entry["DICOM"] = dicom_geometry(stack)
    if each.uncertainty is not None:
        entry["uncertainty"] = _uncertainty_json(each.uncertainty)
    if plane.own_error is not None:
        own = plane.own_error
        entry["own_error"] = {"degrees": own.degrees, "mm": own.mm, "source": own.source}
    return entry


def _uncertainty_json(unsure: Uncertainty) -> dict[str, float]:
    return {
        "level": LEVEL,
        "angle_degrees": round(unsure.angle, 3),
        "offset_mm": round(unsure.offset, 3),
        "about_row_degrees": round(unsure.about_row, 3),
        "about_column_degrees": round(unsure.about_column, 3),
    }


def dicom_geometry(stack: Stack) -> dict[str, Any]:
    """The slices of a stack by the names of DICOM's attributes, in DICOM's LPS.

    ``ImagePositionPatient`` is that of the first slice, as in every slice the centre of the voxel
    in the corner; ``LastImagePositionPatient``, which is no attribute, that of the last one.
    """
    grid = stack.grid
    columns, rows, slices = grid.shape
    first, last = (ras_to_lps(grid.ijk_to_ras([0, 0, k])) for k in (0, slices - 1))
    directions = [ras_to_lps(stack.frame.row), ras_to_lps(stack.frame.column)]
    return {
        "ImageOrientationPatient": _numbers(np.concatenate(directions), 6),
        "ImagePositionPatient": _numbers(first),
        "LastImagePositionPatient": _numbers(last),
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": [stack.pixel_mm, stack.pixel_mm],
        "SliceThickness": stack.thickness_mm,
        "SpacingBetweenSlices": round(stack.spacing_mm, 4),
        "NumberOfSlices": slices,
    }


def dicom_text(each: Prescription) -> str:
    """The geometry of a plane as lines of text for the clipboard; "" if there is no stack."""
    if each.stack is None:
        return ""
    geometry = dicom_geometry(each.stack)
    lines = [f"{each.plane.name} (DICOM, LPS mm)"]
    for name, value in geometry.items():
        # Backslashes separate values in DICOM.
        text = "\\".join(f"{x:g}" for x in value) if isinstance(value, list) else f"{value:g}"
        lines.append(f"{name}: {text}")
    lines.append(PROPOSAL)
    return "\n".join(lines) + "\n"


def write_plane_nodes(path: str | os.PathLike[str], prescriptions: Sequence[Prescription]) -> None:
    """Write the planes as plane nodes of Slicer, in one .mrk.json.

    Those without slices are left out.

    Raises:
        UserError: the file cannot be written.
    """
    markups = [_plane_node(each) for each in prescriptions if each.stack is not None]
    with atomic_write(path) as unfinished:
        text = json.dumps({"@schema": MARKUPS_SCHEMA, "markups": markups}, indent=2)
        unfinished.write_text(text + "\n", encoding="utf-8", newline="\n")


def _plane_node(each: Prescription) -> dict[str, Any]:
    assert each.stack is not None
    frame, center = each.stack.frame, each.stack.center
    width, height = each.stack.field_mm
    to_node = np.eye(4)
    to_node[:3] = np.column_stack([frame.axes, center])
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    color = list(NODE_COLORS[each.plane.view])
    position = _numbers(ras_to_lps(center))
    return {
        "type": "Plane",
        "name": each.plane.name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": True,
        "labelFormat": "%N",
        "lastUsedControlPointNumber": 1,
        "planeType": "pointNormal",
        "sizeMode": "absolute",
        "autoScalingFactor": 1.0,
        "center": position,
        "normal": _numbers(ras_to_lps(frame.normal), 6),
        "objectToBase": _numbers(lps, 6),
        "baseToNode": _numbers(lps @ to_node, 6),
        "orientation": _numbers((lps @ to_node)[:3, :3], 6),
        "size": [width, height, 0.0],
        "planeBounds": [-width / 2, width / 2, -height / 2, height / 2],
        "controlPoints": [
            {
                "id": "1",
                "label": each.plane.name,
                "description": each.plane.purpose,
                "associatedNodeID": "",
                "position": position,
                "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
                "selected": True,
                "locked": True,
                "visibility": True,
                "positionStatus": "defined",
            }
        ],
        "display": {
            "visibility": True,
            "opacity": 0.5,
            "color": color,
            "selectedColor": color,
            "handlesInteractive": False,
        },
    }


def reformatted(volume: Volume, stack: Stack) -> ImageArray:
    """The image on the slices of a stack, (columns, rows, slices); each with its gap averaged."""
    return resample(volume, stack.grid)


def write_stack(path: str | os.PathLike[str], values: ImageArray, stack: Stack) -> None:
    """Write what `reformatted` gave as a NIfTI file.

    Raises:
        UserError: the file cannot be written.
    """
    import nibabel as nib

    image = nib.Nifti1Image(values, stack.grid.affine)
    # Readers differ in which form they trust.
    image.set_sform(stack.grid.affine, 1)
    image.set_qform(stack.grid.affine, 1)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as unfinished:
        nib.save(image, unfinished)


def _numbers(values: FloatArray, digits: int = 4) -> list[float]:
    """Rounded, without a negative zero."""
    return [round(float(x), digits) + 0.0 for x in np.ravel(values)]
