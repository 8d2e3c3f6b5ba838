"""Error tables: distances summarised per group or landmark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from BrainLandmarksLib.agreement.summaries import DETECTION_RATES_MM, summary
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol import Protocol


@dataclass(frozen=True)
class ErrorTable:
    """Radial errors (Euclidean distance, mm) summarised per group or landmark, and over all."""

    rows: tuple[tuple[str, dict[str, float]], ...]
    kind: str = "group"

    @classmethod
    def of(cls, protocol: Protocol, errors: FloatArray) -> ErrorTable:
        """Table of (n, K) errors per group; NaN where truth or prediction is missing."""
        rows = []
        for group in protocol.groups:
            columns = [index - 1 for index in group.indices]
            rows.append((group.name, summary(errors[:, columns])))
        rows.append(("All", summary(errors)))
        return cls(tuple(rows))

    @classmethod
    def per_landmark(cls, protocol: Protocol, errors: FloatArray) -> ErrorTable:
        """Table of (n, K) errors per landmark."""
        rows = [(label, summary(column)) for label, column in zip(protocol.labels, errors.T)]
        return cls((*rows, ("All", summary(errors))), "landmark")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(self.rows)

    def markdown(self) -> str:
        """A Markdown table, millimetres and per cent."""
        rates = [f"SDR@{limit:g} mm" for limit in DETECTION_RATES_MM]
        rows = [
            (
                name,
                int(v["count"]),
                *(v.get(key, math.nan) for key in ("mean", "median", "p90")),
                *(_per_cent(v, f"sdr_{limit:g}") for limit in DETECTION_RATES_MM),
            )
            for name, v in self.rows
        ]
        header = (self.kind, "n", "mean", "median", "p90", *rates)
        return Table(header, rows, words=1).markdown()

    def numbers(self) -> Table:
        """All numbers, shares from 0 to 1, as a table for a spreadsheet."""
        names = ["mean", "std", "median", "p90", *(f"sdr_{mm:g}" for mm in DETECTION_RATES_MM)]
        rows = [
            (name, int(v["count"]), *(v.get(key, math.nan) for key in names))
            for name, v in self.rows
        ]
        return Table((self.kind, "n", *names), rows)


def _per_cent(values: dict[str, float], key: str) -> str:
    return f"{100 * values[key]:.1f} %" if key in values else "-"
