"""What a person sees of a training: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys

from BrainLandmarksLib.cli import terminal

LAYOUT = "{desc} {percentage:3.0f} %|{bar}| {elapsed} + {remaining}{postfix}"


def report(line: str) -> None:
    """A line of its own, above the bar."""
    terminal.clear()
    print(line, flush=True)


def row(part: str, row: dict[str, float]) -> None:
    """A row of a network's log."""
    text = f"loss {row['total']:.3f}, "
    if "error_mm" in row:
        text += f"error {row['error_mm']:.1f} mm"
    else:
        text += f"Dice {1 - row['dice_loss']:.3f}"
    if sys.stderr.isatty():
        terminal.draw(100 * row["progress"], 100.0, text, LAYOUT, part)
        return
    left = row["seconds"] * (1 / max(row["progress"], 1e-9) - 1)
    print(
        f"{part} step {row['step']:.0f}, {100 * row['progress']:.0f} %, {text}, "
        f"{row['samples_per_second']:.2f} scans/s, {_time(row['seconds'])} so far, "
        f"{_time(left)} left",
        flush=True,
    )


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
