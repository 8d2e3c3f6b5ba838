"""`brainlandmarks robustness`: what worse scans cost a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.cli.options import (
    add_device,
    add_model,
    add_processes,
    add_quality,
    add_seed,
    need_at_least,
)

_EXAMPLE = """\
examples:
  brainlandmarks robustness --label-maps maps -o report
      held-out heads as T1 scans in all conditions; again: resumes a stopped run
  brainlandmarks robustness --dataset oasis --split test -o report
      real scans with true landmarks; contrast and skull-stripping need label maps
  brainlandmarks robustness --label-maps maps -o report --conditions noise motion rotation
  brainlandmarks robustness retest sample:colin27 -o report
      one head scanned again and again: how far do its landmarks move?
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "robustness",
        help="measure what worse scans cost a model",
        description="Put the same scans into many conditions and measure the error in each: "
        "ghosts, spikes, shading, noise, motion, blur, thick slices, rotation, other contrasts, "
        "no skull, no neck, no top. Writes robustness.md, robustness.csv and robustness.png.",
        epilog=_EXAMPLE,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--label-maps", metavar="PATH", nargs="+", type=Path,
        help="FreeSurfer-numbered head label maps, or folders of them",
    )  # fmt: skip
    what.add_argument("--dataset", metavar="DIR", type=Path, help="scans with true landmarks")
    add_model(parser)
    parser.add_argument(
        "--heads", metavar="STEM", nargs="+",
        help="which of the label maps to use (those that the model says were held out)",
    )  # fmt: skip
    parser.add_argument(
        "--scans-per-head", type=int, default=1, metavar="N", help="scans of each label map (1)"
    )
    parser.add_argument(
        "--split", default="test", metavar="NAME",
        help="heads of the dataset: train, validation, test or all (test)",
    )  # fmt: skip
    parser.add_argument(
        "--conditions", nargs="+", metavar="NAME", help="only these, such as noise (all)"
    )
    parser.add_argument(
        "--sheet", action="store_true", help="also draw the first scan in every condition"
    )
    add_seed(parser)
    add_processes(parser)
    add_quality(parser)
    add_device(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its page; returns 0.

    Raises:
        UserError: an option is wrong, or the model, the scans or the output cannot be used.
    """
    from BrainLandmarksLib.io.atomic import need_writable

    need_at_least(arguments, workers=1, seed=0)
    need_writable(arguments.output)
    from BrainLandmarksTrainLib.evaluation.robustness.report import robustness_report

    page = robustness_report(
        arguments.model,
        arguments.output,
        label_maps=arguments.label_maps,
        heads=arguments.heads,
        scans_per_head=arguments.scans_per_head,
        dataset=arguments.dataset,
        split=arguments.split,
        conditions=arguments.conditions,
        sheet=arguments.sheet,
        seed=arguments.seed,
        quality=arguments.quality,
        device=arguments.device,
        workers=arguments.workers,
        on_scan=terminal.progress,
    )
    print(page)
    print(f"\nwrote {arguments.output / 'robustness.md'}, its numbers and its plot")
    return 0
