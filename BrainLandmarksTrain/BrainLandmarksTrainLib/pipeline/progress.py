"""How far a training has come, from the tables in its folder; needs no PyTorch.

>>> progress = read_progress(Path("runs/tuned"))
>>> progress[-1].part, progress[-1].share, progress[-1].left_s
('fine', 0.4, 310.0)
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from BrainLandmarksLib.network import PARCELLATION, PARTS
from BrainLandmarksTrainLib.engine.logs import EPOCHS_FILE, STEPS_FILE

_ERRORS = {PARCELLATION: ("dice_loss", "validation_dice_loss")}


@dataclass(frozen=True)
class Curve:
    """Numbers over the steps of a run."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingProgress:
    """One network's training.

    Args:
        part: One of `PARTS`, or `PARCELLATION`.
        step: The last one that is in the table.
        share: How much of the run is done, 0 to 1.
        left_s: Seconds that the rest takes at the pace so far.
        loss: The loss; ``error``: the radial error of the training scans, mm, or the Dice loss
            of a parcellation; ``validation``: that of scans that training does not see.
    """

    part: str
    step: int
    share: float
    left_s: float
    loss: Curve
    error: Curve
    validation: Curve


def read_progress(output: Path) -> list[TrainingProgress]:
    """The networks of a run that have begun, in order."""
    found = []
    for part in (*PARTS, PARCELLATION):
        steps = _rows(output / part / STEPS_FILE)
        if not steps:
            continue
        error, validation = _ERRORS.get(part, ("error_mm", "validation_mm"))
        share = steps[-1]["progress"]
        left = steps[-1]["seconds"] * (1 / max(share, 1e-9) - 1)
        found.append(
            TrainingProgress(
                part,
                int(steps[-1]["step"]),
                share,
                left,
                _curve(steps, "total"),
                _curve(steps, error),
                _curve(_rows(output / part / EPOCHS_FILE), validation),
            )
        )
    return found


def _curve(rows: list[dict[str, float]], name: str) -> Curve:
    known = [row for row in rows if name in row]
    return Curve([row["step"] for row in known], [row[name] for row in known])


def _rows(path: Path) -> list[dict[str, float]]:
    """The whole rows of a table that may be written to at this moment; empty cells are left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = list(csv.reader(file))
    except OSError:
        return []
    rows = []
    for cells in table[1:]:
        if len(cells) == len(table[0]):
            try:
                rows.append({k: float(v) for k, v in zip(table[0], cells) if v})
            except ValueError:
                continue
    return rows
