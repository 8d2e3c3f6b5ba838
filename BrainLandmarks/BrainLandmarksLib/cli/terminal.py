"""What every command prints on standard error: errors, notes, and how far it has come."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from BrainLandmarksLib import PROGRAM

ERROR = f"{PROGRAM}: error: "
"""What an error sentence begins with."""

COUNT = "{percentage:3.0f} %|{bar:30}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
"""The bar of `progress`; for the names see tqdm."""

_bar: Any = None


def report(sentence: object) -> None:
    """Print one error sentence, where the bar is."""
    clear()
    print(f"{ERROR}{sentence}", file=sys.stderr, flush=True)


def notes(clauses: Iterable[str]) -> None:
    """Print what is worth knowing and stops nothing, a line each, where the bar is."""
    for clause in clauses:
        clear()
        print(f"{PROGRAM}: note: {clause}.", file=sys.stderr, flush=True)


def progress(done: int, total: int, name: str) -> None:
    """A bar on the terminal's last line; on a log file one line per item; none for one item."""
    if total == 1:
        return
    if done == total:
        clear()
    elif sys.stderr.isatty():
        draw(done, total, name[:40], COUNT)
    else:
        print(f"[{done + 1}/{total}] {name}", file=sys.stderr, flush=True)


def draw(done: float, total: float, note: str, layout: str, title: str = "") -> None:
    """Draw the bar on a terminal, in the place of one of the same total and title."""
    global _bar
    if _bar is None or (_bar.total, _bar.desc) != (total, title):
        clear()
        from tqdm import tqdm

        _bar = tqdm(desc=title, total=total, initial=done, bar_format=layout, leave=bool(title))
    _bar.n = done
    _bar.set_postfix_str(note)


def clear() -> None:
    """End the bar, so that a line can be printed; one with a title stays to be seen."""
    global _bar
    if _bar is not None:
        _bar.close()
        _bar = None
