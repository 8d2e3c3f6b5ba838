"""What is measured, as files: tables, errors as numbers, plots; confidence against error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures.plots import (
    box_plot_by_landmark,
    cumulative_plot,
    head_plot,
    new_figure,
)
from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.geometry.alignment import nan_mean
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.decoding import Calibration
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksTrainLib.synthesis.label_maps import held_out_maps, read_annotated

from .comparison import Comparison
from .held_out import HeldOut, after_corrections, measure
from .metrics import ErrorTable
from .paper_tables import READINGS, table_four, table_three

ANATOMIES = {"own": "Held-out heads", "deformed": "Deformed copies of them"}
"""What is measured, and its title."""

CORRECTIONS = (3, 5, 10)
"""How many points of a head a person corrects before the others follow."""

_READING_TEXT = {
    "per coordinate": "MAE per coordinate: a landmark's error is the mean of |ΔR|, |ΔA| and |ΔS|, "
    "its RMSE the root of the mean of their squares; mean ± standard deviation over all landmarks "
    "of all scans. The ratio of RMSE to MAE in the paper's Table IV fits this reading.",
    "Euclidean": "Euclidean MAE: a landmark's error is its distance from the truth (radial error); "
    "mean ± standard deviation over all landmarks of all scans. RMSE is taken over the landmarks "
    "of a group in one scan; mean ± standard deviation over the scans.",
}


def write_comparison(comparison: Comparison, folder: Path, configuration: str) -> str:
    """Write all tables and plots of found against true landmarks into a folder.

    ``errors.md`` explains and shows the tables; ``errors.csv`` has the radial error of every scan
    (rows) and landmark, ``points.csv`` every difference, ``groups.csv`` and ``landmarks.csv`` the
    summaries, ``table_3_*.csv`` and ``table_4_*.csv`` the paper's tables in both readings of MAE;
    ``errors_by_landmark.png``, ``cumulative.png`` and ``head.png`` are plots.

    Args:
        configuration: What was measured, the row of Table III.

    Returns:
        The page without the table of landmarks, Markdown.

    Raises:
        UserError: no landmark is both found and true, or a file cannot be written.
    """
    if not np.isfinite(comparison.errors).any():
        raise UserError(
            "no landmark is both found and true, so there is nothing to measure; check that both "
            "are of the same scans."
        )
    with atomic_writes(folder) as unfinished:
        return _write_into(comparison, unfinished, configuration)


def _write_into(
    comparison: Comparison, folder: Path, configuration: str, more: Sequence[str] = ()
) -> str:
    """Write a comparison's files into a folder; ``more`` goes before the landmarks on the page."""
    protocol, errors = comparison.protocol, comparison.errors
    tables = {
        "groups": ErrorTable.of(protocol, errors),
        "landmarks": ErrorTable.per_landmark(protocol, errors),
    }
    known, missed, extra = (
        int(x.sum()) for x in (np.isfinite(errors), comparison.missed, comparison.extra)
    )
    page = [
        f"# Errors of {configuration}",
        f"{len(comparison.scans)} scans, {len(protocol)} landmarks of {protocol.name}: {known} "
        f"found and compared, {missed} missed, {extra} found that have no truth. All in mm.",
        *(f"Note: {note}." for note in comparison.notes),
        "## Radial error, per group",
        "The radial error is the Euclidean distance from the truth; SDR@2 mm is the share of the "
        "compared landmarks with an error up to 2 mm.",
        tables["groups"].markdown(),
    ]
    for reading in READINGS:
        name = reading.replace(" ", "_").lower()
        four = table_four(protocol, comparison.differences, reading)
        three = table_three(
            {configuration: {f"{len(comparison.scans)} scans": comparison.differences}}, reading
        )
        four.write_csv(folder / f"table_4_{name}.csv")
        three.write_csv(folder / f"table_3_{name}.csv")
        page += [f"## Tables III and IV of the paper, MAE {reading}", _READING_TEXT[reading]]
        page += [three.markdown(), four.markdown()]
    page += more
    for name, table in tables.items():
        table.numbers().write_csv(folder / f"{name}.csv")
    _errors_by_scan(comparison).write_csv(folder / "errors.csv")
    _every_point(comparison).write_csv(folder / "points.csv")
    box_plot_by_landmark(
        protocol, {configuration: errors}, folder / "errors_by_landmark.png",
        ylabel="radial error, mm",
    )  # fmt: skip
    cumulative_plot(protocol, errors, folder / "cumulative.png", missed=comparison.missed)
    mean = comparison.mean_head()
    if mean is not None:
        head_plot(protocol, mean, nan_mean(errors), folder / "head.png",
                  label="mean radial error, mm")  # fmt: skip
    landmarks = ["## Radial error, per landmark", tables["landmarks"].markdown()]
    (folder / "errors.md").write_text("\n\n".join([*page, *landmarks]) + "\n", encoding="utf-8")
    return "\n\n".join(page)


