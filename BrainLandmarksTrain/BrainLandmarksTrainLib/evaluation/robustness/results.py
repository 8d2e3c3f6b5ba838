"""What was measured: a row for each condition, as tables and as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib.figures.plots import new_figure
from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.tables import Table

from .conditions import Family, Strength

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN = "as it is"
"""The condition of a scan to which nothing was done."""

RESAMPLES = 2000
_HEADER = (
    "condition", "strength", "unit", "scans", "landmarks", "missed", "mean", "median", "p90",
    "change", "change_low", "change_high",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One scan in one condition.

    Args:
        scan: Its name.
        family, strength: The condition.
        errors: Radial error of each landmark, mm; NaN where truth or prediction is missing.
        there: How many landmarks are in the image.
        missed: How many of them were not found.
        note: Why nothing was found or done, or empty.
    """

    scan: str
    family: str
    strength: Strength
    errors: tuple[float, ...]
    there: int
    missed: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        errors = [round(e, 4) if math.isfinite(e) else None for e in self.errors]
        return {**self.__dict__, "errors": errors}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Undo :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        errors = tuple(math.nan if e is None else float(e) for e in values["errors"])
        return cls(**{**values, "errors": errors})


@dataclass(frozen=True)
class ConditionRow:
    """One condition over all scans, mm.

    ``change`` is the mean difference from the same landmarks on the scans as they are, with its
    95 % interval; ``missed`` of ``landmarks`` in the images were not found.
    """

    title: str
    strength: Strength
    unit: str
    scans: int
    landmarks: int
    missed: int
    mean: float
    median: float
    p90: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Results:
    """All conditions, the scans as they are first."""

    rows: tuple[ConditionRow, ...]
    families: tuple[Family, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, measured: Sequence[Measurement], scans: Sequence[str], families: Sequence[Family]
    ) -> Results:
        """Summarise measurements."""
        by_key = {(m.family, m.strength, m.scan): m for m in measured}
        clean = [by_key[CLEAN, "", name] for name in scans]
        rows = [_row(CLEAN, "", "", clean, clean)]
        notes = [f"{m.scan}, {CLEAN}: {m.note}" for m in clean if m.note]
        for family in families:
            for strength in family.strengths:
                found = [by_key[family.name, strength, name] for name in scans]
                rows.append(_row(family.title, strength, family.unit, found, clean))
                what = f"{family.title} {_text(strength)}".strip()
                notes += [f"{m.scan}, {what}: {m.note}" for m in found if m.note]
        return cls(tuple(rows), tuple(families), tuple(notes))

    def table(self) -> Table:
        """The rows for people: a condition a row, the interval in one cell."""
        rows = []
        for r in self.rows:
            change = "" if r.title == CLEAN else interval(r.change, r.low, r.high)
            strength = f"{_text(r.strength)} {r.unit}".strip()
            missed = f"{r.missed} of {r.landmarks}" if r.landmarks else "-"
            rows.append((r.title, strength, r.mean, r.median, r.p90, change, missed))
        header = ("condition", "strength", "mean", "median", "p90", "change (95 %)", "missed")
        return Table(header, rows)

    def numbers(self) -> Table:
        """The rows for a spreadsheet."""
        rows = [
            (r.title, _text(r.strength), r.unit, r.scans, r.landmarks, r.missed, r.mean, r.median,
             r.p90, r.change, r.low, r.high)
            for r in self.rows
        ]  # fmt: skip
        return Table(_HEADER, rows)


def _row(
    title: str,
    strength: Strength,
    unit: str,
    found: Sequence[Measurement],
    clean: Sequence[Measurement],
) -> ConditionRow:
    errors = np.array([m.errors for m in found])
    good = errors[np.isfinite(errors)]
    mean, median, p90 = (
        (float(good.mean()), *(float(q) for q in np.quantile(good, (0.5, 0.9))))
        if len(good)
        else (math.nan,) * 3
    )
    change, low, high = paired_change(errors, np.array([m.errors for m in clean]))
    return ConditionRow(
        title,
        strength,
        unit,
        sum(m.there > 0 for m in found),
        sum(m.there for m in found),
        sum(m.missed for m in found),
        mean,
        median,
        p90,
        change,
        low,
        high,
    )


