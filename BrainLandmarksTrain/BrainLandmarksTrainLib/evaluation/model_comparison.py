"""Two models on the same scans: what the newer one does better, and what worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures.plots import box_plot_by_landmark
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import nan_mean
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.model_files import Model

from .comparison import Comparison
from .metrics import ErrorTable
from .paper_tables import READINGS, table_four

PAGE = "model_comparison.md"

_BRIEF = ("mean", "median", "p90")

_SPLITS = ("test", "validation")
"""Where models are compared, the first that has scans."""


def fair_entries(dataset: Dataset) -> tuple[list[Entry], str]:
    """Scans to compare models on, and a sentence that says which: those that training did not see.

    Raises:
        UserError: the dataset is empty.
    """
    for split in _SPLITS:
        entries = [entry for entry in dataset.entries if entry.split == split]
        if entries:
            return entries, f"The scans are those of the split {split}, which training did not see."
    if not dataset.entries:
        raise UserError(f"the dataset {dataset.folder} is empty; add scans to it first.")
    return list(dataset.entries), (
        "The scans are those that the newer model was trained with, for the dataset has no others: "
        "the numbers say that it has learnt them, not how it does on new ones."
    )


def compare_models(
    old: Model,
    new: Model,
    dataset: Dataset,
    folder: Path,
    device: str = "auto",
    on_scan: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> str:
    """Measure two models on the scans of a dataset and write what has changed.

    Returns:
        The page without the table of landmarks, Markdown.

    Raises:
        UserError: a model does not find the dataset's landmarks, or a file cannot be written.
    """
    entries, which = fair_entries(dataset)
    before, after = (
        Comparison.of_model(model, dataset, entries, device, on_scan) for model in (old, new)
    )
    return write_model_comparison(before, after, distinct_names(old, new), folder, which)


def distinct_names(old: Model, new: Model) -> tuple[str, str]:
    """Names of two models that may have the same."""
    names = (old.spec.name, new.spec.name)
    return names if names[0] != names[1] else (f"{names[0]} (before)", f"{names[1]} (after)")


def write_model_comparison(
    before: Comparison, after: Comparison, names: tuple[str, str], folder: Path, which: str = ""
) -> str:
    """Write tables and box plots of two comparisons of the same scans into a folder.

    ``model_comparison.md`` shows the paper's Table IV of both side by side in both readings of
    MAE, and every landmark's change; ``model_comparison_groups.csv`` and
    ``model_comparison_landmarks.csv`` hold the numbers, ``model_comparison.png`` a box for each
    landmark before and after.

    Args:
        names: of the two models.
        which: a sentence about the scans.

    Returns:
        The page without the table of landmarks, Markdown.

    Raises:
        UserError: a file cannot be written.
        ValueError: the comparisons are of other scans or landmarks.
    """
    protocol = before.protocol
    if before.scans != after.scans or protocol.hash != after.protocol.hash:
        raise ValueError("the two comparisons are not of the same scans and landmarks")
    old, new = before.errors, after.errors
    both = np.isfinite(old) & np.isfinite(new)
    change = np.where(both, new - old, np.nan)
    known = change[both]
    page = [
        f"# {names[1]} after {names[0]}",
        f"{len(before.scans)} scans, {int(both.sum())} landmarks found by both models; {names[0]} "
        f"missed {int(before.missed.sum())}, {names[1]} {int(after.missed.sum())}. All in mm. "
        f"{which}",
    ]
    if len(known):
        page.append(
            f"The mean radial error went from {old[both].mean():.2f} to {new[both].mean():.2f}; "
            f"{100 * (known < 0).mean():.0f} % of the landmarks came closer to the truth."
        )
    groups = _side_by_side(
        ErrorTable.of(protocol, old).numbers(), ErrorTable.of(protocol, new).numbers(), names
    )
    page += ["## Radial error, per group", _brief(groups).markdown()]
    for reading in READINGS:
        tables = [table_four(protocol, each.differences, reading) for each in (before, after)]
        page += [f"## Table IV of the paper, MAE {reading}"]
        page += [_side_by_side(tables[0], tables[1], names, ("MAE", "RMSE")).markdown()]
    landmarks = _landmarks(protocol.labels, old, new, change)
    with atomic_writes(folder) as unfinished:
        groups.write_csv(unfinished / "model_comparison_groups.csv")
        landmarks.write_csv(unfinished / "model_comparison_landmarks.csv")
        box_plot_by_landmark(
            protocol, dict(zip(names, (old, new))), unfinished / "model_comparison.png",
            ylabel="radial error, mm",
        )  # fmt: skip
        rows = ["## Every landmark, most improved first", landmarks.markdown()]
        text = "\n\n".join([*page, *rows]) + "\n"
        (unfinished / PAGE).write_text(text, encoding="utf-8")
    return "\n\n".join(page)


def _side_by_side(
    before: Table, after: Table, names: tuple[str, str], titles: Sequence[str] | None = None
) -> Table:
    """Two tables with the same rows as one, column by column."""
    header = [f"{title} {name}" for title in titles or before.header[1:] for name in names]
    rows = []
    for one, two in zip(before.rows, after.rows, strict=True):
        pairs = zip(one[1:], two[1:], strict=True)
        rows.append((one[0], *(cell for pair in pairs for cell in pair)))
    return Table((before.header[0], *header), rows)


def _brief(groups: Table) -> Table:
    """The columns of a table of groups that a person compares."""
    kept = [0] + [n for n, name in enumerate(groups.header) if name.split()[0] in _BRIEF]
    rows = [[row[n] for n in kept] for row in groups.rows]
    return Table([groups.header[n] for n in kept], rows)


def _landmarks(
    labels: Sequence[str], old: FloatArray, new: FloatArray, change: FloatArray
) -> Table:
    means = [nan_mean(values) for values in (old, new, change)]
    order = np.argsort(means[2])  # NaN last
    rows = [(labels[n], *(float(mean[n]) for mean in means)) for n in order]
    return Table(("landmark", "before", "after", "change"), rows)
