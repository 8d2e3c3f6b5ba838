"""What landmarks have moved by, as arrows on the head from three sides, a row for each time.

>>> draw_displacements(protocol, points, [("2027", moved, changed)], "follow.png")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.figures.plots import draw_outlines, frame_view, new_figure, views
from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.protocol import Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FACTORS = (1, 2, 5, 10, 20, 50, 100)
"""How many times longer than the displacement arrows may be drawn."""

_LONGEST_MM = 25.0
_CHANGED, _WITHIN = "#c2255c", "#8b949e"

Displacements = tuple[str, FloatArray, npt.NDArray[np.bool_]]
"""Name of a time, (K, 3) mm, NaN where there is none, and (K,) what is more than error."""


def draw_displacements(
    protocol: Protocol,
    points: FloatArray,
    times: Sequence[Displacements],
    path: str | os.PathLike[str],
) -> None:
    """Draw the landmarks of the baseline with an arrow each, and name what is more than error.

    Args:
        points: (K, 3) of the baseline, RAS mm.

    Raises:
        UserError: the file cannot be written.
    """
    figure = new_figure(14.0, 0.7 + 5.0 * len(times))
    panels = figure.subplots(len(times), 3, squeeze=False)
    factor = arrow_factor(np.concatenate([moved for _, moved, _ in times]))
    there = np.isfinite(points).all(axis=1)
    center = (points[there].min(axis=0) + points[there].max(axis=0)) / 2
    local = points - center
    half = 1.2 * float(np.nanmax(np.abs(local)))
    for row, (name, moved, changed) in zip(panels, times, strict=True):
        for axes, (title, across, sign, upward, sides, ends) in zip(row, views(), strict=True):
            draw_outlines(axes, protocol, local, (across, sign, upward))
            at = np.stack([sign * local[:, across], local[:, upward]], axis=1)
            by = factor * np.stack([sign * moved[:, across], moved[:, upward]], axis=1)
            _draw_arrows(axes, protocol, at, by, changed)
            frame_view(axes, title, half, sides, ends)
        count = int(changed.sum())
        landmarks = f"{count} landmark{'s' if count > 1 else ''}"
        what = f"{landmarks} moved by more than error" if count else "nothing beyond error"
        row[0].set_ylabel(f"{name}\n{what}", fontsize=10)
    enlarged = "arrows as long as the displacement" if factor == 1 else f"arrows {factor} times"
    figure.suptitle(
        f"Displacement since the baseline, {enlarged}" + (" enlarged" if factor > 1 else "")
        + "; red: more than the expected error",
        fontsize=11,
    )  # fmt: skip
    save_figure(figure, path)


def arrow_factor(moved: FloatArray) -> int:
    """The largest of `FACTORS` with which no arrow becomes too long; (n, 3) mm."""
    longest = float(np.nanmax(np.linalg.norm(moved, axis=1), initial=0.0))
    return max((f for f in FACTORS if f * longest <= _LONGEST_MM), default=FACTORS[0])


def _draw_arrows(
    axes: Axes,
    protocol: Protocol,
    at: FloatArray,
    by: FloatArray,
    changed: npt.NDArray[np.bool_],
) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    for flag, color, layer in ((False, _WITHIN, 3), (True, _CHANGED, 4)):
        rows = np.flatnonzero((changed == flag) & np.isfinite(by).all(axis=1))
        style: dict[str, Any] = {"color": color, "zorder": layer}
        axes.scatter(at[rows, 0], at[rows, 1], s=12, linewidths=0, **style)
        axes.quiver(
            *at[rows].T, *by[rows].T, angles="xy", scale_units="xy", scale=1, width=0.004,
            headwidth=4, headlength=5, headaxislength=4.5, minlength=0.5, **style,
        )  # fmt: skip
        for row in rows if flag else ():
            axes.annotate(
                protocol.labels[row], at[row] + by[row], (4, 4), textcoords="offset points",
                fontsize=7.5, path_effects=halo, **style,
            )  # fmt: skip
