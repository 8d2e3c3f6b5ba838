"""What every command prints on standard error: errors, notes, and how far it has come."""

from __future__ import annotations

import sys
from collections.abc import Iterable

PROGRAM = "brainlandmarks"

ERROR = f"{PROGRAM}: error: "
"""What an error sentence begins with."""


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
    if not sys.stderr.isatty():
        if done < total:
            print(f"[{done + 1}/{total}] {name}", file=sys.stderr, flush=True)
        return
    clear()
    if done < total:
        filled = round(30 * done / total)
        bar = "#" * filled + "." * (30 - filled)
        print(f"[{bar}] {done}/{total} {name[:40]}", end="", file=sys.stderr, flush=True)


def clear() -> None:
    """Take the bar away, so that a line can be printed."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
