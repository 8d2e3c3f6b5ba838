"""`brainlandmarks explain compare`: which of two models is more focused on its landmarks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from BrainLandmarksLib.cli import reading
from BrainLandmarksLib.cli.gradcam.explain import add_choice, chosen_rows
from BrainLandmarksLib.cli.options import add_device
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import need_absent, need_writable
from BrainLandmarksLib.resources import image_path

NAME = "explain compare"

_EXAMPLE = """\
example:
  brainlandmarks explain compare runs/mse runs/mixed head1.nii.gz head2.nii.gz -o report
      writes report/compare.csv, report/compare.md and report/compare.png
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="measure which of two models is more focused on the landmarks",
        description="Make the Grad-CAM maps of two models on the same images and measure them: how "
        "far they spread, how far from the landmark, how much neighbours overlap.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("models", nargs=2, metavar="MODEL", help="model names or folders")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="T1 images, as for detect")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the report"
    )
    add_choice(parser)
    add_device(parser)
    reading.add_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report, print its table per group; returns 2 if an image could not be used.

    Raises:
        UserError: a model, a layer or a name is wrong, or no image can be used.
    """
    from BrainLandmarksLib.cli.terminal import report
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.gradcam.comparison import FILES, MapComparison
    from BrainLandmarksLib.io.images import stem

    need_writable(arguments.output)
    if not arguments.overwrite:
        need_absent(arguments.output / name for name in FILES)
    paths = [image_path(argument) for argument in arguments.images]
    detectors = [Detector(model, arguments.device) for model in arguments.models]
    comparison = MapComparison(
        detectors,
        _names(arguments.models),
        chosen_rows(arguments, detectors[0].model.protocol),
        layer=arguments.layer,
        target=arguments.target,
    )
    failures = 0
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {stem(path)}", file=sys.stderr, flush=True)
        try:
            comparison.add(stem(path), reading.read(path, arguments))
        except UserError as error:
            failures += 1
            report(error)
    written = comparison.write(arguments.output)
    print(comparison.summary())
    print()
    for path in written:
        print(f"wrote {path}")
    return 2 if failures else 0


def _names(models: list[str]) -> list[str]:
    """What to call two models: the last part of their paths, or the whole if that is the same."""
    short = [Path(model).name or model for model in models]
    if short[0] != short[1]:
        return short
    return list(models) if models[0] != models[1] else [f"{short[0]} (1)", f"{short[1]} (2)"]
