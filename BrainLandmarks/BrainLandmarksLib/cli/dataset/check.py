"""`brainlandmarks dataset check`: every file and landmark of a dataset validated."""

from __future__ import annotations

import argparse
from pathlib import Path

_EXAMPLE = """\
examples:
  brainlandmarks dataset check my_set             exit code 1 if the set is broken
  brainlandmarks dataset check my_set --accept    files were changed on purpose: renew checksums
"""

_BROKEN = 1


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command."""
    parser = actions.add_parser(
        "check",
        help="validate every file and landmark",
        description="Check that files are there, readable and unchanged, and that every landmark "
        "lies inside the image, near its plane, in order along its outline and on its side; that "
        "no image is there twice and no subject in two splits.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("dataset", metavar="DIR", type=Path)
    parser.add_argument(
        "--off-plane", metavar="MM", type=float, default=5.0,
        help="how far a landmark may lie off the plane that its group shares (5)",
    )  # fmt: skip
    parser.add_argument(
        "--accept", action="store_true", help="renew the checksums of files changed on purpose"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table and the mistakes; returns 0, or 1 for a broken dataset.

    Raises:
        UserError: the folder is no dataset.
    """
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.dataset.checks import accept_files, check_dataset

    dataset = Dataset.open(arguments.dataset)
    if arguments.accept:
        changed = accept_files(dataset)
        print(f"accepted the changed files of: {', '.join(changed) or 'none'}")
    report = check_dataset(dataset, arguments.off_plane)
    print(report.table().plain())
    mistakes = list(report.sentences())
    for sentence in mistakes:
        print(f"broken: {sentence}")
    for note in report.notes:
        print(f"note: {note}")
    verdict = f"broken, mistakes: {len(mistakes)}" if mistakes else "fit to train on"
    print(f"{dataset.folder}, heads: {len(dataset)}, {verdict}")
    return _BROKEN if mistakes else 0
