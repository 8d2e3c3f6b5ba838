"""The held-out report: error table, errors as numbers, confidence against error."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from BrainLandmarksLib.decoding import Calibration
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.files import whole_file
from BrainLandmarksLib.images import stem
from BrainLandmarksLib.models import Model

from .evaluation import ErrorTable, HeldOut, after_corrections, measure
from .heads import find_label_maps, read_annotated

ANATOMIES = {"own": "Held-out heads", "deformed": "Deformed copies of them"}
"""What is measured, and its title."""

CORRECTIONS = (3, 5, 10)
"""How many points of a head a person corrects before the others follow."""


def held_out_report(
    model: Model,
    label_maps: Sequence[Path],
    heads: Sequence[str] | None,
    folder: Path,
    *,
    scans: int = 10,
    device: str = "auto",
) -> str:
    """Measure a model, write ``errors.csv``, ``errors.md`` and ``confidence.png``.

    Args:
        heads: stems of the label maps to use; by default those the model says were held out.

    Returns:
        The error table as Markdown.

    Raises:
        UserError: a head is not among the label maps, or none is named.
    """
    names = list(heads or model.spec.held_out.get("heads", ()))
    if not names:
        raise UserError("the model does not say which heads were held out; name them with --heads.")
    paths = {stem(path): path for path in find_label_maps(label_maps)}
    absent = [name for name in names if name not in paths]
    if absent:
        raise UserError(f"there is no label map {absent[0]} in --label-maps; choose with --heads.")
    maps = read_annotated([paths[name] for name in names], model.protocol, folder / "annotations")
    results = measure(model, maps, scans, folder / "offspring", device)
    result = HeldOut.joined(results.values())
    table = "\n\n".join(
        f"{title}:\n\n{ErrorTable.of(model.protocol, results[name].errors).markdown()}"
        for name, title in ANATOMIES.items()
    )
    calibration = model.spec.calibration
    if model.shape is not None and calibration is not None:
        rows = [
            f"| {count} | {before:.2f} | {after:.2f} |"
            for count in CORRECTIONS
            for before, after in [after_corrections(result, model.shape, calibration, count)]
        ]
        header = "| corrected points | mean error of the others before | after |\n|---|---|---|"
        table = "\n".join([table, "", header, *rows])
    with whole_file(folder / "errors.md") as path:
        path.write_text(table + "\n", encoding="utf-8")
    with whole_file(folder / "errors.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "head", *model.protocol.labels])
        for number, (name, errors) in enumerate(zip(result.heads, result.errors), start=1):
            writer.writerow([number, name, *(f"{e:.3f}" for e in errors)])
    with whole_file(folder / "confidence.png") as path:
        draw_confidence(result, model.spec.calibration, path)
    return table


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
        table = result.calibration(without=name if len(names) > 1 else None, feature=feature)
        confidence[rows] = table(result.features[rows])
    good = np.isfinite(confidence) & np.isfinite(result.errors)
    p, error = confidence[good], result.errors[good]
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
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
    bins = np.array_split(order, 10)
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
    figure.savefig(path, dpi=110, format="png")
