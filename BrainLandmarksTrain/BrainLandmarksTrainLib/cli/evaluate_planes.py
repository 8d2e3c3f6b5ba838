"""`brainlandmarks evaluate planes`: how far scan planes are from those of the true landmarks."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli.options import add_model
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.resources import landmarks_path

NAME = "evaluate planes"

_EXAMPLE = """\
examples:
  brainlandmarks evaluate planes found my_set/landmarks -o report
      two folders of landmark files: found/0001_landmarks.csv and my_set/landmarks/0001.mrk.json
  brainlandmarks evaluate planes results/ch2_landmarks.mrk.json sample:colin27 -o report
      one head, here against the points that were placed by eye on the sample head
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="measure scan planes against those of true landmarks",
        description="Compare the scan planes of found landmarks with those of the true ones: angle "
        "and offset of each plane, and whether the true planes lie inside the intervals that are "
        "stated as often as they should. Writes planes.md, planes.csv, planes_heads.csv and "
        "planes_calibration.png.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("found", type=Path, metavar="FOUND", help="landmark file, or a folder")
    parser.add_argument(
        "truth", metavar="TRUE", help="the true ones of the same heads, or sample:colin27"
    )
    parser.add_argument(
        "--protocol", metavar="NAME|FILE", help="protocol of the files (that of the model)"
    )
    add_model(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its page; returns 0.

    Raises:
        UserError: the model, a file or the output cannot be used, or nothing can be compared.
    """
    from BrainLandmarksLib.io.atomic import need_writable

    need_writable(arguments.output)
    from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
    from BrainLandmarksLib.network.model_files import model_protocol
    from BrainLandmarksLib.planes.prescription import need_planes
    from BrainLandmarksLib.protocol import load_protocol
    from BrainLandmarksTrainLib.evaluation.planes import landmark_pairs, write_plane_errors

    wanted = arguments.protocol
    protocol = model_protocol(arguments.model) if wanted is None else load_protocol(wanted)
    need_planes(protocol)
    truth = landmarks_path(arguments.truth, protocol.name)
    if arguments.found.is_dir() != truth.is_dir():
        raise UserError("give two folders of landmark files, or two files.")
    pairs = landmark_pairs(arguments.found, truth, protocol)
    errors = LandmarkErrors.of_model(arguments.model, protocol)
    print(write_plane_errors(protocol, pairs, errors, arguments.output))
    print(f"\nwrote {arguments.output / 'planes.md'}, numbers and a plot")
    return 0
