"""`brainlandmarks distance`: how far two landmark files of one head are apart."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from BrainLandmarksLib.protocol import Protocol
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

_EXAMPLE = """\
examples:
  brainlandmarks distance found.mrk.json truth.mrk.json
  brainlandmarks distance results/ch2_landmarks.mrk.json sample:colin27
      against the points that were placed by eye on the sample head
  brainlandmarks distance found.mrk.json expert.fcsv --reference-protocol afids32
      compares the landmarks that are the same point as one of the 32 AFIDs, and says how many of
      a hundred human raters were nearer to their consensus
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "distance",
        help="compare two landmark files of one head",
        description="Print the distance in mm between the landmarks of two files, each .mrk.json, "
        ".csv or .fcsv.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("found", metavar="FOUND", type=Path, help="landmark file to judge")
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="landmark file to trust, or sample:colin27 for the sample head's",
    )
    parser.add_argument(
        "--protocol", default="brain88", metavar="NAME|FILE", help="protocol of FOUND (brain88)"
    )
    parser.add_argument(
        "--reference-protocol",
        metavar="NAME|FILE",
        help="protocol of REFERENCE, if another; landmarks are then matched by their AFID number",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per landmark that both files have, and a summary; returns 0.

    Raises:
        UserError: a file cannot be read, the two have no landmark in common, or the head lies the
            other way round in one of them.
    """
    from BrainLandmarksLib.io.landmarks import read_landmarks
    from BrainLandmarksLib.protocol import load_protocol
    from BrainLandmarksLib.protocol.compliance import need_one_way_round

    protocol = load_protocol(arguments.protocol)
    other = load_protocol(arguments.reference_protocol or arguments.protocol)
    path = resources.landmarks_path(arguments.reference, other.name)
    found = read_landmarks(arguments.found, protocol, any_pose=True)
    reference = read_landmarks(path, other, any_pose=True)
    need_one_way_round([(arguments.found, found), (path, reference)])
    rows = distances(found, reference)
    if not rows:
        raise UserError(
            "the two files have no landmark in common; check --protocol and --reference-protocol."
        )
    width = max(len(label) for label, _ in rows)
    scale = _raters_of(other, protocol)
    for label, distance in rows:
        nearer = scale(label, distance)
        human = f"  {nearer:3.0f} % of raters were nearer" if np.isfinite(nearer) else ""
        print(f"{label:<{width}}  {distance:7.2f} mm{human}")
    values = [distance for _, distance in rows]
    print(
        f"{len(rows)} landmarks: mean {np.mean(values):.2f} mm, median {np.median(values):.2f} mm, "
        f"largest {np.max(values):.2f} mm"
    )
    return 0


def _raters_of(reference: Protocol, found: Protocol) -> Callable[[str, float], float]:
    """A function of a landmark of FOUND and a distance, mm: how many of 100 raters were nearer.

    NaN where nobody has measured how far raters of the reference are from their consensus.
    """
    from BrainLandmarksLib.agreement.raters import Raters

    raters = Raters.of_protocol(reference.name)
    partners = _partners(found, reference)

    def nearer(label: str, mm: float) -> float:
        if raters is None or label not in partners:
            return float("nan")
        return raters.percentile(reference.labels[partners[label]], mm)

    return nearer


def distances(found: LandmarkSet, reference: LandmarkSet) -> list[tuple[str, float]]:
    """(label, mm) of every landmark that both sets have.

    Landmarks are the same if they have the same label in the same protocol, or the same AFID in
    different ones.
    """
    partners = _partners(found.protocol, reference.protocol)
    rows = []
    for row, label in enumerate(found.protocol.labels):
        if label not in partners:
            continue
        distance = float(np.linalg.norm(found.points[row] - reference.points[partners[label]]))
        if np.isfinite(distance):
            rows.append((label, distance))
    return rows


def _partners(found: Protocol, reference: Protocol) -> dict[str, int]:
    """Label of a landmark -> row of the same one in another protocol, where that has it."""
    if found.hash == reference.hash:
        return {label: row for row, label in enumerate(found.labels)}
    rows = {other.afid: row for row, other in enumerate(reference) if other.afid is not None}
    return {own.label: rows[own.afid] for own in found if own.afid in rows}
