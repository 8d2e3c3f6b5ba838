"""`brainlandmarks finetune`: fine-tune a model on a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from .train import add_run_options, machine_options, train

_EXAMPLE = """\
examples:
  brainlandmarks finetune brain88 corrections -o runs/tuned         after corrections
  brainlandmarks finetune brain88 corrections -o runs/tuned --minutes 30
  brainlandmarks finetune brain88 afids_set -o runs/afids           other landmarks: the dataset's
  brainlandmarks detect head.nii.gz -o results --model runs/tuned/model    use the new model
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "finetune",
        help="fine-tune a model on a dataset",
        description="Fine-tune a model on the scans of a dataset, then compare it with the old "
        "one. If the dataset has other landmarks than the model, only the landmarks that both "
        "share keep their weights in the last layer. Ctrl-C writes a checkpoint; the same command "
        "resumes from it.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("model", metavar="MODEL", help="name or folder of the model to start from")
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="dataset folder")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder of the run; the model is written to its folder 'model'",
    )  # fmt: skip
    parser.add_argument("--name", help="of the new model (the old one's with -tuned)")
    parser.add_argument(
        "--steps", type=int, metavar="N",
        help="steps of training (300, or 2000 for other landmarks)",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, metavar="M", help="minutes of training")
    parser.add_argument(
        "--write-recipe", type=Path, metavar="FILE",
        help="write the recipe for brainlandmarks train, to change it, and stop",
    )  # fmt: skip
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, compare with the old model, and return the exit code.

    Raises:
        UserError: the model or the dataset cannot be used.
    """
    from BrainLandmarksTrainLib.config.finetune import finetune_recipe
    from BrainLandmarksTrainLib.config.recipe import write_recipe

    recipe = finetune_recipe(
        arguments.model,
        arguments.dataset,
        arguments.output,
        name=arguments.name,
        steps=arguments.steps,
        minutes=arguments.minutes,
        machine=machine_options(arguments),
    )
    if arguments.write_recipe:
        write_recipe(recipe, arguments.write_recipe)
        print(f"wrote {arguments.write_recipe}")
        return 0
    return train(recipe, arguments, f"brainlandmarks finetune {Path(arguments.model).name}")
