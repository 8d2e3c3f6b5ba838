"""Tables that people and spreadsheets write: separators, decimal commas, surplus cells.

A table is read only if there is one way to read it. ``-13,1915`` is two cells where commas separate
and one number where semicolons do; a row with more cells than its header is refused, because which
of them is too many is unknown.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from BrainLandmarksLib.errors import UserError

SEPARATORS = (",", ";", "\t")

# Neither "nan" and "inf" nor Python's 1_000.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# What Excel writes on top of a table, so that it opens it again.
_SEPARATOR_LINE = re.compile(r"\"?sep=(.)\"?\s*")


@dataclass(frozen=True)
class Sheet:
    """The rows of a table by the names of its columns; every cell without spaces around it."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    separator: str


def read_sheet(name: str, text: str) -> Sheet:
    """Read a table whose first row names its columns, in any case; empty rows are left out.

    Args:
        name: What to call the table in an error.

    Raises:
        UserError: a column twice, a row with more cells than columns, or quotes that do not fit.
    """
    stated = _SEPARATOR_LINE.fullmatch(text.split("\n", 1)[0])
    if stated:
        text = text.partition("\n")[2]
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = stated[1] if stated else separator_of([header])
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise UserError(f"{name} is not a table that can be read: {error}.") from error
    table = [cells for line in lines if any(cells := [cell.strip() for cell in line])]
    if not table:
        return Sheet((), [], separator)
    columns = [column.lower() for column in table[0]]
    while not columns[-1]:
        columns.pop()
    twice = next((c for c in columns if c and columns.count(c) > 1), None)
    if twice:
        raise UserError(f"{name} has the column {twice} twice; remove one of the two.")
    rows = []
    for cells in table[1:]:
        # A spreadsheet fills the header and the rows up to the longest of them.
        while len(cells) > len(columns) and len(cells) <= len(table[0]) and not cells[-1]:
            cells.pop()
        need_no_surplus(name, cells, columns, cells[0])
        rows.append(dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=True)))
    return Sheet(tuple(columns), rows, separator)


def separator_of(lines: Iterable[str]) -> str:
    """What separates the cells of some lines: what all of them have most of, else a comma."""
    outside = [re.sub(r'"[^"]*"', "", line) for line in lines]
    counts = {s: min((line.count(s) for line in outside), default=0) for s in SEPARATORS}
    return max(SEPARATORS, key=counts.__getitem__)


def need_no_surplus(name: str, cells: Sequence[str], columns: Sequence[str], row: str) -> None:
    """Refuse a row with more cells than there are columns.

    Raises:
        UserError: it has; the sentence says what most likely happened.
    """
    if len(cells) > len(columns):
        raise UserError(
            f"{name}, row {row}: {len(cells)} cells for {len(columns)} columns; if the numbers "
            "have decimal commas, write them with points, or separate the cells by semicolons."
        )


def number(text: str) -> float:
    """A number as a person writes it, with a decimal point; NaN for everything else."""
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def coordinates_of(place: str, cells: Sequence[str], separator: str) -> list[float]:
    """The three numbers of a point; with decimal commas where commas do not separate the cells.

    Args:
        place: What to call the point in an error.

    Raises:
        UserError: they are not three finite numbers, or their commas may mean two things.
    """
    if any("," in cell for cell in cells):
        if separator == "," or any("." in cell for cell in cells):
            raise UserError(
                f"{place}: the position {' '.join(cells)} has commas within its numbers; write "
                "them with decimal points."
            )
        cells = [cell.replace(",", ".") for cell in cells]
    numbers = [number(cell) for cell in cells]
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise UserError(f"{place}: the position is not three numbers.")
    return numbers
