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
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table of models and return the exit code 0.

    Raises:
        UserError: a model folder is damaged.
    """
    from BrainLandmarksLib.models import list_models

    rows = [("model", "protocol", "landmarks", "cube", "folder")]
    for model in list_models():
        size = f"{model.size}^3"
        landmarks = str(model.landmarks)
        rows.append((model.name, model.protocol, landmarks, size, str(model.folder)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]))
    return 0
