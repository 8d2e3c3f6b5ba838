"""Plots of numbers about landmarks, in the colours of their groups.

>>> box_plot_by_landmark(protocol, {"before": errors}, "boxes.png", ylabel="error, mm")
>>> cumulative_plot(protocol, errors, "cumulative.png")
>>> head_plot(protocol, mean_points, errors.mean(axis=0), "head.png", label="mean error, mm")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.constraints import chain_rows, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_GREY = "#8b949e"
_INK = "#22272e"
_WORST = 5
"""Landmarks of the head plot that are named."""

# (name, axis to the right, its sign, axis upwards, letters left and right): radiological views.
_VIEWS = (
    ("sagittal, from the left", 1, -1, 2, ("A", "P"), ("S", "I")),
    ("coronal, from the front", 0, -1, 2, ("R", "L"), ("S", "I")),
    ("axial, from below", 0, -1, 1, ("R", "L"), ("A", "P")),
)


def new_figure(width: float, height: float) -> Figure:
    """A white figure of a size in inches that needs no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def box_plot_by_landmark(
    protocol: Protocol,
    panels: Mapping[str, FloatArray],
    path: str | os.PathLike[str],
    *,
    ylabel: str,
) -> None:
    """A box for each landmark, in its group's colour; one panel above the other (paper, Fig. 6).

    Boxes reach from the first to the third quartile, whiskers to the last value within 1.5 times
    that, dots are beyond. All panels have one scale, cut at the 99.5th percentile of all values.

    Args:
        panels: Title to (n, K) values, NaN where there is none.

    Raises:
        UserError: the file cannot be written.
    """
    count = len(protocol)
    figure = new_figure(max(7.0, 2 + 0.17 * count), 1.0 + 3.6 * len(panels))
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True, sharey=True))
    finite = np.concatenate([v[np.isfinite(v)] for v in panels.values()] or [np.zeros(0)])
    for each, (title, values) in zip(axes, panels.items(), strict=True):
        _boxes(each, protocol, values)
        each.set_title(title, loc="left", fontsize=10)
        each.set_ylabel(ylabel)
    if len(finite):
        axes[0].set_ylim(0, max(float(np.quantile(finite, 0.995)) * 1.05, 1e-3))
    axes[-1].set_xticks(range(1, count + 1), protocol.labels, rotation=90, fontsize=6.5)
    axes[-1].set_xlim(0.3, count + 0.7)
    group_legend(figure, protocol)
    save_figure(figure, path)


def _boxes(axes: Axes, protocol: Protocol, values: FloatArray) -> None:
    columns = [column[np.isfinite(column)] for column in values.T]
    drawn = axes.boxplot(
        columns, patch_artist=True, widths=0.65,
        medianprops={"color": _INK, "linewidth": 1.2},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": _GREY},
        whiskerprops={"color": _GREY}, capprops={"color": _GREY},
        boxprops={"edgecolor": _INK, "linewidth": 0.5}, manage_ticks=False,
    )  # fmt: skip
    for box, landmark in zip(drawn["boxes"], protocol.landmarks, strict=True):
        box.set_facecolor(protocol.group_of(landmark).color)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)


def group_legend(figure: Figure, protocol: Protocol) -> None:
    """The colours of the groups, below everything else in the figure."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=group.color, edgecolor=_INK, linewidth=0.5, label=group.name)
        for group in protocol.groups
    ]
    columns = min(len(handles), max(1, int(figure.get_figwidth() // 2)))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def cumulative_plot(
    protocol: Protocol,
    errors: FloatArray,
    path: str | os.PathLike[str],
    *,
    missed: npt.NDArray[np.bool_] | None = None,
    limits_mm: Sequence[float] = (2.0, 3.0, 4.0),
) -> None:
    """Share of landmarks found within a distance, against the distance: each group, and all.

    Args:
        errors: (n, K) mm, NaN where there is none.
        missed: (n, K) landmarks that were not found at all; they count, so a curve may end below
            100 %.

    Raises:
        UserError: the file cannot be written.
    """
    lost = np.zeros(errors.shape, bool) if missed is None else missed
    figure = new_figure(7.5, 5.0)
    axes = figure.subplots()
    curves = [(g.name, g.color, slice(g.first - 1, g.last), 1.6) for g in protocol.groups]
    for name, color, columns, width in (*curves, ("All", _INK, slice(None), 2.6)):
        at, share = cumulative_share(errors[:, columns], lost[:, columns])
        axes.step(at, 100 * share, where="post", color=color, lw=width, label=name)
    finite = errors[np.isfinite(errors)]
    right = float(np.quantile(finite, 0.99)) if len(finite) else 1.0
    axes.set(
        xlim=(0, max(right, max(limits_mm) * 1.05)), ylim=(0, 100), xlabel="error, mm",
        ylabel="landmarks with at most this error, %",
    )  # fmt: skip
    for limit in limits_mm:
        axes.axvline(limit, color=_GREY, linewidth=0.7, linestyle=":")
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.legend(loc="lower right", fontsize=8.5, frameon=True)
    save_figure(figure, path)


def cumulative_share(
    errors: FloatArray, missed: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Share of landmarks with an error up to some distances, of all that are there.

    Args:
        errors: Any shape, mm, NaN where there is none.
        missed: Which landmarks were not found at all, same shape.

    Returns:
        (distances mm, shares from 0 to 1): a step at each error, the first at 0 mm.
    """
    values = np.sort(errors[np.isfinite(errors)])
    total = max(len(values) + int(missed.sum()), 1)
    return np.r_[0.0, values], np.arange(len(values) + 1) / total