def _errors_by_scan(comparison: Comparison) -> Table:
    rows = [
        (name, *map(float, errors))
        for name, errors in zip(comparison.scans, comparison.errors, strict=True)
    ]
    return Table(("scan", *comparison.protocol.labels), rows)


def _every_point(comparison: Comparison) -> Table:
    rows = []
    for scan, differences, errors, missed in zip(
        comparison.scans, comparison.differences, comparison.errors, comparison.missed, strict=True
    ):
        for k, landmark in enumerate(comparison.protocol.landmarks):
            if np.isfinite(errors[k]) or missed[k]:
                state = "missed" if missed[k] else "found"
                numbers = (*map(float, differences[k]), float(errors[k]))
                rows.append((scan, landmark.label, landmark.group, state, *numbers))
    return Table(("scan", "landmark", "group", "state", "dr", "da", "ds", "radial"), rows)


def held_out_report(
    model: Model,
    label_maps: Sequence[Path],
    heads: Sequence[str] | None,
    folder: Path,
    *,
    scans: int = 10,
    device: str = "auto",
    quality: str = "standard",
) -> str:
    """Measure a model on unseen scans of held-out heads; write what `write_comparison` writes.

    ``errors.md`` also states what a few corrections do to the other points, and ``confidence.png``
    shows confidence against error.

    Args:
        heads: stems of the label maps to use; by default those the model says were held out.
        quality: One of `detection.QUALITIES`.

    Returns:
        The error tables, and last that of the corrections, as Markdown.

    Raises:
        UserError: a head is not among the label maps, or none is named, or the model recognises
            none of them.
    """
    paths = held_out_maps(model.spec, label_maps, heads)
    maps = read_annotated(paths, model.protocol, folder / "annotations")
    results = measure(model, maps, scans, folder / "deformed_copies", device, quality)
    result = HeldOut.joined(results.values())
    if not np.isfinite(result.errors).any():
        raise UserError(
            f"{model.spec.name} recognises none of the heads, so there is nothing to measure."
        )
    parts = [
        f"{title}:\n\n{ErrorTable.of(model.protocol, results[name].errors).markdown()}"
        for name, title in ANATOMIES.items()
    ]
    calibration = model.spec.calibration
    if model.shape is not None and calibration is not None:
        rows = [
            (count, before, after)
            for count in CORRECTIONS
            for before, after in [after_corrections(result, model.shape, calibration, count)]
        ]
        header = ("corrected points", "mean error of the others before", "after")
        parts.append(Table(header, rows).markdown())
    comparison = Comparison.of_held_out(model.protocol, result)
    with atomic_writes(folder) as unfinished:
        more = ["## By anatomy, and after corrections", *parts]
        _write_into(comparison, unfinished, model.spec.name, more)
        draw_confidence(result, calibration, unfinished / "confidence.png")
    return "\n\n".join(parts)


def draw_confidence(result: HeldOut, shipped: Calibration | None, path: Path) -> None:
    """Confidence against error, and whether a confidence of p is right in p of the cases.

    The confidence of a head's landmarks comes from a table fitted on the *other* heads, so the
    plot says how the calibration does on a head it has not seen.
    """
    feature = shipped.feature if shipped else "peak_mass"
    threshold = shipped.threshold_mm if shipped else 4.0
    confidence = np.full_like(result.features, np.nan)
    names = list(dict.fromkeys(result.heads))
    for name in names:
        rows = [k for k, head in enumerate(result.heads) if head == name]
        # A single head has no others; its own table is then all there is.
        without = name if len(names) > 1 else None
        others = [k for k, head in enumerate(result.heads) if head != without]
        if np.isfinite(result.errors[others]).sum() < 2:
            continue  # the others were not recognised: they say nothing of this one
        table = result.calibration(without=without, feature=feature)
        confidence[rows] = table(result.features[rows], result.apart[rows])
    good = np.isfinite(confidence) & np.isfinite(result.errors)
    p, error = confidence[good], result.errors[good]
    figure = new_figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    left.plot(p, np.clip(error, 0.05, None), ".", markersize=2, alpha=0.35, color="#0072B2")
    left.set(
        yscale="log",
        xlabel="confidence",
        ylabel="error, mm",
        title=f"{len(p)} landmarks of held-out heads",
    )
    left.axhline(threshold, color="#D55E00", linewidth=1, label=f"{threshold:g} mm")
    left.legend(loc="lower left")
    order = np.argsort(p)
    bins = [b for b in np.array_split(order, 10) if len(b)]
    right.plot([0, 1], [0, 1], color="grey", linewidth=1)
    right.plot(
        [p[b].mean() for b in bins],
        [(error[b] <= threshold).mean() for b in bins],
        "o-",
        color="#009E73",
    )
    right.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="confidence",
        aspect="equal",
        ylabel=f"share with error up to {threshold:g} mm",
        title="each head by the others' table",
    )
    save_figure(figure, path)
