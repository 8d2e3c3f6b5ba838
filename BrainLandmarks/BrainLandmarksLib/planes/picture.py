"""A picture of the scan planes of a head: each as it will be seen, and on its cross views."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.figures.slices import (
    BACKGROUND,
    DIM_INK,
    INK,
    Slice,
    direction_letter,
    grey_window,
    outlined,
    show_slice,
)
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.planes.files import PROPOSAL
from BrainLandmarksLib.planes.prescription import Prescription
from BrainLandmarksLib.planes.stack import Stack
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.protocol.scan_planes import VIEWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANE_COLOR, SLAB_COLOR, POINT_COLOR = "#ffd84d", "#57c7ff", "#ff6b5e"
_COLUMNS = 3
_CELL_INCHES = (6.0, 4.4)
_DPI = 100
_PIXEL_MM = 0.75
_VIEW_MM = 256.0
"""Side of the cross views."""


def draw_planes(
    volume: Volume,
    landmarks: LandmarkSet,
    prescriptions: Sequence[Prescription],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw every plane and save a PNG.

    Each has three pictures: what the slice on it shows, in the field of view, and two cross views
    through the middle of the field, upright, with the plane as a line, the slices as a box, and
    the landmarks that the plane follows from.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(prescriptions) / _COLUMNS)
    width, height = _COLUMNS * _CELL_INCHES[0], rows * _CELL_INCHES[1] + 0.75
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=BACKGROUND)
    window = grey_window(volume)
    for number, each in enumerate(prescriptions):
        left = (number % _COLUMNS) / _COLUMNS
        bottom = (0.35 + (rows - 1 - number // _COLUMNS) * _CELL_INCHES[1]) / height
        cell = (left, bottom, 1 / _COLUMNS, _CELL_INCHES[1] / height)
        _draw_cell(figure, cell, volume, landmarks, each, window)
    style: dict[str, Any] = {"color": INK, "va": "center"}
    figure.text(0.006, 1 - 0.2 / height, title, fontsize=13, weight="bold", **style)
    keys = (("plane", PLANE_COLOR), ("slices", SLAB_COLOR), ("landmarks", POINT_COLOR))
    for number, (word, color) in enumerate(keys):
        where = 0.74 + 0.075 * number
        figure.text(where, 1 - 0.2 / height, f"■ {word}", fontsize=10, va="center", color=color)
    note = f"Radiological convention: the patient's right is on the left. RAS mm. {PROPOSAL}"
    figure.text(0.006, 0.17 / height, note, fontsize=9, color=DIM_INK, va="center")
    save_figure(figure, path)


def _draw_cell(
    figure: Figure,
    cell: tuple[float, float, float, float],
    volume: Volume,
    landmarks: LandmarkSet,
    each: Prescription,
    window: tuple[float, float],
) -> None:
    left, bottom, width, height = cell
    style: dict[str, Any] = {"color": INK, "va": "top"}
    where = (left + 0.006, bottom + 0.985 * height)
    figure.text(
        *where,
        each.plane.name[0].upper() + each.plane.name[1:],
        fontsize=11.5,
        weight="bold",
        **style,
    )
    lines = textwrap.fill(_facts(each), 92)
    below = bottom + 0.925 * height
    figure.text(where[0], below, lines, fontsize=8.5, va="top", color=DIM_INK, linespacing=1.35)
    if each.stack is None:
        return
    top = 0.83 * height
    main = figure.add_axes((left + 0.006, bottom + 0.01 * height, 0.645 * width, top))
    _draw_middle_slice(main, volume, each.stack, window)
    for number, axis in enumerate((0, 1)):
        view = cross_view(each.stack, axis)
        axes = figure.add_axes(
            (
                left + 0.68 * width,
                bottom + (0.01 + 0.42 * (1 - number)) * height,
                0.3 * width,
                0.41 * height,
            )
        )
        used = [landmarks.point(label) for label in each.plane.landmarks]
        _draw_cross_view(axes, volume, each.stack, view, np.array(used), window)


def _facts(each: Prescription) -> str:
    if each.frame is None:
        return f"Not there: {each.reason}."
    if each.stack is None:
        return f"No slices: {each.reason}."
    stack = each.stack
    text = (
        f"{stack.slices} slices of {stack.thickness_mm:g} mm, gap {stack.gap_mm:g} mm, field "
        f"{stack.field_mm[0]:g} x {stack.field_mm[1]:g} mm"
    )
    if each.uncertainty is not None:
        unsure = each.uncertainty
        text += f"; 90 % within {unsure.angle:.1f}° and {unsure.offset:.1f} mm"
    own = each.plane.own_error
    return text + (f", besides its own error of {own.degrees:g}° and {own.mm:g} mm" if own else "")


def cross_view(stack: Stack, axis: int) -> Slice:
    """The view of a stack along its rows (0) or columns (1), upright as heads are shown.

    It is perpendicular to the slices and goes through the middle of the field of view; the line
    that the plane makes in it is as steep as the plane is.
    """
    normal = stack.frame.axes[:, axis]
    orientation = list(VIEWS)[int(np.abs(normal).argmax())]
    upwards = np.array([0.0, 1.0, 0.0] if orientation == "axial" else [0.0, 0.0, 1.0])
    across = np.array([0.0, -1.0, 0.0] if orientation == "sagittal" else [-1.0, 0.0, 0.0])
    up = upwards - (upwards @ normal) * normal
    up /= np.linalg.norm(up)
    right = np.cross(up, normal)
    right *= np.sign(right @ across)
    middle = (stack.above - stack.below) / 2 * stack.spacing_mm
    center = stack.center + middle / 2 * stack.frame.normal
    return Slice(orientation.capitalize(), orientation, center, right, up)


def _draw_middle_slice(
    axes: Axes, volume: Volume, stack: Stack, window: tuple[float, float]
) -> None:
    single = replace(stack, below=0, above=0, pixel_mm=_PIXEL_MM)
    width, height = stack.field_mm
    axes.imshow(
        resample(volume, single.grid)[:, :, 0].T,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        extent=(-width / 2, width / 2, height / 2, -height / 2),
        interpolation="bilinear",
    )
    # A frame, so that the field of view is seen where the image is dark.
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(PLANE_COLOR)
    axes.set_anchor("W")
    _letters(axes, stack.frame.row, -stack.frame.column, width / 2, height / 2, downwards=True)
    _scale(axes, -width / 2 + 6, height / 2 - 7)


def _draw_cross_view(
    axes: Axes,
    volume: Volume,
    stack: Stack,
    view: Slice,
    points: FloatArray,
    window: tuple[float, float],
) -> None:
    half = _VIEW_MM / 2
    show_slice(axes, view, volume, window, _VIEW_MM)
    box = view.project(_outline(stack, view))
    axes.plot(*np.vstack([box, box[:1]]).T, color=SLAB_COLOR, linewidth=1.0)
    ends = view.project(_line(stack, view))
    axes.plot(*ends.T, color=PLANE_COLOR, linewidth=1.6)
    near = points[view.distances(points) <= _VIEW_MM]
    dots = view.project(near)
    axes.plot(*dots.T, "o", markersize=2.6, color=POINT_COLOR, alpha=0.9)
    axes.set_xlim(-half, half)  # the slices may reach farther
    axes.set_ylim(-half, half)
    axes.set_anchor("W")
    _letters(axes, view.right, view.up, half, half)
    axes.text(-half + 5, half - 5, view.title, va="top", **outlined(color=DIM_INK, fontsize=8))


def _across(stack: Stack, view: Slice) -> tuple[FloatArray, float]:
    """Direction of the plane's line in a view, and half its length."""
    axis = int(np.abs(view.normal @ stack.frame.axes[:, :2]).argmin())
    return stack.frame.axes[:, axis], stack.field_mm[axis] / 2


