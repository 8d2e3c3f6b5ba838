"""The slices of a scan plane that cover its target: field of view, number and place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.planes.construction import Frame
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.protocol.scan_planes import ScanPlane, Target

FIELD_STEP_MM = 10.0
"""Fields of view are whole multiples of this, as on a scanner."""

PIXEL_MM = 1.0
"""Side of a pixel, unless another is asked for."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel slices, one of which lies exactly on the plane.

    Args:
        frame: The plane.
        center: (3,) RAS mm, a point of the plane, above which the field of view has its centre.
        field_mm: Width (along the rows) and height (along the columns) of the images.
        below, above: Number of slices before the one on the plane, and after it, along the normal.
        thickness_mm, gap_mm: Of the slices.
        pixel_mm: Side of a pixel.
    """

    frame: Frame
    center: FloatArray
    field_mm: tuple[float, float]
    below: int
    above: int
    thickness_mm: float
    gap_mm: float
    pixel_mm: float = PIXEL_MM

    @property
    def slices(self) -> int:
        """How many there are."""
        return self.below + 1 + self.above

    @property
    def spacing_mm(self) -> float:
        """From the middle of a slice to that of the next."""
        return self.thickness_mm + self.gap_mm

    @cached_property
    def grid(self) -> Grid:
        """Voxels of the stack: i along the rows, j along the columns, k along the normal."""
        columns, rows = (max(1, round(side / self.pixel_mm)) for side in self.field_mm)
        affine = np.eye(4)
        affine[:3, :3] = self.frame.axes * [self.pixel_mm, self.pixel_mm, self.spacing_mm]
        middle = np.array([(columns - 1) / 2, (rows - 1) / 2, self.below])
        affine[:3, 3] = self.center - affine[:3, :3] @ middle
        return Grid((columns, rows, self.slices), affine)

    @property
    def corners(self) -> FloatArray:
        """(4, 3) RAS mm: the corners of the image on the plane, round it."""
        half = np.array(self.field_mm) / 2
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        return self.center + (signs * half) @ np.stack([self.frame.row, self.frame.column])


def cover(
    plane: ScanPlane, frame: Frame, landmarks: LandmarkSet, pixel_mm: float = PIXEL_MM
) -> tuple[Stack | None, str]:
    """The stack of a plane on a head.

    Returns:
        The stack, or None and why there is none, as half a sentence.
    """
    targets = (plane.field, plane.slab)
    absent = [
        label
        for label in dict.fromkeys(plane.field.landmarks + plane.slab.landmarks)
        if not np.isfinite(landmarks.point(label)).all()
    ]
    if absent:
        return None, f"what to cover is not known, missing: {', '.join(absent)}"
    field, slab = (_reach(target, frame, landmarks) for target in targets)
    sides = [_rounded(field[1][axis] - field[0][axis]) for axis in (0, 1)]
    middle = (field[0] + field[1]) / 2
    center = frame.origin + frame.axes[:, :2] @ middle[:2]
    spacing = plane.thickness_mm + plane.gap_mm
    # Half of the outermost slice lies beyond its middle.
    reach = [
        max(0, math.ceil((edge - plane.thickness_mm / 2) / spacing - 1e-9))
        for edge in (-slab[0][2], slab[1][2])
    ]
    stack = Stack(
        frame, center, (sides[0], sides[1]), reach[0], reach[1],
        plane.thickness_mm, plane.gap_mm, pixel_mm,
    )  # fmt: skip
    return stack, ""


def _reach(target: Target, frame: Frame, landmarks: LandmarkSet) -> tuple[FloatArray, FloatArray]:
    """Least and greatest coordinates along row, column and normal, with the margin, (3,) mm."""
    points = np.array([landmarks.point(label) for label in target.landmarks])
    local = (points - frame.origin) @ frame.axes
    return local.min(0) - target.margin_mm, local.max(0) + target.margin_mm


def _rounded(side: float) -> float:
    return FIELD_STEP_MM * math.ceil(side / FIELD_STEP_MM - 1e-9)
