"""`brainlandmarks register`: one head brought onto another by its landmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import heads, terminal
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from BrainLandmarksLib.cli.heads import Head
    from BrainLandmarksLib.registration.register import Registration

KINDS = ("rigid", "similarity", "affine", "thin-plate")

LINEAR_FILE, FIELD_FILE = "transform.tfm", "displacement.nii.gz"
MOVED_IMAGE, MOVED_LANDMARKS = "moved.nii.gz", "moved.mrk.json"
RECORD, LANDMARK_TABLE, REGION_TABLE = "registration.json", "landmarks.csv", "regions.csv"

_EXAMPLE = """\
examples:
  brainlandmarks register head.nii.gz sample:colin27 -o registered
      writes registered/transform.tfm, tables of errors and the moved landmarks
  brainlandmarks register a.mrk.json b.csv -o registered --kind affine
      landmarks that are there already
  brainlandmarks register head.nii.gz sample:colin27 -o registered --kind thin-plate --resample
      a smooth map of space, and the image on the voxels of the other
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "register",
        help="bring one head onto another by its landmarks",
        description="Bring the head MOVING onto the head FIXED by their landmarks, each with the "
        "weight of its expected error, and wrong ones without. Writes the transform for ITK, ANTs "
        "and 3D Slicer, the moved landmarks, and how exact the transform is in each region.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("moving", metavar="MOVING", help=heads.HELP)
    parser.add_argument("fixed", metavar="FIXED", help=heads.HELP)
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--kind",
        default="rigid",
        choices=KINDS,
        help="rigid: rotation and shift; similarity: and one scale; affine: and scales and shears "
        "in all directions; thin-plate: a smooth map of space (rigid)",
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        metavar="X",
        help="of a thin-plate spline: 0 goes through every landmark, more keeps it stiffer "
        "(default: what predicts left out landmarks best)",
    )
    parser.add_argument(
        "--resample",
        action="store_true",
        help=f"write MOVING on the voxels of FIXED as well ({MOVED_IMAGE}); both must be images",
    )
    heads.add_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Register, write the results and print the errors of each region; returns 0.

    Raises:
        UserError: a head cannot be read, or the two cannot be brought onto each other.
    """
    from BrainLandmarksLib.io.atomic import need_absent, need_writable

    outputs = _outputs(arguments)
    need_writable(arguments.output)
    if not arguments.overwrite:
        need_absent(outputs)

    from BrainLandmarksLib.registration.register import register
    from BrainLandmarksLib.registration.report import fold_free, region_table, wrong

    moving, fixed = heads.read_heads([arguments.moving, arguments.fixed], arguments)
    errors = heads.calibrated(arguments, moving.landmarks.protocol)
    found = register(
        moving.landmarks, fixed.landmarks, arguments.kind, errors, errors,
        smoothing=arguments.smoothing,
    )  # fmt: skip
    _write(found, moving, fixed, outputs)
    print(region_table(found).plain())
    print(f"\n{_summary(found)}")
    if lost := wrong(found):
        print(f"left out as wrong: {', '.join(lost)}")
    if not fold_free(found):
        terminal.notes(["the map folds somewhere; more --smoothing or a stiffer --kind does not"])
    for path in outputs:
        print(f"wrote {path}")
    return 0


def _outputs(arguments: argparse.Namespace) -> list[Path]:
    """What will be written.

    Raises:
        UserError: options do not fit together.
    """
    if arguments.smoothing is not None:
        if arguments.kind != "thin-plate":
            raise UserError("--smoothing is of --kind thin-plate only; leave it out.")
        if not 0 <= arguments.smoothing < float("inf"):
            raise UserError(f"--smoothing must be a number from 0, not {arguments.smoothing}.")
    names = [FIELD_FILE if arguments.kind == "thin-plate" else LINEAR_FILE]
    if arguments.resample:
        for argument in (arguments.moving, arguments.fixed):
            if heads.is_landmark_file(argument):
                raise UserError(
                    f"{Path(argument).name} holds landmarks, and --resample needs two images; give "
                    "the image, or leave the option out."
                )
        names.append(MOVED_IMAGE)
    names += [MOVED_LANDMARKS, RECORD, LANDMARK_TABLE, REGION_TABLE]
    return [arguments.output / name for name in names]


def _summary(found: Registration) -> str:
    used = f"{int(found.used.sum())} of {int(found.there.sum())} landmarks"
    return (
        f"{found.kind}, by {used}, turned by {found.turn_degrees:.1f} degrees; mm; target error: "
        "of the transform; left out: of a landmark that had no say"
    )


def _write(found: Registration, moving: Head, fixed: Head, outputs: Sequence[Path]) -> None:
    """Write all results, or none."""
    import json
    from dataclasses import replace

    import numpy as np

    from BrainLandmarksLib.io.atomic import atomic_writes
    from BrainLandmarksLib.io.landmarks import write_landmarks
    from BrainLandmarksLib.io.transforms import write_field, write_linear
    from BrainLandmarksLib.registration.register import field_grid
    from BrainLandmarksLib.registration.report import landmark_table, record, region_table

    landmarks = moving.landmarks
    carried = found.carried(landmarks.points)
    if not np.array_equal(np.isnan(carried), np.isnan(landmarks.points)):
        raise UserError(
            "the map folds, so that some landmarks have no place in the fixed head; give more "
            "--smoothing, or a stiffer --kind."
        )
    names = {path.name for path in outputs}
    with atomic_writes(outputs[0].parent) as unfinished:
        if LINEAR_FILE in names:
            write_linear(unfinished / LINEAR_FILE, found.affine)
        else:
            grid = None if fixed.volume is None else fixed.volume.grid
            write_field(unfinished / FIELD_FILE, field_grid(found.fixed, grid), found.back)
        if MOVED_IMAGE in names:
            _resample(found, moving, fixed, unfinished / MOVED_IMAGE)
        write_landmarks(unfinished / MOVED_LANDMARKS, replace(landmarks, points=carried))
        text = json.dumps(record(found, moving.name, fixed.name), indent=2, allow_nan=False)
        (unfinished / RECORD).write_text(text + "\n", encoding="utf-8")
        landmark_table(found).write_csv(unfinished / LANDMARK_TABLE)
        region_table(found).write_csv(unfinished / REGION_TABLE)


def _resample(found: Registration, moving: Head, fixed: Head, path: Path) -> None:
    from BrainLandmarksLib.imaging.warping import moved_onto, warped_onto
    from BrainLandmarksLib.io.images.writing import write_image

    if moving.volume is None or fixed.volume is None:  # `_outputs` has refused it
        raise ValueError("resampling needs two images")
    grid = fixed.volume.file_grid
    if found.plate is None:
        data = moved_onto(moving.volume, found.affine, grid)
    else:
        data = warped_onto(moving.volume, found.back, grid)
    write_image(path, data, grid)
