"""A head followed over time: every later scan against the first, as tables and plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.registration.follow_up import LEVEL, Change


def landmark_table(changes: Mapping[str, Change]) -> Table:
    """A row for each time and landmark.

    Args:
        changes: By the name of the later scan, in order of time.
    """
    rows = [
        (
            time, move.label, move.group, *map(float, move.mm), move.length_mm, move.expected_mm,
            move.z, _p(move.p), _yes(move.changed), _yes(move.stable),
        )
        for time, change in changes.items()
        for move in change.moves
    ]  # fmt: skip
    header = (
        "time", "landmark", "group", "r_mm", "a_mm", "s_mm", "moved_mm", "expected_mm", "z", "p",
        "changed", "aligned_by",
    )  # fmt: skip
    return Table(header, rows)


def distance_table(changes: Mapping[str, Change]) -> Table:
    """A row for each time and distance of the protocol."""
    rows = [
        (
            time, growth.name, growth.before_mm, growth.after_mm, growth.mm, growth.expected_mm,
            growth.z, _p(growth.p), _yes(growth.changed),
        )
        for time, change in changes.items()
        for growth in change.distances
    ]  # fmt: skip
    header = (
        "time", "distance", "baseline_mm", "mm", "difference_mm", "expected_mm", "z", "p",
        "changed",
    )  # fmt: skip
    return Table(header, rows)


def changed_table(changes: Mapping[str, Change]) -> Table:
    """What is more than error, of all times: what, by how much, and how sure."""
    rows: list[tuple[Any, ...]] = []
    for time, change in changes.items():
        rows += [
            (time, m.label, m.length_mm, m.expected_mm, m.z) for m in change.moves if m.changed
        ]
        rows += [(time, d.name, d.mm, d.expected_mm, d.z) for d in change.distances if d.changed]
    return Table(("time", "changed", "mm", "expected", "z"), rows)


def summary_table(changes: Mapping[str, Change]) -> Table:
    """One row for each time."""
    rows = [
        (
            time,
            len(change.moves),
            sum(move.stable for move in change.moves),
            float(np.median([move.length_mm for move in change.moves])),
            float(np.median([move.expected_mm for move in change.moves])),
            change.scale,
            len(change.changed),
        )
        for time, change in changes.items()
    ]
    header = ("time", "landmarks", "stable", "moved, median", "expected", "apart/exp.", "changed")
    return Table(header, rows, words=1)


def record(baseline: str, changes: Mapping[str, Change]) -> dict[str, Any]:
    """The results as plain JSON values.

    Args:
        baseline: Its name.
    """
    return {
        "baseline": baseline,
        "protocol": next(iter(changes.values())).protocol.name,
        "coordinates": "RAS of the baseline, mm",
        "level": LEVEL,
        "corrected_by": "Holm, over all landmarks and distances of a time",
        "times": [{"time": time, **_time(change)} for time, change in changes.items()],
    }


def arrows(protocol: Protocol, change: Change) -> tuple[np.ndarray, np.ndarray]:
    """(K, 3) displacements, NaN where there is none, and (K,) whether they are more than error."""
    moved, flags = np.full((len(protocol), 3), np.nan), np.zeros(len(protocol), dtype=bool)
    for move in change.moves:
        row = protocol.by_label(move.label).index - 1
        moved[row], flags[row] = move.mm, move.changed
    return moved, flags


def _time(change: Change) -> dict[str, Any]:
    return {
        "to_baseline": [[round(float(x), 8) for x in row] for row in change.affine],
        "expected_errors_from": {"baseline": change.errors_from[0], "time": change.errors_from[1]},
        "apart_over_expected": round(change.scale, 4),
        "aligned_by": [move.label for move in change.moves if move.stable],
        "changed": change.changed,
        "landmarks": {
            move.label: {
                "mm": [round(float(x), 4) for x in move.mm],
                "moved_mm": round(move.length_mm, 4),
                **_numbers(move.expected_mm, move.z, move.p, move.changed),
            }
            for move in change.moves
        },
        "distances": {
            growth.name: {
                "baseline_mm": round(growth.before_mm, 4),
                "mm": round(growth.after_mm, 4),
                **_numbers(growth.expected_mm, growth.z, growth.p, growth.changed),
            }
            for growth in change.distances
        },
    }


def _numbers(expected: float, z: float, p: float, changed: bool) -> dict[str, Any]:
    return {"expected_mm": round(expected, 4), "z": round(z, 3), "p": p, "changed": changed}


def _p(value: float) -> str:
    return f"{value:.2g}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
