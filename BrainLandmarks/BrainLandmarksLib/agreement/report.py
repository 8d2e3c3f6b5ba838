"""The agreement of several people as files: tables, pictures and one page that explains them.

>>> print(write_agreement(before, Path("report"), after))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.agreement.ratings import (
    AXES,
    Deviations,
    Ratings,
    deviation_table,
    deviations,
    dispute_table,
    disputes,
    group_table,
    landmark_table,
)
from BrainLandmarksLib.agreement.reliability import Limits, bland_altman
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures.plots import (
    box_plot_by_landmark,
    group_legend,
    head_plot,
    new_figure,
)
from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import nan_mean
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 20
"""Disputes on the page; the CSV file has all."""

_EXPLANATION = """\
Distances are in mm between two people's points of one head (the mean over all pairs of people).
ICC(2,1) and ICC(3,1) are intraclass correlations of single ratings (Shrout and Fleiss 1979): 1 is
perfect agreement; a constant difference between people counts in the first only. They are of each
coordinate after all heads were brought into one pose, so that the place of a head in the scanner
does not count as agreement; the table shows the median over the coordinates. A coordinate in which
heads hardly differ, such as R of a midline point, has a low ICC however well people agree.
"Off plane" is the root mean square distance from the plane that a group shares, "step variation"
the coefficient of variation of the steps along an outline, "spacing" the root mean square distance
of the secondary points from where equal steps put them. Box plots end at the 99.5th percentile."""


def write_agreement(ratings: Ratings, folder: Path, corrected: Ratings | None = None) -> str:
    """Write all tables and pictures into a folder; returns the page, Markdown.

    Args:
        corrected: The same people's annotations of the same heads after correction.

    Raises:
        UserError: the corrected annotations are of other heads, or a file cannot be written.
    """
    if corrected is not None:
        _check_alike(ratings, corrected)
    stages = {"before correction": ratings}
    if corrected is not None:
        stages["after correction"] = corrected
    # What cannot be brought into one pose is refused before there is a folder.
    shapes = [each.mean_shape() for each in stages.values()]
    page = [
        "# Agreement",
        f"{len(ratings.heads)} heads, {len(ratings.raters)} people ({', '.join(ratings.raters)}), "
        f"{len(ratings.protocol)} landmarks of {ratings.protocol.name}.",
    ]
    if ratings.left_out:
        page.append(f"Left out, not annotated by all: {', '.join(ratings.left_out)}.")
    page.append(_EXPLANATION)
    found = {stage: deviations(each) for stage, each in stages.items()}
    with atomic_writes(folder) as unfinished:
        for number, (stage, each) in enumerate(stages.items()):
            title = f", {stage}" if corrected is not None else ""
            suffix = "_corrected" if number else ""
            groups, landmarks = group_table(each), landmark_table(each)
            planes, disputed = deviation_table(each, found[stage]), disputes(each)
            landmarks.write_csv(unfinished / f"landmarks{suffix}.csv")
            groups.write_csv(unfinished / f"groups{suffix}.csv")
            planes.write_csv(unfinished / f"guidelines{suffix}.csv")
            ranked = dispute_table(disputed)
            ranked.write_csv(unfinished / f"reannotate{suffix}.csv")
            _draw_bland_altman(each, unfinished / f"bland_altman{suffix}.png")
            page += [f"## Distance and ICC{title}", groups.markdown()]
            page += [f"## Planes and equal spacing{title}", planes.markdown()]
            page += [f"## Annotate again{title}", f"The first {_SHOWN} of {len(disputed)}:"]
            page.append(Table(ranked.header, ranked.rows[:_SHOWN]).markdown())
            page += [f"## Landmarks{title}", _short(landmarks, each).markdown()]
        box_plot_by_landmark(
            ratings.protocol,
            {
                f"{len(each.heads)} heads, {stage}" if corrected is not None
                else f"{len(each.heads)} heads": each.distances()
                for stage, each in stages.items()
            },
            unfinished / "distances.png",
            ylabel="between people, mm",
        )  # fmt: skip
        last = list(stages.values())[-1]
        mean = nan_mean(last.distances())
        head_plot(ratings.protocol, shapes[-1], mean, unfinished / "head.png",
                  label="mean distance between people, mm")  # fmt: skip
        _draw_guidelines(stages, found, unfinished / "guidelines.png")
        text = "\n\n".join(page) + "\n"
        (unfinished / "agreement.md").write_text(text, encoding="utf-8")
    return text


def _check_alike(ratings: Ratings, corrected: Ratings) -> None:
    if len(corrected.raters) != len(ratings.raters):
        raise ValueError("before and after correction there are the same people")
    if corrected.heads != ratings.heads:
        other = sorted(set(corrected.heads) ^ set(ratings.heads))
        raise UserError(
            f"the corrected annotations are not of the same heads ({', '.join(other[:5])}); "
            "corrected files keep the names of the annotations."
        )


def _short(landmarks: Table, ratings: Ratings) -> Table:
    """The landmark table without the limits, which would not fit on a page."""
    columns = 8 + 2 * len(AXES)
    return Table(landmarks.header[:columns], [row[:columns] for row in landmarks.rows])


def _draw_bland_altman(ratings: Ratings, path: Path) -> None:
    """Difference against mean of every landmark and head, in the common pose; a row for each pair.

    Lines are the bias and the limits of agreement over all landmarks of a coordinate.
    """
    posed = ratings.in_common_pose().points
    pairs = ratings.pairs()
    figure = new_figure(13.0, 0.4 + 3.6 * len(pairs))
    panels = figure.subplots(len(pairs), 3, squeeze=False)
    colors = np.array(
        [ratings.protocol.group_of(lm).color for lm in ratings.protocol.landmarks] * len(posed)
    )
    for row, (a, b) in zip(panels, pairs, strict=True):
        for axis, axes in enumerate(row):
            first = posed[:, a, :, axis].ravel()
            second = posed[:, b, :, axis].ravel()
            known = np.isfinite(first) & np.isfinite(second)
            limits = bland_altman(first, second)
            axes.scatter((first + second)[known] / 2, (first - second)[known], s=6,
                         c=colors[known], linewidths=0)  # fmt: skip
            axes.set(
                xlabel=f"{AXES[axis]}, mean of both, mm",
                ylabel=f"{ratings.raters[a]} - {ratings.raters[b]}, mm",
                title="fewer than two points that both have placed",
            )
            if np.isfinite(limits.bias):
                _draw_limits(axes, limits, (first - second)[known])
            axes.title.set_fontsize(9)
            axes.grid(color="#e4e7eb", linewidth=0.6)
            axes.set_axisbelow(True)
    group_legend(figure, ratings.protocol)
    save_figure(figure, path)


def _draw_limits(axes: Axes, limits: Limits, differences: FloatArray) -> None:
    """Lines at the bias and at the limits of agreement, and the axis about them."""
    bias, lower, upper = (float(value) for value in (limits.bias, limits.lower, limits.upper))
    for value, style in ((bias, "-"), (lower, "--"), (upper, "--")):
        axes.axhline(value, color="#22272e", linewidth=0.9, linestyle=style)
    half = 1.15 * max(abs(lower), abs(upper), 1e-3) * 1.5
    beyond = int((np.abs(differences) > half).sum())
    axes.set(
        ylim=(-half, half),
        title=f"bias {bias:+.2f}, limits {lower:+.2f} to {upper:+.2f} mm"
        + (f"; {beyond} not shown" if beyond else ""),
    )


def _draw_guidelines(stages: dict[str, Ratings], found: dict[str, Deviations], path: Path) -> None:
    """Bars: distance from the plane and variation of the steps, for each group and person."""
    figure = new_figure(13.0, 4.4)
    panels = figure.subplots(1, 2)
    ratings = next(iter(stages.values()))
    shades = ("#3674fe", "#e34305", "#279b5f", "#b268a9")
    count = len(ratings.raters) * len(stages)
    for axes, name, factor, ylabel in (
        (panels[0], "plane_mm", 1.0, "root mean square off the plane, mm"),
        (panels[1], "spacing", 100.0, "variation of the steps, %"),
    ):
        first = getattr(next(iter(found.values())), name)
        kept = [k for k in range(len(first)) if np.isfinite(first[k]).any()]
        width = 0.8 / count
        for rater, person in enumerate(ratings.raters):
            for stage, (title, each) in enumerate(found.items()):
                place = rater * len(stages) + stage
                values = factor * getattr(each, name)[kept, rater]
                axes.bar(
                    np.arange(len(kept)) + (place - (count - 1) / 2) * width, values, width * 0.92,
                    color=shades[rater % len(shades)], alpha=0.4 if stage else 1.0,
                    label=f"{person}, {title}" if len(stages) > 1 else person,
                )  # fmt: skip
        labels = [next(iter(found.values())).groups[k].replace(" ", "\n", 1) for k in kept]
        axes.set_xticks(range(len(kept)), labels, fontsize=8.5)
        axes.set_ylabel(ylabel)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save_figure(figure, path)
