"""Is it worth joining? Models measured on each site's own held-out scans, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.model_files import load_model
from BrainLandmarksTrainLib.evaluation.comparison import Comparison
from BrainLandmarksTrainLib.evaluation.model_comparison import fair_entries

PAGE, NUMBERS = "federation.md", "federation.csv"

_MEANINGS = {
    "before": "the model at the start",
    "local": "each site trained alone",
    "federated": "the sites trained together",
    "pooled": "one training on the scans of all sites",
}


def compare_sites(
    sites: Sequence[Path],
    columns: Mapping[str, Sequence[str | Path]],
    folder: Path,
    device: str = "auto",
    on_scan: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> str:
    """Measure models at sites and write a page and its numbers.

    Args:
        sites: Dataset folders; the held-out scans of each are measured on.
        columns: "before", "local", "federated" and "pooled", to one model for all sites, one for
            each, or none.

    Returns:
        The page, Markdown.

    Raises:
        UserError: a model or a dataset cannot be used, or there are models for other sites.
    """
    chosen = {}
    for name, models in columns.items():
        if models:
            if len(models) not in (1, len(sites)):
                raise UserError(
                    f"--{name} has {len(models)} models for {len(sites)} sites; give one for all "
                    "or one for each."
                )
            chosen[name] = list(models) * (len(sites) if len(models) == 1 else 1)
    errors: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    rows, notes = [], set()
    for number, place in enumerate(sites):
        dataset = Dataset.open(place)
        entries, which = fair_entries(dataset)
        notes.add(which)
        cells: list[object] = []
        for name, models in chosen.items():
            model = load_model(models[number])
            found = Comparison.of_model(model, dataset, entries, device, on_scan)
            errors[name].append(found.errors.ravel())
            cells += [_mean(found.errors), int(found.missed.sum())]
        rows.append((f"site {number + 1}", len(entries), *cells))
    if len(sites) > 1:
        last: list[object] = []
        for name in chosen:
            last += [_mean(np.concatenate(errors[name])), ""]
        rows.append(("all", sum(int(row[1]) for row in rows), *last))  # type: ignore[call-overload]
    header = ["", "scans"]
    for name in chosen:
        header += [f"{name}, mm", f"{name}, missed"]
    table = Table(header, rows)
    meanings = "; ".join(f"*{name}*: {_MEANINGS[name]}" for name in chosen)
    page = "\n\n".join(
        [
            "# What each site has of it",
            f"Mean radial error on each site's own scans, mm, and landmarks missed. {meanings}.",
            *sorted(notes),
            table.markdown(),
        ]
    )
    with atomic_writes(folder) as unfinished:
        (unfinished / PAGE).write_text(page + "\n", encoding="utf-8")
        table.write_csv(unfinished / NUMBERS)
    return page


def _mean(errors: np.ndarray) -> float:
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if len(known) else float("nan")
