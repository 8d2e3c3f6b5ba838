"""`brainlandmarks evaluate`: measure a model on heads it was not trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli.train import need_training_library

_EXAMPLE = """\
example:
  brainlandmarks evaluate --label-maps maps/ -o report
      writes report/errors.csv, report/errors.md and report/confidence.png
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on held-out heads",
        description="Render unseen synthetic T1 scans from held-out label maps, detect the "
        "landmarks and compare them with the truth: errors per group, and confidence against "
        "error.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="brain88", metavar="NAME|DIR", help="(brain88)")
    parser.add_argument(
        "--label-maps", metavar="PATH", nargs="+", type=Path, required=True,
        help="FreeSurfer-numbered head label maps, or folders of them",
    )  # fmt: skip
    parser.add_argument(
        "--heads", metavar="STEM", nargs="+",
        help="which of the maps to use (those that the model says were held out)",
    )  # fmt: skip
    parser.add_argument("--scans", type=int, default=10, help="scans of each head (10)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print the error table; returns 0.

    Raises:
        UserError: the model or a label map cannot be used.
    """
    need_training_library()
    from BrainLandmarksLib.models import load_model
    from BrainLandmarksTrainLib.report import held_out_report

    model = load_model(arguments.model)
    print(
        held_out_report(
            model,
            arguments.label_maps,
            arguments.heads,
            arguments.output,
            scans=arguments.scans,
            device=arguments.device,
        )
    )
    return 0
