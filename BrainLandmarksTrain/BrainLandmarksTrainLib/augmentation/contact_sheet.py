"""The picture of a set of varied scans, as the paper's Fig. 4: rows of slices, landmarks in red."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.figures.slices import BACKGROUND, DIM_INK, INK, VIEW_MM, Slice, grey_window
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

from .config import TRANSFORMS
from .record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR_MM = 3.0
"""A landmark is drawn on a slice that passes it by no more than this."""

_VIEWS = (
    ("sagittal", 0, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    ("coronal", 1, (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ("axial", 2, (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
"""Name, world axis across the slice, and which way is right and up; radiological convention."""

_INSIDE_MM = 5.0
_BLOCKS = 2
_PANEL_INCHES = 1.25
_LABEL_INCHES = 1.05
_DPI = 110
_RED = "#ff3030"


@dataclass(frozen=True)
class SheetRow:
    """One row: a scan, its landmarks, a title and what was done in a few words."""

    title: str
    note: str
    volume: Volume
    landmarks: LandmarkSet
    focus: FloatArray | None = None
    """A point that the slices pass, RAS mm; by default they are where most landmarks lie."""

    @classmethod
    def of(cls, record: Record, volume: Volume, landmarks: LandmarkSet, name: str = "") -> SheetRow:
        """The row of a varied scan; its note gives the name and the main parameters."""
        title = ", ".join(TRANSFORMS[step.transform].title for step in record.steps)
        notes = [f"{record.policy}, {name}" if name else record.policy]
        notes += [TRANSFORMS[step.transform].brief(step.parameters) for step in record.steps]
        looked_at = (TRANSFORMS[step.transform].focus(step.parameters) for step in record.steps)
        places = [place for place in looked_at if place is not None]
        focus = None
        if places:
            # What lies below the image is looked at from where it ends.
            ijk = volume.grid.ras_to_ijk(volume.grid.center_ras + places[0])
            reach = _INSIDE_MM / volume.grid.spacing
            focus = volume.grid.ijk_to_ras(
                np.clip(ijk, reach, np.array(volume.grid.shape) - 1 - reach)
            )
        return cls(title, "\n".join(notes), volume, landmarks, focus)


def draw_contact_sheet(
    rows: Sequence[SheetRow], path: str | os.PathLike[str], *, title: str = ""
) -> None:
    """Draw a sagittal, a coronal and an axial slice of every scan and save a PNG.

    The slices are upright in the world, so a turned head looks turned; each passes the row's focus,
    or is where most landmarks lie within `NEAR_MM`.

    >>> row = SheetRow.of(varied.record, varied.volume, varied.landmarks)
    >>> draw_contact_sheet([row], "sheet.png")

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    blocks = min(_BLOCKS, len(rows))
    lines = math.ceil(len(rows) / blocks)
    head = 0.3 if title else 0.05
    width = blocks * (_LABEL_INCHES + 3 * _PANEL_INCHES)
    height = head + lines * _PANEL_INCHES
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=BACKGROUND)
    if title:
        figure.text(0.05 / width, 1 - 0.08 / height, title, color=INK, fontsize=9,
                    weight="bold", va="top")  # fmt: skip
    for number, row in enumerate(rows):
        block, line = divmod(number, lines)
        left = block * (_LABEL_INCHES + 3 * _PANEL_INCHES)
        bottom = height - head - (line + 1) * _PANEL_INCHES
        top = (bottom + _PANEL_INCHES - 0.08) / height
        label = textwrap.fill(row.title, 15)
        figure.text((left + 0.06) / width, top, label, color=INK, fontsize=7.5, weight="bold",
                    va="top")  # fmt: skip
        down = (0.03 + 0.13 * (1 + label.count("\n"))) / height
        figure.text((left + 0.06) / width, top - down, row.note, color=DIM_INK, fontsize=5.8,
                    va="top", linespacing=1.3)  # fmt: skip
        for column, view in enumerate(_VIEWS):
            place = (left + _LABEL_INCHES + column * _PANEL_INCHES, bottom)
            size = _PANEL_INCHES - 0.03
            axes = figure.add_axes(
                (place[0] / width, place[1] / height, size / width, size / height)
            )
            _draw(axes, _best_slice(row, *view), row)
    save_figure(figure, path)


def _best_slice(
    row: SheetRow,
    orientation: str,
    axis: int,
    right: tuple[float, float, float],
    up: tuple[float, float, float],
) -> Slice:
    """The slice of a view that passes most landmarks, looked at where the image is."""
    center = row.volume.grid.center_ras.copy()
    present = row.landmarks.points[~row.landmarks.missing][:, axis]
    if row.focus is not None:
        center[axis] = row.focus[axis]
    elif len(present):
        near = np.abs(present[:, None] - present[None]) <= NEAR_MM
        # The middle of the fullest slab, not the point that happened to be tried first.
        center[axis] = np.median(present[near[near.sum(axis=1).argmax()]])
    return Slice(orientation, orientation, center, np.array(right), np.array(up))


def _draw(axes: Axes, plane: Slice, row: SheetRow) -> None:
    low, high = grey_window(row.volume)
    half = VIEW_MM / 2
    axes.imshow(
        plane.sample(row.volume).T,
        cmap="gray",
        vmin=max(low, 0.0),
        vmax=high,
        origin="lower",
        extent=(-half, half, -half, half),
        interpolation="bilinear",
    )
    dots = plane.project(row.landmarks.points[plane.distances(row.landmarks.points) <= NEAR_MM])
    axes.scatter(dots[:, 0], dots[:, 1], s=3.0, color=_RED, linewidths=0)
    axes.set_axis_off()
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
