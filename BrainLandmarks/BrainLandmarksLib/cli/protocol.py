"""`brainlandmarks protocol`: show a landmark protocol, or turn it into an annotation guide."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures import guide
from BrainLandmarksLib.protocol import Protocol, load_protocol

_EXAMPLE = """\
examples:
  brainlandmarks protocol                       what the 88 landmarks are
  brainlandmarks protocol afids32               another protocol that comes with the program
  brainlandmarks protocol my_points.json        check and show a protocol of your own
  brainlandmarks protocol --markdown --pictures images > protocol.md
                                                an annotation guide with a picture of each group
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "protocol",
        help="show what the landmarks are",
        description="Show a landmark protocol: the groups, the rule of each landmark and how to "
        "place them by hand.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="brain88",
        metavar="NAME",
        help="a protocol that comes with the program, or a .json file (default: brain88)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print it as a Markdown document")
    form.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="draw each group on the sample head into DIR; with --markdown, show the pictures in "
        "the document",
    )
    parser.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE",
        help="landmarks of the sample head to draw (.mrk.json, .csv or .fcsv; default: those that "
        "were placed by eye, or that the model of this protocol finds)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the protocol in the chosen form and return the exit code 0.

    Raises:
        UserError: there is no such protocol, its file is not valid, or the pictures cannot be
            made.
    """
    protocol = load_protocol(arguments.name)
    if arguments.pictures is not None:
        draw_pictures(protocol, arguments.pictures, arguments.landmarks)
    elif arguments.landmarks is not None:
        raise UserError("--landmarks says what to draw; give --pictures DIR as well.")
    if arguments.json:
        print(protocol.to_json(), end="")
    elif arguments.markdown:
        print(guide.markdown(protocol, pictures=arguments.pictures), end="")
    elif arguments.pictures is None:
        print(guide.plain_text(protocol), end="")
    return 0


def draw_pictures(protocol: Protocol, folder: Path, landmarks_file: Path | None = None) -> None:
    """Draw every group of a protocol on the sample head, one picture each, into a folder.

    Args:
        landmarks_file: Landmarks of the sample head; None takes those that were placed by
            eye, where there are some, or detects them with the model that has the protocol's
            name.

    Raises:
        UserError: the landmarks file is not valid, there is no model of the protocol, or the
            folder cannot be written.
    """
    from BrainLandmarksLib.io.images import read_image
    from BrainLandmarksLib.io.landmarks import read_landmarks

    volume = read_image(resources.sample_head())
    placed = resources.sample_landmarks(protocol.name)
    if landmarks_file is None and placed.is_file():
        landmarks_file = placed
    if landmarks_file is not None:
        landmarks = read_landmarks(landmarks_file, protocol)
    elif protocol.name in resources.model_names():
        from BrainLandmarksLib.detection import Detector

        landmarks = Detector(protocol.name).detect(volume).landmarks
    else:
        raise UserError(
            f"there is no model of the protocol {protocol.name} to find its landmarks on the "
            "sample head; give them with --landmarks."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the folder {folder} cannot be made: {reason}.") from error
    for group in protocol.groups:
        guide.draw_group(volume, landmarks, group, folder / guide.picture_name(group))
