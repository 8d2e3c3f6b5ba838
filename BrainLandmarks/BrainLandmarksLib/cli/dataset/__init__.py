"""`brainlandmarks dataset`: make a training dataset, check it, split it; one module per action."""

from __future__ import annotations

import argparse

from BrainLandmarksLib.cli.dataset import check, create, split

_EXAMPLE = """\
examples:
  brainlandmarks dataset create scans -o my_set              images and landmarks, paired by name
  brainlandmarks dataset check my_set                        validate every file and landmark
  brainlandmarks dataset split my_set                        training, validation and test heads
  brainlandmarks dataset annotate scans --maps gif -o points  landmarks from segmentations
  brainlandmarks dataset synthesize --label-maps maps -n 12 -o demo
                                                             a set to try everything with
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "dataset",
        help="make, check and split a training dataset",
        description="A dataset is a folder of images with landmarks and a list of them, "
        "dataset.json. Training and evaluation read it, and Add to dataset in 3D Slicer writes it.",
        epilog=_EXAMPLE,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action in (create, check, split):
        action.add_action(actions)
