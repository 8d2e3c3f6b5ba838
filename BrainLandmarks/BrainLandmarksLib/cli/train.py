"""`brainlandmarks train`: train a model from a settings file."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
example:
  brainlandmarks train settings.json      starts a run, or goes on with one that was stopped
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a model",
        description="Train a model with the settings of a JSON or YAML file. Ctrl-C writes a "
        "checkpoint; the same command goes on from it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="settings, .json or .yaml")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train and return the exit code.

    Raises:
        UserError: the training library is not installed, or the settings are wrong.
    """
    if find_spec("BrainLandmarksTrainLib") is None:
        raise UserError(
            "training needs the library BrainLandmarksTrainLib; install BrainLandmarks with pip."
        )
    from BrainLandmarksTrainLib.__main__ import main

    return int(main([str(arguments.config)]))
