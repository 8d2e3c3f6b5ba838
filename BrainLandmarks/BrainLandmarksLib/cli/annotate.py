"""`brainlandmarks annotate`: place the landmarks on a label map by their written rules."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import reading
from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
examples:
  brainlandmarks annotate aparc+aseg.mgz -o head.mrk.json
  brainlandmarks annotate parcellation.nii.gz --labels gif -o head.mrk.json
"""

_LISTED = 20
"""How many unknown numbers are named in the note."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "annotate",
        help="place the landmarks on a label map by rule",
        description="Place the landmarks of brain88 on the label map of a head: a segmentation by "
        "FreeSurfer, FastSurfer, SynthSeg, GIF, MUSE or DLMUSE, or any other of which a file says "
        "what its numbers are. Anatomy that the map does not contain gives a missing landmark.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("labelmap", metavar="LABELMAP", type=Path, help="image file of the labels")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="OUT",
        help="file to write; its suffix is the format: .mrk.json, .csv or .fcsv",
    )
    reading.add_options(parser, dicom=False)
    parser.add_argument(
        "--labels",
        default="auto",
        metavar="auto|NAME|FILE",
        help="what the numbers are: freesurfer, gif, niftyseg, dlmuse, or a .json file; auto (the "
        "default) finds out by the numbers that are there",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the landmarks of the label map and return the exit code 0.

    Raises:
        UserError: the label map cannot be read or used, or the file cannot be written.
    """
    from BrainLandmarksLib.io.landmarks import FORMATS, write_landmarks

    output: Path = arguments.output
    if not output.name.lower().endswith(tuple(f".{name}" for name in FORMATS)):
        raise UserError(
            f"{output.name} has no known suffix; use .{', .'.join(FORMATS)} for the output."
        )
    if not output.absolute().parent.is_dir():
        raise UserError(f"the folder of {output} does not exist; create it first.")
    if output.exists() and not arguments.overwrite:
        raise UserError(f"{output} exists; add --overwrite to replace it.")
    from BrainLandmarksLib.annotation import LabelMap, annotate, load_scheme

    if arguments.labels != "auto":
        load_scheme(arguments.labels)  # a wrong name is reported before the image is read
    head = LabelMap(reading.read(arguments.labelmap, arguments), arguments.labels)
    landmarks = annotate(head)
    write_landmarks(output, landmarks)
    print(f"read as {head.scheme.name}: {head.scheme.title}")
    if head.unknown:
        print(f"note: not in this scheme and left out: {_listed(head.unknown)}")
    missing = [
        landmark.label
        for landmark, absent in zip(landmarks.protocol, landmarks.missing, strict=True)
        if absent
    ]
    print(f"{len(landmarks) - len(missing)} of {len(landmarks)} landmarks placed")
    if missing:
        print(f"missing: {', '.join(missing)}")
    print(f"wrote {output}")
    return 0


def _listed(numbers: tuple[int, ...]) -> str:
    """The first numbers of many, as words."""
    shown = ", ".join(map(str, numbers[:_LISTED]))
    rest = len(numbers) - _LISTED
    return f"{shown} and {rest} more" if rest > 0 else shown
