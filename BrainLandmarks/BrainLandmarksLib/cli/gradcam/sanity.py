"""`brainlandmarks explain sanity`: do the maps depend on what the network learned?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from BrainLandmarksLib.cli import reading
from BrainLandmarksLib.cli.gradcam.explain import add_choice, chosen_rows
from BrainLandmarksLib.cli.options import add_device, add_model
from BrainLandmarksLib.io.atomic import need_absent, need_writable
from BrainLandmarksLib.resources import image_path

NAME = "explain sanity"

_EXAMPLE = """\
example:
  brainlandmarks explain sanity head.nii.gz -o report
      writes report/head_gradcam_sanity.md and .csv
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="check that the maps depend on what was learned",
        description="Replace the network's weights by random ones, layer after layer from the "
        "heatmaps down, and correlate the Grad-CAM maps with the original ones (Adebayo et al. "
        "2018). Maps that do not change show the image, not the network.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("image", metavar="IMAGE", help="a T1 image, as for detect")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the report"
    )
    add_choice(parser)
    add_model(parser)
    add_device(parser)
    reading.add_options(parser)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the random weights (0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its table; returns 0.

    Raises:
        UserError: a name is wrong, the image cannot be used, or the report cannot be written.
    """
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.gradcam.explanation import check_layer, explain
    from BrainLandmarksLib.gradcam.sanity import file_names, randomise
    from BrainLandmarksLib.io.images import stem

    path = image_path(arguments.image)
    name = stem(path)
    need_writable(arguments.output)
    if not arguments.overwrite:
        need_absent(arguments.output / file for file in file_names(name))
    detector = Detector(arguments.model, arguments.device)
    check_layer(detector.model.network, arguments.layer)
    rows = chosen_rows(arguments, detector.model.protocol)
    detection = detector.detect(reading.read(path, arguments))
    explanation = explain(detector, detection, arguments.layer, target=arguments.target)

    def show(step: str, fraction: float) -> None:
        print(f"[{100 * fraction:3.0f} %] random down to {step}", file=sys.stderr, flush=True)

    check = randomise(explanation, rows, seed=arguments.seed, progress=show)
    written = check.write(arguments.output, name)
    print(check.markdown())
    print()
    for file in written:
        print(f"wrote {file}")
    return 0
