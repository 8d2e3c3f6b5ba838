"""Scan planes of found landmarks against those of the true ones: tables, and a plot of how often
the stated intervals hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures.plots import coverage_plot
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.pairing import annotation_stem, in_common
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes.measuring import PlaneErrors, plane_errors
from BrainLandmarksLib.planes.uncertainty import LEVEL
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

ALL = "All"

Pairs = Mapping[str, tuple[LandmarkSet, LandmarkSet]]
"""Name of a head to its found and its true landmarks."""


def landmark_pairs(found: Path, truth: Path, protocol: Protocol) -> Pairs:
    """The heads of two files, or those that two folders of landmark files have in common.

    Raises:
        UserError: there are none, or a file cannot be read.
    """
    if found.is_dir():
        files, _ = in_common([found, truth], protocol)
    else:
        files = {annotation_stem(found): [found, truth]}
    return {
        name: (
            read_landmarks(of_found, protocol, status="model", any_pose=True),
            read_landmarks(of_truth, protocol, any_pose=True),
        )
        for name, (of_found, of_truth) in files.items()
    }


def write_plane_errors(
    protocol: Protocol, pairs: Pairs, errors: LandmarkErrors, folder: Path
) -> str:
    """Write ``planes.md``, ``planes.csv``, ``planes_heads.csv`` and ``planes_calibration.png``.

    Returns:
        The page, Markdown.

    Raises:
        UserError: no plane is there in both landmark sets of a head, or a file cannot be written.
    """
    measured = plane_errors(protocol, pairs, errors)
    if not any(len(each.angle) for each in measured):
        raise UserError("no head has a scan plane in both files: landmarks are missing.")
    summary = error_table(measured)
    page = [
        "# Scan planes",
        f"{len(pairs)} heads. Angle in degrees and offset in mm between the plane of the found "
        "landmarks and that of the true ones; *inside* is the share of heads on which the true "
        f"plane lies in the stated {100 * LEVEL:.0f} % interval.",
        summary.markdown(),
    ]
    ranks = np.concatenate([each.ranks for each in measured])
    known = ranks[np.isfinite(ranks).all(1)]
    text = "\n\n".join(page)
    with atomic_writes(folder) as unfinished:
        summary.write_csv(unfinished / "planes.csv")
        _every_head(measured).write_csv(unfinished / "planes_heads.csv")
        if len(known):
            path = unfinished / "planes_calibration.png"
            coverage_plot({"angle": known[:, 0], "offset": known[:, 1]}, path, LEVEL)
        (unfinished / "planes.md").write_text(text + "\n", encoding="utf-8")
    return text


def error_table(measured: list[PlaneErrors]) -> Table:
    """One row for each plane, and one for all together."""
    together = PlaneErrors(
        ALL,
        ("",) * sum(len(each.heads) for each in measured),
        *(
            np.concatenate([getattr(each, name) for each in measured])
            for name in ("angle", "offset", "ranks")
        ),
    )
    header = (
        "plane", "n", "angle median", "angle p90", "offset median", "offset p90",
        "inside by angle", "inside by offset",
    )  # fmt: skip
    rows = [
        (
            each.name,
            len(each.angle),
            *_quantiles(each.angle),
            *_quantiles(each.offset),
            *each.inside,
        )
        for each in (*measured, together)
    ]
    return Table(header, rows)


def _quantiles(values: FloatArray) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    median, p90 = np.quantile(values, (0.5, 0.9))
    return float(median), float(p90)


def _every_head(measured: list[PlaneErrors]) -> Table:
    header = ("plane", "head", "angle deg", "offset mm", "rank by angle", "rank by offset")
    rows = [
        (each.name, head, float(angle), float(offset), float(ranks[0]), float(ranks[1]))
        for each in measured
        for head, angle, offset, ranks in zip(
            each.heads, each.angle, each.offset, each.ranks, strict=True
        )
    ]
    return Table(header, rows)