def coverage_plot(
    ranks: Mapping[str, FloatArray], path: str | os.PathLike[str], level: float
) -> None:
    """How often intervals hold, against how often they should; on the diagonal they are right.

    Args:
        ranks: Name to (n,) shares, 0 to 1, of the possible values that are nearer than the true
            one.
        level: The share that is stated, where a mark stands.

    Raises:
        UserError: the file cannot be written.
    """
    figure = new_figure(5.6, 5.2)
    axes = figure.subplots()
    stated = np.linspace(0, 1, 101)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="as stated")
    for (name, values), color in zip(ranks.items(), ("#3674fe", "#e34305", "#279b5f")):
        observed = [(values <= share).mean() for share in stated]
        inside = (values <= level).mean()
        label = f"{name}: {100 * inside:.0f} % inside at {100 * level:.0f} % (n = {len(values)})"
        axes.plot(stated, observed, color=color, linewidth=1.6, label=label)
        axes.plot([level], [inside], "o", color=color)
    axes.set(
        xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="stated share of planes inside",
        ylabel="measured share",
    )  # fmt: skip
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.legend(loc="lower right", fontsize=8.5)
    save_figure(figure, path)


def head_plot(
    protocol: Protocol,
    points: FloatArray,
    values: FloatArray,
    path: str | os.PathLike[str],
    *,
    label: str,
) -> None:
    """The landmarks of a mean head from three sides, coloured by a value; the largest are named.

    Radiological views: the patient's right is on the left, and the front in the side view.

    Args:
        points: (K, 3) RAS mm.
        values: (K,), NaN where there is none; those are drawn as rings.
        label: What the values are, with their unit.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.patheffects import withStroke

    figure = new_figure(14.0, 5.2)
    panels = figure.subplots(1, 3)
    halo = [withStroke(linewidth=2, foreground="white")]
    there = np.asarray(np.isfinite(points).all(axis=1))
    shown = np.asarray(there & np.isfinite(values))
    low, top = np.quantile(values[shown], (0.02, 0.98)) if shown.any() else (0.0, 1.0)
    worst = [k for k in np.argsort(-np.nan_to_num(values, nan=-1.0))[:_WORST] if shown[k]]
    center = (np.nanmin(points, axis=0) + np.nanmax(points, axis=0)) / 2 if there.any() else 0.0
    local = points - center
    half = 1.2 * float(np.nanmax(np.abs(local))) if there.any() else 1.0
    for axes, (name, across, sign, upward, sides, ends) in zip(panels, _VIEWS, strict=True):
        draw_outlines(axes, protocol, local, (across, sign, upward))
        at = np.stack([sign * local[:, across], local[:, upward]], axis=1)
        unknown = there & ~shown
        axes.scatter(*at[unknown].T, s=26, facecolors="none", edgecolors=_GREY)
        # The largest values last, so that nothing hides them.
        order = np.flatnonzero(shown)[np.argsort(values[shown])]
        dots = axes.scatter(
            *at[order].T, c=values[order], s=34, cmap="plasma_r", vmin=low, vmax=top,
            edgecolors=_INK, linewidths=0.4, zorder=3,
        )  # fmt: skip
        for row in worst:
            axes.annotate(protocol.labels[row], at[row], (4, 4), textcoords="offset points",
                          fontsize=7.5, color=_INK, zorder=4, path_effects=halo)  # fmt: skip
        frame_view(axes, name, half, sides, ends)
    figure.colorbar(dots, ax=list(panels), label=label, shrink=0.85, extend="both")
    save_figure(figure, path)


def views() -> tuple[tuple[str, int, int, int, tuple[str, str], tuple[str, str]], ...]:
    """The three sides from which a head is shown.

    Each is (name, axis across, its sign, axis upwards, letters left and right, letters at the top
    and the bottom).
    """
    return _VIEWS


def draw_outlines(
    axes: Axes, protocol: Protocol, points: FloatArray, view: tuple[int, int, int]
) -> None:
    """The protocol's outlines, pale; those of which a point is missing are left out.

    Args:
        points: (K, 3) mm.
        view: Axis across, its sign, and axis upwards.
    """
    across, sign, upward = view
    for chain in protocol.chains:
        rows = chain_rows(protocol, chain)
        if np.isfinite(points[rows]).all():
            curve = outline(points[rows], chain, 20)
            axes.plot(sign * curve[:, across], curve[:, upward], color="#d0d5db", lw=1.2, zorder=1)


def frame_view(
    axes: Axes, name: str, half: float, sides: tuple[str, str], ends: tuple[str, str]
) -> None:
    """Directions and a scale of a view; `half` of its width is in mm."""
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", title=name)
    axes.set_xticks([])
    axes.set_yticks([])
    edge = 0.94 * half
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": _GREY, "fontsize": 9}
    for x, y, letter in (
        (-edge, 0, sides[0]), (edge, 0, sides[1]), (0, edge, ends[0]), (0, -edge, ends[1]),
    ):  # fmt: skip
        axes.text(x, y, letter, **style)
    axes.plot([-edge, -edge + 50], [-edge, -edge], color=_GREY, lw=1.5)
    axes.text(-edge + 25, -edge + 0.03 * half, "50 mm", **{**style, "va": "bottom", "fontsize": 8})
