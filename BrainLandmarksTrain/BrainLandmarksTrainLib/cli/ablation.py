"""`brainlandmarks ablation`: the paper's Table III, trained and measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal

from . import console
from .train import INTERRUPTED, add_run_options, machine_options

_EXAMPLE = """\
examples:
  brainlandmarks ablation reduced --dataset scans -o runs/ablation    minutes on a CPU
  brainlandmarks ablation paper --dataset scans -o runs/ablation      the paper's size, on a GPU
  brainlandmarks ablation network --dataset scans -o runs/network     long skips, attention
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "ablation",
        help="measure what dropout, corrected annotations, augmentation and the loss bring",
        description="Train eight networks on a dataset, with and without dropout and corrected "
        "ground truth, augmentation, and the mixed loss, and write the paper's Table III. A "
        "command that was stopped resumes when it is run again. An ablation with variants compares "
        "settings of the fine network instead, at equal steps and at equal time.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="an ablation that comes with the program (reduced, "
        "paper, network), or a .yaml or .json file",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", type=Path, metavar="DIR", help="dataset folder, with a test split"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the runs")
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, measure, print the page and return the exit code.

    Raises:
        UserError: the settings or the dataset cannot be used.
    """
    from BrainLandmarksLib.errors import UserError
    from BrainLandmarksTrainLib.config.ablation import load_ablation
    from BrainLandmarksTrainLib.engine.distributed import leads
    from BrainLandmarksTrainLib.pipeline.ablation import PAGE, run_ablation

    config = load_ablation(
        arguments.config, arguments.output, arguments.dataset, **machine_options(arguments)
    )
    output = Path(config.recipe.output)
    if arguments.resume == "no" and output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; choose another --output, or --resume auto.")
    command = f"brainlandmarks ablation {Path(arguments.config).name}"
    page = run_ablation(config, console.report, console.row, command)
    terminal.clear()
    if page is None:
        return INTERRUPTED
    if leads():
        print(page)
        print(f"wrote {output / PAGE} and tables")
    return 0
