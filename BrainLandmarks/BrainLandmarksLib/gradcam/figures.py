"""Pictures of Grad-CAM maps over the head, group by group (the paper's Figs. 7 and 8)."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.figures.slices import (
    BACKGROUND,
    DIM_INK,
    INK,
    NEAR_MM,
    VIEW_MM,
    Slice,
    choose_slices,
    draw_points,
    draw_slice,
    grey_window,
)
from BrainLandmarksLib.gradcam.explanation import Explanation
from BrainLandmarksLib.gradcam.output import normalised
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import Group
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = "inferno"
"""Colour map: dark is nothing, bright is the map's maximum."""

_PANEL_INCHES = 2.5
_LABEL_INCHES = 0.35
_BAR_INCHES = 0.95
_ROW_INCHES = _PANEL_INCHES + 0.22
_HEAD_INCHES = 0.75
_NOTE_LINE_INCHES, _NOTE_CHARACTERS_PER_INCH = 0.15, 14
_DPI = 76
_OPACITY = 0.75
_NOTE = (
    "Each map is divided by its maximum; a group shows at each point the largest of its "
    "landmarks' maps. Bright is where the network found evidence, not how sure it is."
)


@dataclass(frozen=True)
class _Column:
    """One group: its slice, and which of its landmarks are shown."""

    group: Group
    plane: Slice
    rows: list[int]


