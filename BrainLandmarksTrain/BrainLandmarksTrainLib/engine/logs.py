"""The records of a run: a table of steps, a table of epochs, TensorBoard's events.

A run that was killed takes some steps again; its tables lose the rows of these steps first, so they
read like those of a run that was never stopped.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the tables are also read where there is no PyTorch
    from .tasks import Task

STEPS_FILE = "log.csv"
EPOCHS_FILE = "epochs.csv"
TENSORBOARD_FOLDER = "tensorboard"

LogRow = Mapping[str, float]


def step_fields(task: Task) -> tuple[str, ...]:
    """Columns of the table of steps."""
    return (
        "step", "seconds", "total", *task.values, "learning_rate", "gradient_norm",
        "samples_per_second", "waiting_share", "progress",
    )  # fmt: skip


def epoch_fields(task: Task) -> tuple[str, ...]:
    """Columns of the table of epochs."""
    return (
        "epoch", "step", "seconds", "total", *task.values, task.validation, "learning_rate",
        "samples_per_second", "waiting_share",
    )  # fmt: skip


class Log:
    """Takes the rows of a run and keeps none: what all processes but the first have."""

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def step(self, row: LogRow) -> None:
        """One step."""

    def epoch(self, row: LogRow) -> None:
        """One epoch."""

    def close(self) -> None:
        """Nothing more will come."""


class RunLog(Log):
    """Writes the records of a run, from a step on.

    >>> with RunLog(folder, step=0, every=20, tensorboard=True, task=HeatmapTask(config)) as log:
    ...     log.step({"step": 1, "total": 3.1, ...})
    ...     log.epoch({"epoch": 1, "step": 200, ...})

    Args:
        folder: of the run.
        step: the last step that counts; what the files say of later ones is dropped.
        every: steps that a row of the first table is the mean of.
        tensorboard: whether to write TensorBoard's events.
        task: says what there is to write.
        on_row: called with every row of the first table.
        pending: steps up to ``step`` that are not in the table yet, which a run that goes on takes
            from its checkpoint; the list is kept up to date.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        every: int,
        tensorboard: bool,
        task: Task,
        on_row: Callable[[dict[str, float]], None] | None = None,
        pending: list[dict[str, float]] | None = None,
    ) -> None:
        self._every = every
        self._on_row = on_row
        self._rows = [] if pending is None else pending
        self._task = task
        self._steps = _Table(folder / STEPS_FILE, step_fields(task), step)
        self._epochs = _Table(folder / EPOCHS_FILE, epoch_fields(task), step)
        self._events: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            # Of one step the later event counts, so a resumed run hides what it takes again.
            self._events = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)

    def step(self, row: LogRow) -> None:
        """One step; the mean of every few is written."""
        self._rows.append(dict(row))
        if int(row["step"]) % self._every:
            return
        mean = {k: sum(r[k] for r in self._rows) / len(self._rows) for k in row}
        self._rows.clear()
        for last in ("step", "seconds", "progress"):
            mean[last] = row[last]
        self._steps.write(mean)
        self._event(mean, "training", ("total", *self._task.values))
        self._event(mean, "run", ("learning_rate", "samples_per_second", "waiting_share"))
        if self._on_row is not None:
            self._on_row(mean)

    def epoch(self, row: LogRow) -> None:
        """One epoch."""
        self._epochs.write(row)
        self._event(row, "validation", (self._task.validation,))

    def close(self) -> None:
        """Close the files."""
        self._steps.close()
        self._epochs.close()
        if self._events is not None:
            self._events.close()

    def _event(self, row: LogRow, group: str, names: Sequence[str]) -> None:
        if self._events is None:
            return
        for name in names:
            if name in row:
                self._events.add_scalar(f"{group}/{name}", row[name], int(row["step"]))
        self._events.flush()


class _Table:
    """A CSV file that rows are added to."""

    def __init__(self, path: Path, fields: Sequence[str], step: int) -> None:
        self._fields = _drop_rows_after(path, step) or fields
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self._fields)
        if self._file.tell() == 0:
            self._writer.writeheader()

    def write(self, row: LogRow) -> None:
        self._writer.writerow({k: _text(row.get(k)) for k in self._fields})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else f"{value:.9g}"


def _drop_rows_after(path: Path, step: int) -> Sequence[str]:
    """Remove the rows of steps that the run is going to take again; the columns that are there."""
    if not path.exists():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        return ()
    column = rows[0].index("step")
    kept = [rows[0]]
    # A process that was killed may have left half a row.
    kept += [r for r in rows[1:] if len(r) == len(rows[0]) and int(r[column]) <= step]
    if kept != rows:
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(kept)
        os.replace(unfinished, path)
    return rows[0]
