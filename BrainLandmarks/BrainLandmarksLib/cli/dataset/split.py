"""`brainlandmarks dataset split`: training, validation and test heads."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli.options import add_seed, need_at_least

_EXAMPLE = """\
examples:
  brainlandmarks dataset split my_set                              30 and 50 of 234, as the paper
  brainlandmarks dataset split my_set --validation 0.2 --test 0.2  shares of a small set
  brainlandmarks dataset split my_set --validation 30 --test 50 --seed 7
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command."""
    parser = actions.add_parser(
        "split",
        help="training, validation and test heads",
        description="Draw validation and test heads, by subject and never by scan, and store the "
        "split in the dataset. Heads that are in a split stay there, so heads added later can be "
        "split, too.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("dataset", metavar="DIR", type=Path)
    for name, share in (("validation", "30"), ("test", "50")):
        parser.add_argument(
            f"--{name}", metavar="N", type=float,
            help=f"number of heads, or below 1 the share of all ({share} of 234, as in the paper)",
        )  # fmt: skip
    add_seed(parser)
    parser.add_argument("--again", action="store_true", help="forget the present split")
    parser.add_argument(
        "--last", action="store_true", help="the last subjects by name, instead of drawn ones"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Store a split and print its sizes; returns 0.

    Raises:
        UserError: the folder is no dataset, or has too few subjects.
    """
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.dataset.dataset import SPLITS
    from BrainLandmarksLib.dataset.split import split_dataset
    from BrainLandmarksLib.io.tables import Table

    need_at_least(arguments, seed=0)
    dataset = Dataset.open(arguments.dataset)
    wanted = {
        name: value
        for name in ("validation", "test")
        if (value := getattr(arguments, name)) is not None
    }
    split_dataset(
        dataset, seed=arguments.seed, again=arguments.again, last=arguments.last, **wanted
    )
    rows = []
    for name in SPLITS:
        entries = [entry for entry in dataset.entries if entry.split == name]
        rows.append((name, len(entries), len({entry.person for entry in entries})))
    print(Table(("split", "heads", "subjects"), rows).plain())
    return 0
