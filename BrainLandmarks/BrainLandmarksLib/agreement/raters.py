"""How far people who mark the same landmark are from their consensus: a scale for any distance.

The numbers come from published files of raters (`docs/raters.py` makes the table from them). The
distance of a rater is that to the median of the *other* raters of the image, so that nobody is
compared with himself.

>>> raters = Raters.of_protocol("afids32")
>>> raters.percentile("PMJ", 1.2)       # so many of a hundred raters were nearer
71.3
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.protocol import Protocol

STEPS = tuple(range(0, 101, 2))
"""Percentiles that the table has."""

FEWEST = 2
"""Other raters whose median is a consensus."""


@dataclass(frozen=True)
class Raters:
    """Distances of raters from their consensus.

    Args:
        protocol: Name of the landmarks.
        source: Who published the files, and where.
        licence: Of the files.
        count: By label, how many distances there are.
        quantiles_mm: By label, (len(STEPS),) at `STEPS`.
    """

    protocol: str
    source: str
    licence: str
    count: Mapping[str, int]
    quantiles_mm: Mapping[str, FloatArray]

    @classmethod
    def of_protocol(cls, name: str) -> Raters | None:
        """The table that comes with the library for a protocol; None if there is none."""
        path = resources.raters_file(name)
        if not path.is_file():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            data["protocol"],
            data["source"],
            data["licence"],
            {label: entry["count"] for label, entry in data["landmarks"].items()},
            {label: np.array(entry["mm"]) for label, entry in data["landmarks"].items()},
        )

    def percentile(self, label: str, mm: float) -> float:
        """How many of a hundred raters were nearer to their consensus than this, 0 to 100.

        NaN for a landmark that nobody has rated.
        """
        if label not in self.quantiles_mm or not math.isfinite(mm):
            return math.nan
        return float(np.interp(mm, self.quantiles_mm[label], STEPS))

    def to_json(self) -> str:
        """The table as a text, a line for each landmark."""
        lines = [
            f"    {json.dumps(label)}: "
            + json.dumps({"count": self.count[label], "mm": np.round(values, 3).tolist()})
            for label, values in self.quantiles_mm.items()
        ]
        head = {"protocol": self.protocol, "source": self.source, "licence": self.licence}
        start = json.dumps({**head, "percentiles": list(STEPS)}, ensure_ascii=False)[1:-1]
        return f'{{\n  {start},\n  "landmarks": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


def rated(
    protocol: Protocol,
    images: Mapping[str, Mapping[str, Sequence[FloatArray]]],
    source: str,
    licence: str,
) -> Raters:
    """The table of raters' distances.

    Args:
        images: Name of an image to rater to his points on it, (K, 3) mm each, NaN where missing;
            more than one where he has marked it again.
    """
    distances: list[FloatArray] = []
    for raters in images.values():
        means = {name: np.mean(times, axis=0) for name, times in raters.items()}
        for name, times in raters.items():
            others = [mean for other, mean in means.items() if other != name]
            if len(others) < FEWEST:
                continue
            consensus = np.median(others, axis=0)
            distances += [np.linalg.norm(points - consensus, axis=1) for points in times]
    table = np.array(distances).reshape(-1, len(protocol))
    columns = {
        label: column[np.isfinite(column)] for label, column in zip(protocol.labels, table.T)
    }
    return Raters(
        protocol.name,
        source,
        licence,
        {label: len(column) for label, column in columns.items() if len(column)},
        {label: np.percentile(column, STEPS) for label, column in columns.items() if len(column)},
    )
