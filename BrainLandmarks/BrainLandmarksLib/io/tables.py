"""Tables: the same rows for a terminal, for a Markdown page and for a spreadsheet.

>>> table = Table(("group", "mean"), [("Eye", 1.2345), ("Brain Stem", math.nan)], digits=2)
>>> print(table.plain())
group       mean
Eye         1.23
Brain Stem     -
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from BrainLandmarksLib.io.atomic import atomic_write


@dataclass(frozen=True)
class Table:
    """Rows under a header; a cell is a text, a whole number or a float.

    Args:
        header: Names of the columns.
        rows: Cells, as many in each row as there are columns.
        digits: Decimals of floats in the printed forms; the CSV file has four.
        words: How many of the first columns are words, where numbers come as texts; by default
            the cells decide which columns are numbers.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    digits: int = 2
    words: int | None = None

    def plain(self) -> str:
        """Aligned text for a terminal, numbers to the right."""
        lines = [[str(name) for name in self.header], *self._printed()]
        numeric = self._numeric()
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in lines
        )

    def markdown(self) -> str:
        """A Markdown table, numbers to the right."""
        rule = ["---:" if right else "---" for right in self._numeric()]
        lines = [self.header, rule, *self._printed()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a comma-separated file; NaN cells are empty.

        Raises:
            UserError: the file cannot be written.
        """
        with (
            atomic_write(path) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.header)
            writer.writerows([_exact(cell) for cell in row] for row in self.rows)

    def write_tsv(self, path: str | os.PathLike[str]) -> None:
        """Write a table as BIDS has them: tabs between cells, n/a for NaN.

        Raises:
            UserError: the file cannot be written.
        """
        lines = [self.header, *([_exact(cell) for cell in row] for row in self.rows)]
        text = "".join("\t".join(_cell(cell) for cell in line) + "\n" for line in lines)
        with atomic_write(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", newline="\n")

    def _printed(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [self._print(cell) for cell in row]

    def _print(self, cell: Any) -> str:
        if isinstance(cell, float):
            # Adding 0.0 turns a negative zero into a zero.
            return f"{round(cell, self.digits) + 0.0:.{self.digits}f}" if _finite(cell) else "-"
        return str(cell)

    def _numeric(self) -> list[bool]:
        if self.words is not None:
            return [k >= self.words for k in range(len(self.header))]
        return [
            bool(self.rows) and all(isinstance(row[k], int | float) for row in self.rows)
            for k in range(len(self.header))
        ]


def _finite(cell: float) -> bool:
    return math.isfinite(cell)


def _cell(cell: Any) -> str:
    """A cell of a .tsv file; no tab or line break can stand in one."""
    return " ".join(str(cell).split()) or "n/a"


def _exact(cell: Any) -> Any:
    if isinstance(cell, float):
        return f"{round(cell, 4) + 0.0:.4f}" if _finite(cell) else ""
    return cell
