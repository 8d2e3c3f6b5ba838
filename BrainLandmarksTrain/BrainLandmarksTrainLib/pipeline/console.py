"""What a person sees of a training: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Console:
    """Shows the rows of runs.

    >>> with Console() as console:
    ...     train_model(recipe, console.report, on_log=console.row)
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._part = ""

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def report(self, line: str) -> None:
        """A line of its own, above the bar."""
        self._close()
        print(line, flush=True)

    def row(self, part: str, row: dict[str, float]) -> None:
        """A row of a network's log."""
        text = f"loss {row['total']:.3f}, error {row['error_mm']:.1f} mm"
        if not sys.stderr.isatty():
            left = row["seconds"] * (1 / max(row["progress"], 1e-9) - 1)
            print(
                f"{part} step {row['step']:.0f}, {100 * row['progress']:.0f} %, {text}, "
                f"{row['samples_per_second']:.2f} scans/s, {_time(row['seconds'])} so far, "
                f"{_time(left)} left",
                flush=True,
            )
            return
        from tqdm import tqdm

        if self._bar is None or part != self._part:
            self._close()
            self._part = part
            shown = "{desc} {percentage:3.0f} %|{bar}| {elapsed} + {remaining}, {postfix}"
            self._bar = tqdm(total=100.0, desc=part, bar_format=shown, initial=0)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(100 * row["progress"] - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
