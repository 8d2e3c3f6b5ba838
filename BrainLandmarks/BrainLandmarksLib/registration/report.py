"""What a registration found, as tables and as plain numbers for a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.registration.register import Registration

ALL = "All"

NEIGHBOURHOOD_MM = 20.0
"""Folds of a map of space are looked for this far around the landmarks."""


def region_table(found: Registration) -> Table:
    """Errors of each sub-anatomy and of all: landmarks, expected, left out, distance (mm)."""
    groups = [(g.name, slice(g.first - 1, g.last)) for g in found.protocol.groups]
    rows = []
    for name, members in (*groups, (ALL, slice(None))):
        rows.append(
            (
                name,
                int(found.there[members].sum()),
                int(found.used[members].sum()),
                _root_mean_square(found.target_errors[members]),
                _median(found.left_out_mm[members]),
                _median(found.distances[members]),
            )
        )
    header = ("region", "landmarks", "used", "target error", "left out, median", "distance, median")
    return Table(header, rows, words=1)


def landmark_table(found: Registration) -> Table:
    """A row for each landmark: where it is carried to, how exact that is, and if it had a say."""
    carried, distances = found.carried(found.moving), found.distances
    rows = [
        (
            landmark.label, landmark.group, *map(float, carried[k]), float(distances[k]),
            float(found.left_out_mm[k]), float(found.target_errors[k]), float(found.sigma[k]),
            "yes" if found.used[k] else "no",
        )
        for k, landmark in enumerate(found.protocol.landmarks)
    ]  # fmt: skip
    header = (
        "landmark", "group", "r", "a", "s", "distance_mm", "left_out_mm", "target_error_mm",
        "expected_error_mm", "used",
    )  # fmt: skip
    return Table(header, rows)


def wrong(found: Registration) -> list[str]:
    """Labels of the landmarks that both heads have and that had no say."""
    lost = found.there & ~found.used
    return [label for label, out in zip(found.protocol.labels, lost) if out]


def fold_free(found: Registration) -> bool:
    """Whether a map of space keeps its sides around the landmarks; a linear one does."""
    if found.plate is None:
        return True
    there = found.fixed[np.isfinite(found.fixed).all(axis=1)]
    rng = np.random.default_rng(0)
    around = np.concatenate(
        [there, *(there + rng.uniform(-1, 1, there.shape) * NEIGHBOURHOOD_MM for _ in range(10))]
    )
    return bool((found.plate.volume_change(around) > 0).all())


def record(found: Registration, moving: str, fixed: str) -> dict[str, Any]:
    """Everything but the landmarks' rows, as plain JSON values.

    Args:
        moving, fixed: Names of the heads.
    """
    regions = region_table(found)
    matrix: FloatArray = found.affine
    return {
        "moving": moving,
        "fixed": fixed,
        "kind": found.kind,
        "protocol": found.protocol.name,
        "coordinates": "RAS, mm",
        "moving_to_fixed": [[round(float(x), 8) for x in row] for row in matrix],
        "turned_degrees": round(found.turn_degrees, 3),
        "landmarks": int(found.there.sum()),
        "used": int(found.used.sum()),
        "left_out_as_wrong": wrong(found),
        "expected_errors_from": {"moving": found.errors_from[0], "fixed": found.errors_from[1]},
        "apart_over_expected": round(found.scale, 4),
        "fold_free": fold_free(found),
        "regions_mm": {
            row[0]: {
                key: _plain(value)
                for key, value in zip(
                    ("landmarks", "used", "target_error", "left_out_median", "distance_median"),
                    row[1:],
                )
            }
            for row in regions.rows
        },
    }


def _plain(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return round(value, 4) if np.isfinite(value) else None


def _root_mean_square(values: FloatArray) -> float:
    there = values[np.isfinite(values)]
    return float(np.sqrt((there**2).mean())) if len(there) else float("nan")


def _median(values: FloatArray) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else float("nan")
