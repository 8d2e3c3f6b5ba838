"""`brainlandmarks models`: list the models that come with the program."""

from __future__ import annotations

import argparse

_EXAMPLE = """\
example:
  brainlandmarks models
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="list the models",
        description="List the models that come with the program. A folder that a training run "
        "wrote can be given to detect --model as well.",
        epilog=_EXAMPLE,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table of models and return the exit code 0.

    Raises:
        UserError: a model folder is damaged.
    """
    from BrainLandmarksLib.io.tables import Table
    from BrainLandmarksLib.network.model_files import list_models

    rows = [
        (model.name, model.protocol, model.landmarks, f"{model.size}^3", str(model.folder))
        for model in list_models()
    ]
    print(Table(("model", "protocol", "landmarks", "cube", "folder"), rows).plain())
    return 0
