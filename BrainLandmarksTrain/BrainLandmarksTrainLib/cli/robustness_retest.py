"""`brainlandmarks robustness retest`: how far landmarks move when a head is scanned again."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import reading, terminal
from BrainLandmarksLib.cli.options import add_device, add_model, add_quality, add_seed
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.resources import image_path

NAME = "robustness retest"

_EXAMPLE = """\
examples:
  brainlandmarks robustness retest sample:colin27 -o report
  brainlandmarks robustness retest head1.nii.gz head2.nii.gz -o report --repetitions 20
  brainlandmarks robustness retest head.nii.gz -o report --rotation 5 --translation 5 --noise 0.05
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="measure how far landmarks move when a head is scanned again",
        description="Move real images rigidly at random, resample them, add noise, and measure how "
        "far every landmark is from that of the image as it is, moved along. No true landmarks "
        "are needed. Writes retest.md, retest_groups.csv and retest_landmarks.csv.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="T1 images, as for detect")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    add_model(parser)
    parser.add_argument("--repetitions", type=int, default=10, metavar="N", help="how often (10)")
    parser.add_argument(
        "--rotation", type=float, default=15.0, metavar="DEG", help="largest, about each axis (15)"
    )
    parser.add_argument(
        "--translation", type=float, default=10.0, metavar="MM", help="largest, along each (10)"
    )
    parser.add_argument(
        "--noise", type=float, default=0.03, metavar="SHARE",
        help="standard deviation, as a share of the bright tissue (0.03)",
    )  # fmt: skip
    parser.add_argument(
        "--survey",
        action="store_true",
        help="the head is scanned again as the survey that planning starts from",
    )
    add_seed(parser)
    add_quality(parser)
    reading.add_options(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its page; returns 0.

    Raises:
        UserError: an option is wrong, or the model, an image or the output cannot be used.
    """
    from BrainLandmarksLib.io.atomic import need_writable

    for name, least, most in (
        ("repetitions", 1, 10_000), ("rotation", 0, 45), ("translation", 0, 100), ("noise", 0, 1),
        ("seed", 0, 2**31),
    ):  # fmt: skip
        value = getattr(arguments, name)
        if not least <= value <= most:
            raise UserError(f"--{name} must lie between {least} and {most}, not {value:g}.")
    need_writable(arguments.output)
    from BrainLandmarksTrainLib.evaluation.robustness.report import retest_report
    from BrainLandmarksTrainLib.evaluation.robustness.retest import Rescan

    page = retest_report(
        arguments.model,
        [image_path(argument) for argument in arguments.images],
        arguments.output,
        Rescan(
            arguments.rotation,
            arguments.translation,
            arguments.noise,
            arguments.repetitions,
            arguments.seed,
            arguments.survey,
        ),
        quality=arguments.quality,
        device=arguments.device,
        on_scan=terminal.progress,
        read=lambda path: reading.read(path, arguments),
    )
    print(page)
    print(f"\nwrote {arguments.output / 'retest.md'} and its numbers")
    return 0
