"""`brainlandmarks augment`: make more scans of a dataset, with their landmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from BrainLandmarksLib.cli.options import add_processes, add_seed, need_at_least

from . import schema

_EXAMPLE = """\
examples:
  brainlandmarks augment oasis -o oasis_more                one more scan of each, as in the paper
  brainlandmarks augment oasis -o oasis_more --factor 3 --workers 8 --with-originals
  brainlandmarks augment oasis -o gentle --config gentle.yaml --seed 4
  brainlandmarks augment --schema > augmentation.schema.json         for an editor
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "augment",
        help="make varied scans of a dataset, landmarks included",
        description="Write a dataset of varied scans: other heads and poses, thick slices, ghosts, "
        "spikes, shading, noise, motion, blur, in the paper's proportions. The landmarks move with "
        "the anatomy; the record of every scan is in the manifest. A command that was "
        "stopped resumes when it is run again.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="dataset folder")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="new folder for the varied dataset, or the one of a stopped command",
    )  # fmt: skip
    parser.add_argument(
        "--factor", type=float, default=1.0, metavar="F",
        help="varied scans to make of each scan; 0.5 makes one of every second (1)",
    )  # fmt: skip
    add_processes(parser)
    add_seed(parser)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="policies and ranges, .json or .yaml (paper)"
    )
    parser.add_argument(
        "--split", metavar="NAME",
        help="which scans to vary: train, validation, test or all (train, if the dataset is split)",
    )  # fmt: skip
    parser.add_argument(
        "--with-originals", action="store_true",
        help="put the scans of DATASET into DIR as well, all splits",
    )  # fmt: skip
    schema.add_option(parser, "a file for --config", _schema)
    parser.set_defaults(run=run)


def _schema() -> dict[str, Any]:
    from BrainLandmarksTrainLib.augmentation.config import augmentation_schema

    return augmentation_schema()


def run(arguments: argparse.Namespace) -> int:
    """Write the varied dataset, print what was made and return 0.

    Raises:
        UserError: the dataset, the settings or the output cannot be used.
    """
    from BrainLandmarksTrainLib.augmentation.config import AugmentationConfig, load_augmentation
    from BrainLandmarksTrainLib.augmentation.folder import SHEET_FILE, augment_dataset, summary

    need_at_least(arguments, workers=1, seed=0)
    config = load_augmentation(arguments.config) if arguments.config else AugmentationConfig()
    made = augment_dataset(
        arguments.dataset,
        arguments.output,
        config,
        factor=arguments.factor,
        seed=arguments.seed,
        split=arguments.split,
        with_originals=arguments.with_originals,
        workers=arguments.workers,
        report=lambda line: print(line, flush=True),
    )
    print(summary(made))
    print(f"wrote {made.folder} and {made.folder / SHEET_FILE}")
    return 0
