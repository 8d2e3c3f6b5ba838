"""The agreement of two raters as charts of the scene."""

from __future__ import annotations

from typing import Any

import numpy as np

from BrainLandmarksLib.agreement.ratings import AXES, Ratings
from BrainLandmarksLib.agreement.reliability import bland_altman
from BrainLandmarksLib.geometry.alignment import nan_mean

from .plots import COLORS, Chart, Line

DISTANCES = "BrainLandmarks agreement"
BLAND_ALTMAN = "BrainLandmarks Bland-Altman"


def plot_agreement(ratings: Ratings) -> tuple[Any, Any]:
    """Make or renew two charts; returns their nodes.

    The first shows the distance between the raters of every landmark, the mean over the heads, one
    series for each group in its colour. The second shows difference against mean of every
    coordinate (RAS mm, all heads in one pose) with the bias and the limits of agreement.
    """
    return _distances(ratings), _bland_altman(ratings)


def _distances(ratings: Ratings) -> Any:
    mean = nan_mean(ratings.distances())
    lines = []
    for group in ratings.protocol.groups:
        members = [lm for lm in ratings.protocol.members(group) if np.isfinite(mean[lm.index - 1])]
        if members:
            lines.append(
                Line(
                    group.name,
                    [lm.index for lm in members],
                    [float(mean[lm.index - 1]) for lm in members],
                    points=True,
                    labels=[lm.label for lm in members],
                    color=group.rgb,
                )
            )
    return Chart(DISTANCES, "landmark", "mean distance, mm").show(lines)


def _bland_altman(ratings: Ratings) -> Any:
    posed = ratings.in_common_pose().points
    first, second = posed[:, 0], posed[:, 1]
    names = [
        f"{head} {label}" for head in ratings.heads for label in ratings.protocol.labels
    ]  # as the points lie: heads, then landmarks
    lines, means = [], []
    for axis, name in enumerate(AXES):
        a, b = first[..., axis].ravel(), second[..., axis].ravel()
        known = np.isfinite(a) & np.isfinite(b)
        means.append((a + b)[known] / 2)
        lines.append(
            Line(
                name,
                means[-1],
                (a - b)[known],
                points=True,
                labels=[text for text, there in zip(names, known, strict=True) if there],
            )
        )
    ends = [float(np.concatenate(means).min()), float(np.concatenate(means).max())]
    limits = bland_altman(first.ravel(), second.ravel())
    grey = COLORS[-1]
    for name, value in (
        ("bias", limits.bias), ("lower limit", limits.lower), ("upper limit", limits.upper)
    ):  # fmt: skip
        lines.append(Line(name, ends, [float(value)] * 2, color=grey))
    chart = Chart(BLAND_ALTMAN, "mean of both, mm", f"{' - '.join(ratings.raters)}, mm")
    return chart.show(lines)
