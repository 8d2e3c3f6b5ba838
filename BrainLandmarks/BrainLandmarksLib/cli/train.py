"""`brainlandmarks train`: train a model from a recipe."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from BrainLandmarksLib.errors import UserError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    about = "Train a model from a recipe: label maps in, a measured model folder out."
    if find_spec("BrainLandmarksTrainLib") is None:
        parser = subparsers.add_parser("train", help="train a model", description=about)
        parser.add_argument("config", metavar="CONFIG", nargs="*")
        parser.set_defaults(run=lambda arguments: need_training_library())
        return
    from BrainLandmarksTrainLib.__main__ import EXAMPLE, add_arguments, run

    parser = subparsers.add_parser(
        "train",
        help="train a model",
        description=about,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def need_training_library() -> None:
    """Check that the training library is there.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("BrainLandmarksTrainLib") is None:
        raise UserError(
            "this needs the library BrainLandmarksTrainLib; install BrainLandmarks with pip."
        )
