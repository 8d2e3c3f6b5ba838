"""`brainlandmarks annotate`: place the landmarks on a label map by their written rules."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import reading
from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
example:
  brainlandmarks annotate aparc+aseg.mgz -o head.mrk.json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "annotate",
        help="place the landmarks on a label map by rule",
        description="Place the landmarks of brain88 on a label map of a head with FreeSurfer's "
        "numbers (FreeSurfer, SynthSeg). Anatomy that the map does not contain gives a missing "
        "landmark.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the landmarks of the label map and return the exit code 0.

    Raises:
        UserError: the label map cannot be read or used, or the file cannot be written.
    """
    from BrainLandmarksLib.formats import FORMATS, write_landmarks

    output: Path = arguments.output
    if not output.name.lower().endswith(tuple(f".{name}" for name in FORMATS)):
        raise UserError(
            f"{output.name} has no known suffix; use .{', .'.join(FORMATS)} for the output."
        )
    if not output.absolute().parent.is_dir():
        raise UserError(f"the folder of {output} does not exist; create it first.")
    if output.exists() and not arguments.overwrite:
        raise UserError(f"{output} exists; add --overwrite to replace it.")
    volume = reading.read(arguments.labelmap, arguments)

    from BrainLandmarksLib.annotation import annotate

    landmarks = annotate(volume)
    write_landmarks(output, landmarks)
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