def draw_explanation(
    volume: Volume,
    explanation: Explanation,
    rows: Sequence[int],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw landmarks (top) and their maps (bottom) for each group and save a PNG: Fig. 7.

    A group is shown on the slice that passes most of its chosen landmarks.

    >>> draw_explanation(volume, explanation, rows_of(protocol, groups=["Eye"]), "eye.png")

    Args:
        rows: the chosen landmarks, from 0.
        title: A line above, such as the image's name.

    Raises:
        UserError: the file cannot be written.
    """
    columns = _columns(explanation, rows)
    figure = _Sheet(columns, ["landmarks", "Grad-CAM"], title, f"layer {explanation.seen.layer}")
    window = grey_window(volume)
    for number, column in enumerate(columns):
        axes = figure.panel(0, number)
        draw_slice(axes, column.plane, volume, window, compact=True)
        _draw_members(axes, column, explanation)
        axes = figure.panel(1, number)
        draw_slice(axes, column.plane, volume, window, compact=True)
        _draw_map(axes, column, explanation)
    figure.save(path)


def draw_comparison(
    volume: Volume,
    explanations: Sequence[Explanation],
    names: Sequence[str],
    rows: Sequence[int],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw the maps of several models on the same slices, a row for each, as a PNG: Fig. 8.

    The slices are those of the first model's landmarks; each row shows its own model's landmarks.

    Args:
        names: what to call each model.
        rows: the chosen landmarks, from 0.

    Raises:
        UserError: the file cannot be written.
    """
    columns = _columns(explanations[0], rows)
    layers = dict.fromkeys(explanation.seen.layer for explanation in explanations)
    figure = _Sheet(columns, names, title, f"layer {', '.join(layers)}")
    window = grey_window(volume)
    for line, explanation in enumerate(explanations):
        for number, column in enumerate(columns):
            axes = figure.panel(line, number)
            draw_slice(axes, column.plane, volume, window, compact=True)
            _draw_map(axes, column, explanation)
            _draw_members(axes, column, explanation)
    figure.save(path)


def _columns(explanation: Explanation, rows: Sequence[int]) -> list[_Column]:
    """The groups of the chosen landmarks that are in the image, each with its best slice."""
    found = explanation.detection.landmarks
    columns = []
    for group in explanation.protocol.groups:
        members = [row for row in rows if row + 1 in group.indices and not found.missing[row]]
        if not members:
            continue
        points = np.full_like(found.points, np.nan)
        points[members] = found.points[members]
        slices = choose_slices(LandmarkSet.from_points(found.protocol, points))
        near = [int((plane.distances(points) <= NEAR_MM).sum()) for plane in slices]
        plane = slices[int(np.argmax(near))]
        # Every picture shows the whole head, whichever part of it the group is.
        middle = explanation.grid.center_ras
        middle = middle - ((middle - plane.center) @ plane.normal) * plane.normal
        columns.append(_Column(group, replace(plane, center=middle), members))
    return columns


def _draw_members(axes: Axes, column: _Column, explanation: Explanation) -> None:
    """The column's landmarks that the slice passes, where this explanation's model found them."""
    found = explanation.detection.landmarks
    points = np.full_like(found.points, np.nan)
    points[column.rows] = found.points[column.rows]
    near = column.plane.distances(points) <= NEAR_MM
    draw_points(axes, column.plane, found, near, np.zeros_like(near))


def _draw_map(axes: Axes, column: _Column, explanation: Explanation) -> None:
    from matplotlib import colormaps

    maps, _ = normalised(explanation.maps(column.rows))
    values = column.plane.sample(Volume(maps.max(axis=0), explanation.grid)).T
    colors = colormaps[COLORS](np.clip(values, 0, 1))
    colors[..., 3] = _OPACITY * np.clip(values, 0, 1) ** 0.5
    half = VIEW_MM / 2
    extent = (-half, half, -half, half)
    axes.imshow(colors, origin="lower", extent=extent, interpolation="bilinear", zorder=2)


class _Sheet:
    """A figure with a column for each group and a named row for each kind of panel."""

    def __init__(
        self, columns: Sequence[_Column], lines: Sequence[str], title: str, layer: str
    ) -> None:
        from matplotlib.figure import Figure

        self._width = max(2, len(columns)) * _PANEL_INCHES + _LABEL_INCHES + _BAR_INCHES
        note = textwrap.wrap(_NOTE, round(self._width * _NOTE_CHARACTERS_PER_INCH))
        self._height = len(lines) * _ROW_INCHES + _HEAD_INCHES
        self._height += 0.15 + len(note) * _NOTE_LINE_INCHES
        self._figure: Figure = Figure(
            figsize=(self._width, self._height), dpi=_DPI, facecolor=BACKGROUND
        )
        self._text(0.1, 0.12, title, fontsize=13, weight="bold", va="top")
        right = self._width - 0.1
        self._text(right, 0.14, layer, color=DIM_INK, ha="right", va="top", fontsize=9)
        for number, column in enumerate(columns):
            left = _LABEL_INCHES + number * _PANEL_INCHES
            count = len(column.rows)
            name = f"{column.group.name} ({count})"
            self._text(left + 0.04, _HEAD_INCHES - 0.06, name, color=column.group.color,
                       weight="bold", fontsize=10, va="bottom")  # fmt: skip
        for line, name in enumerate(lines):
            middle = _HEAD_INCHES + (line + 0.5) * _ROW_INCHES
            self._text(0.17, middle, name, rotation=90, va="center", ha="center", fontsize=10)
        bottom = self._height - 0.08
        self._text(0.1, bottom, "\n".join(note), color=DIM_INK, fontsize=8.5, va="bottom")
        self._draw_bar(_HEAD_INCHES + (len(lines) - 1) * _ROW_INCHES)

    def panel(self, line: int, number: int) -> Axes:
        """The axes of one picture."""
        left = _LABEL_INCHES + number * _PANEL_INCHES
        top = _HEAD_INCHES + line * _ROW_INCHES + (_ROW_INCHES - _PANEL_INCHES)
        side = _PANEL_INCHES - 0.06
        return self._figure.add_axes(
            (
                (left + 0.03) / self._width,
                1 - (top + side) / self._height,
                side / self._width,
                side / self._height,
            )
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the PNG; whole or not at all."""

        save_figure(self._figure, path)

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text at inches from the top left corner."""
        self._figure.text(x / self._width, 1 - y / self._height, text, **{"color": INK, **style})

    def _draw_bar(self, top: float) -> None:
        """The colour bar, beside the lowest row."""
        from matplotlib import colormaps

        left = self._width - _BAR_INCHES + 0.12
        height = _PANEL_INCHES - 0.5
        axes = self._figure.add_axes(
            (
                left / self._width,
                1 - (top + _ROW_INCHES - 0.2) / self._height,
                0.14 / self._width,
                height / self._height,
            )
        )
        ramp = colormaps[COLORS](np.linspace(0, 1, 256))[:, None]
        axes.imshow(ramp, origin="lower", aspect="auto", extent=(0, 1, 0, 1))
        axes.set_xticks([])
        axes.set_yticks([0, 0.5, 1])
        axes.yaxis.tick_right()
        axes.tick_params(colors=INK, labelsize=8)
        axes.set_title("share of\nmaximum", color=INK, fontsize=8, loc="left", pad=5)
