"""`brainlandmarks follow`: what has changed in a head since an earlier scan."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import heads
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from BrainLandmarksLib.cli.heads import Head
    from BrainLandmarksLib.registration.follow_up import Change

RECORD, LANDMARK_TABLE, DISTANCE_TABLE = "follow.json", "landmarks.csv", "distances.csv"
PICTURE = "follow.png"
TRANSFORM = "_to_baseline.tfm"

_EXAMPLE = """\
examples:
  brainlandmarks follow head.nii.gz head1.nii.gz head2.nii.gz -o followed
      the first scan is the baseline, the others follow in order of time
  brainlandmarks follow a.mrk.json b.csv -o followed
      landmarks that are there already
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "follow",
        help="what has changed in a head since an earlier scan",
        description="Align later scans of a head with the first one by the landmarks that stayed "
        "in place, and tell which landmarks and distances have changed by more than the expected "
        "error. Writes tables over time, a picture with arrows and the transforms.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("baseline", metavar="BASELINE", help=heads.HELP)
    parser.add_argument("later", metavar="FOLLOWUP", nargs="+", help="the same, of later times")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--retest",
        type=Path,
        metavar="FILE",
        help="retest_landmarks.csv of `brainlandmarks robustness retest`: how exactly landmarks "
        "are found again on your scanner (default: the model's errors against the truth, which "
        "are larger)",
    )
    heads.add_options(parser)
    parser.add_argument("--no-picture", action="store_true", help="write no .png")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare all later scans with the first, write the results, print the changes; returns 0.

    Raises:
        UserError: a scan cannot be read, or two cannot be compared.
    """
    from BrainLandmarksLib.io.atomic import need_absent, need_writable

    names = _names(arguments.later)
    files = [RECORD, LANDMARK_TABLE, DISTANCE_TABLE, *(f"{name}{TRANSFORM}" for name in names)]
    files += [] if arguments.no_picture else [PICTURE]
    outputs = [arguments.output / name for name in files]
    need_writable(arguments.output)
    if not arguments.overwrite:
        need_absent(outputs)

    from BrainLandmarksLib.registration.expected_error import (
        expected_errors,
        read_repeatability,
        repeated_errors,
    )
    from BrainLandmarksLib.registration.follow_up import follow
    from BrainLandmarksLib.registration.series import changed_table, summary_table

    protocol = heads.protocol_of(arguments)
    repeatability = (
        read_repeatability(arguments.retest, protocol) if arguments.retest is not None else None
    )
    baseline, *later = heads.read_heads([arguments.baseline, *arguments.later], arguments)
    errors = heads.calibrated(arguments, protocol)
    expected = [
        expected_errors(head.landmarks, errors)
        if repeatability is None
        else repeated_errors(head.landmarks, repeatability)
        for head in (baseline, *later)
    ]
    changes = {
        name: follow(baseline.landmarks, head.landmarks, expected[0], after)
        for name, head, after in zip(names, later, expected[1:], strict=True)
    }
    _write(baseline, changes, outputs)
    print(summary_table(changes).plain())
    changed = changed_table(changes)
    print(f"\n{changed.plain()}" if changed.rows else "\nno change beyond the expected error")
    for path in outputs:
        print(f"wrote {path}")
    return 0


def _names(later: Sequence[str]) -> list[str]:
    """What the later scans are called, each differently.

    Raises:
        UserError: two have the same name.
    """
    from BrainLandmarksLib.io.images import stem
    from BrainLandmarksLib.io.pairing import annotation_stem
    from BrainLandmarksLib.resources import SAMPLE_PREFIX

    names = [
        annotation_stem(argument)
        if heads.is_landmark_file(argument)
        else stem(argument.removeprefix(SAMPLE_PREFIX))
        for argument in later
    ]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two later scans are called {name}; give them different names.")
    return names


def _write(baseline: Head, changes: Mapping[str, Change], outputs: Sequence[Path]) -> None:
    """Write all results, or none."""
    import json

    from BrainLandmarksLib.io.atomic import atomic_writes
    from BrainLandmarksLib.io.transforms import write_linear
    from BrainLandmarksLib.registration import series

    with atomic_writes(outputs[0].parent) as unfinished:
        text = json.dumps(series.record(baseline.name, changes), indent=2, allow_nan=False)
        (unfinished / RECORD).write_text(text + "\n", encoding="utf-8")
        series.landmark_table(changes).write_csv(unfinished / LANDMARK_TABLE)
        series.distance_table(changes).write_csv(unfinished / DISTANCE_TABLE)
        for name, change in changes.items():
            write_linear(unfinished / f"{name}{TRANSFORM}", change.affine)
        if PICTURE in {path.name for path in outputs}:
            from BrainLandmarksLib.figures.displacements import draw_displacements

            landmarks = baseline.landmarks
            times = [
                (name, *series.arrows(landmarks.protocol, change))
                for name, change in changes.items()
            ]
            picture = unfinished / PICTURE
            draw_displacements(landmarks.protocol, landmarks.points, times, picture)