def _line(stack: Stack, view: Slice) -> FloatArray:
    direction, half = _across(stack, view)
    return np.array([stack.center - half * direction, stack.center + half * direction])


def _outline(stack: Stack, view: Slice) -> FloatArray:
    """(4, 3) corners of the box of slices as a view cuts it."""
    direction, half = _across(stack, view)
    edge = stack.thickness_mm / 2
    low = -stack.below * stack.spacing_mm - edge
    high = stack.above * stack.spacing_mm + edge
    sides = [(-half, low), (half, low), (half, high), (-half, high)]
    return np.array([stack.center + a * direction + b * stack.frame.normal for a, b in sides])


def _letters(
    axes: Axes,
    right: FloatArray,
    up: FloatArray,
    half_width: float,
    half_height: float,
    *,
    downwards: bool = False,
) -> None:
    sign = -1 if downwards else 1
    style = {"ha": "center", "va": "center", **outlined(color=INK, fontsize=9)}
    x, y = half_width - 7, half_height - 7
    axes.text(-x, 0, direction_letter(-right), **style)
    axes.text(x, 0, direction_letter(right), **style)
    axes.text(0, sign * y, direction_letter(up), **style)
    axes.text(0, -sign * y, direction_letter(-up), **style)


def _scale(axes: Axes, x: float, y: float) -> None:
    axes.plot([x, x + 50], [y, y], color=INK, linewidth=1.5)
    axes.text(x + 53, y, "50 mm", va="center", **outlined(color=INK, fontsize=8))
