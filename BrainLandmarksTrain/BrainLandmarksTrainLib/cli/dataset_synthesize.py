"""`brainlandmarks dataset synthesize`: a demonstration set from label maps."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.cli.options import add_processes, add_seed, need_at_least

NAME = "dataset synthesize"

_EXAMPLE = """\
example:
  brainlandmarks dataset synthesize --label-maps maps -n 12 -o demo --raters 2
      writes the dataset demo and two people's annotations, demo/raters/A and demo/raters/B
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="a demonstration dataset from label maps",
        description="Deform head label maps at random, place the landmarks by rule and render "
        "T1-like scans of them: a dataset of any size without patient data. The subject of a head "
        "is the label map that it descends from.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "--label-maps", metavar="PATH", nargs="+", type=Path, required=True,
        help="FreeSurfer-numbered head label maps, or folders of them",
    )  # fmt: skip
    parser.add_argument("-n", "--heads", type=int, required=True, help="how many heads")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, type=Path)
    add_seed(parser)
    parser.add_argument(
        "--raters", type=int, default=0, metavar="N",
        help="also write what N people would have annotated, with human errors (0)",
    )  # fmt: skip
    add_processes(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make a demonstration set; returns 0.

    Raises:
        UserError: a label map is missing, or the folder is not empty.
    """
    need_at_least(arguments, workers=1, seed=0)
    from BrainLandmarksTrainLib.synthesis.demonstration_set import synthesize

    dataset = synthesize(
        arguments.label_maps,
        arguments.heads,
        arguments.output,
        seed=arguments.seed,
        raters=arguments.raters,
        workers=arguments.workers,
        on_head=terminal.progress,
    )
    subjects = len({entry.person for entry in dataset.entries})
    print(f"{dataset.folder}, heads: {len(dataset)}, subjects: {subjects}")
    if arguments.raters:
        print(f"annotations of {arguments.raters} raters in {dataset.folder / 'raters'}")
    return 0