def paired_change(errors: FloatArray, clean: FloatArray) -> tuple[float, float, float]:
    """Mean difference of the errors of the same landmarks of the same scans, and its 95 % interval.

    The interval is the percentile bootstrap over scans (Efron and Tibshirani 1993, chapter 13).
    The landmarks of a scan stay together: they share its image.

    Args:
        errors, clean: (scans, K) mm, NaN where there is none.

    Returns:
        (change, low, high) mm, NaN where nothing is in both; one scan has no interval.
    """
    difference = errors - clean
    usable = np.isfinite(difference)
    sums, counts = np.where(usable, difference, 0.0).sum(axis=1), usable.sum(axis=1)
    if not counts.any():
        return math.nan, math.nan, math.nan
    change = float(sums.sum() / counts.sum())
    if np.count_nonzero(counts) < 2:
        return change, math.nan, math.nan
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    totals = counts[drawn].sum(axis=1)
    means = sums[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, (0.025, 0.975))
    return change, float(low), float(high)


def interval(value: float, low: float, high: float) -> str:
    """A change with its interval, as "+0.12 (-0.03 to 0.27)"."""
    if not math.isfinite(value):
        return "-"
    if not math.isfinite(low):
        return f"{value:+.2f}"
    return f"{value:+.2f} ({low:.2f} to {high:.2f})"


def _text(strength: Strength) -> str:
    return strength if isinstance(strength, str) else f"{strength:g}"


def write_results(results: Results, folder: Path, title: str, about: str) -> str:
    """Write ``robustness.md``, ``robustness.csv`` and ``robustness.png``; returns the page.

    Raises:
        UserError: a file cannot be written.
    """
    page = "\n\n".join(
        [
            f"# {title}",
            about,
            results.table().markdown(),
            *(f"Note: {note}." for note in results.notes),
        ]
    )
    results.numbers().write_csv(folder / "robustness.csv")
    draw_results(results, folder / "robustness.png")
    (folder / "robustness.md").write_text(page + "\n", encoding="utf-8")
    return page


def draw_results(results: Results, path: Path) -> None:
    """Mean error against strength, a line for each family; the dotted line is the clean scan's.

    Raises:
        UserError: the file cannot be written.
    """
    panels = list(dict.fromkeys(family.panel for family in results.families))
    figure = new_figure(3.2 * len(panels) + 1.0, 4.6)
    all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    clean = results.rows[0].mean
    for axes, panel in zip(all_axes, panels, strict=True):
        shown = [family for family in results.families if family.panel == panel]
        _draw_panel(axes, shown, results)
        axes.axhline(clean, color="#8b949e", linewidth=1, linestyle=":")
        axes.set_title(panel, fontsize=10)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
    all_axes[0].set_ylabel("mean error, mm")
    top = max((r.mean for r in results.rows if math.isfinite(r.mean)), default=1.0)
    all_axes[0].set_ylim(0, 1.05 * max(top, 1e-3))
    save_figure(figure, path)


def _draw_panel(axes: Axes, families: Sequence[Family], results: Results) -> None:
    """Numbers at their place when all families of the panel share a unit, else one step each."""
    shared = len({family.unit for family in families}) == 1
    names: list[str] = []
    for family in families:
        rows = [r for r in results.rows if r.title == family.title]
        means = [r.mean for r in rows]
        if any(isinstance(r.strength, str) for r in rows):
            at = [float(len(names) + k) for k in range(len(rows))]
            names += [_text(r.strength) for r in rows]
            axes.bar(at, means, width=0.6)
            axes.set_xticks(range(len(names)), names, rotation=30)
            continue
        at = [float(r.strength) for r in rows] if shared else list(range(1, len(rows) + 1))
        axes.plot(at, means, "o-", label=family.title)
    if names:
        return
    if shared:
        axes.set_xlabel(families[0].unit)
    else:
        axes.set_xticks([1, 2, 3], ["weak", "medium", "strong"])
    axes.legend(fontsize=8, frameon=False)
