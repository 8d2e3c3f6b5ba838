"""`brainlandmarks train`: train a model from a recipe."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
examples:
  brainlandmarks train brain88 --label-maps maps -o runs/brain88    train the shipped model further
  brainlandmarks train my_recipe.json     a model of your own; again: goes on with a stopped run
"""

_INTERRUPTED = 130


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a model",
        description="Train a model from a recipe: label maps in, a measured model folder out. "
        "Ctrl-C writes a checkpoint; the same command goes on from it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="a recipe that comes with the program, or a .json or "
        ".yaml file",
    )  # fmt: skip
    parser.add_argument(
        "--label-maps",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="label maps, or folders of them, instead of the recipe's",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder instead of the recipe's"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train and return the exit code: 0, or 130 when the run was stopped and can go on.

    Raises:
        UserError: the training library is not installed, or the recipe, its label maps or a
            checkpoint is wrong.
    """
    need_training_library()
    from BrainLandmarksTrainLib.recipe import cook, load_recipe

    recipe = load_recipe(arguments.config, arguments.label_maps, arguments.output)
    model = cook(recipe, lambda line: print(line, flush=True))
    if model is None:
        print("interrupted; the same command goes on from here")
        return _INTERRUPTED
    print(f"model written to {model}")
    return 0


def need_training_library() -> None:
    """Check that the training library is there.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("BrainLandmarksTrainLib") is None:
        raise UserError(
            "this needs the library BrainLandmarksTrainLib; install BrainLandmarks with pip."
        )
