"""`brainlandmarks train`: train a model from a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.network.device import DEVICES

from . import console, schema

if TYPE_CHECKING:
    from BrainLandmarksTrainLib.config.recipe import Recipe

_EXAMPLE = """\
examples:
  brainlandmarks train brain88 --label-maps maps -o runs/brain88    train the shipped model further
  brainlandmarks train paper --dataset scans -o runs/paper          the paper's method on your scans
  brainlandmarks train quick --dataset scans -o runs/quick          the same in minutes, to try it
  brainlandmarks train parcellation --dataset scans --images t1 --segmentations gif=gif muse=muse \\
      --label-maps maps --weights published.pth -o runs/parcellation    its parcellation network
  brainlandmarks train my_recipe.yaml     a model of your own; again: resumes a stopped run
  brainlandmarks train my_recipe.yaml --devices 4                   four GPUs, or CPU processes
  brainlandmarks train my_recipe.yaml --dry-run                     check it and show all settings
  brainlandmarks train --schema > recipe.schema.json                for an editor
"""

INTERRUPTED = 130


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a model",
        description="Train a model from a recipe: label maps or a dataset in, an evaluated model "
        "folder out. A model that starts from another one is compared with it. Ctrl-C writes a "
        "checkpoint; the same command resumes from it.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="a recipe that comes with the program (brain88, paper, "
        "quick, parcellation, small_mse, small_mixed), or a .yaml or .json file",
    )  # fmt: skip
    parser.add_argument(
        "--label-maps",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="label maps, or folders of them, instead of the recipe's",
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="DIR", help="dataset folder instead of the recipe's"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder instead of the recipe's"
    )
    group = parser.add_argument_group("parcellation network")
    group.add_argument(
        "--segmentations", nargs="+", type=_segmentation, metavar="LABELS=DIR",
        help="folders of label maps of the dataset's scans, the most trusted first; LABELS is a "
        "label scheme as in annotate",
    )  # fmt: skip
    group.add_argument(
        "--images", type=Path, metavar="DIR",
        help="the scans that the dataset was made of, after which the label maps are called",
    )  # fmt: skip
    group.add_argument(
        "--weights", type=Path, metavar="FILE", help="published weights to start from"
    )
    add_run_options(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check the recipe, show it with all defaults, stop"
    )
    schema.add_option(parser, "a recipe", _schema)
    parser.set_defaults(run=run)


def _segmentation(text: str) -> tuple[str, str]:
    scheme, separator, folder = text.rpartition("=")
    if not separator or not scheme:
        raise argparse.ArgumentTypeError(f"{text!r} is not LABELS=DIR, such as gif=maps")
    return scheme, folder


def _schema() -> dict[str, Any]:
    from BrainLandmarksTrainLib.config.recipe import recipe_schema

    return recipe_schema()


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command that trains: how it starts, and where it runs."""
    parser.add_argument(
        "--resume", choices=("auto", "no"), default="auto",
        help="auto: resume from the last checkpoint in the output folder; no: refuse a folder that "
        "holds one (auto)",
    )  # fmt: skip
    parser.add_argument("--device", choices=DEVICES, help="instead of the recipe's")
    parser.add_argument(
        "--devices", type=int, metavar="N", help="processes on each node, instead of the recipe's"
    )
    parser.add_argument("--nodes", type=int, metavar="N", help="machines, instead of the recipe's")
    parser.add_argument(
        "--workers", type=int, metavar="N",
        help="additional processes that make samples, instead of the recipe's",
    )  # fmt: skip


def machine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of the machine that the command line gives; None where it gives none."""
    return {name: getattr(arguments, name) for name in ("device", "devices", "nodes", "workers")}


def run(arguments: argparse.Namespace) -> int:
    """Train and return the exit code: 0, or 130 when the run was stopped and can go on.

    Raises:
        UserError: the training library is not installed, or the recipe, its data or a checkpoint
            is wrong.
    """
    from BrainLandmarksTrainLib.config.recipe import as_yaml, load_recipe

    recipe = load_recipe(
        arguments.config,
        arguments.label_maps,
        arguments.output,
        arguments.dataset,
        parcellation={
            "segmentations": dict(arguments.segmentations or ()),
            "images": arguments.images,
            "weights": arguments.weights,
        },
        **machine_options(arguments),
    )
    if arguments.dry_run:
        print(as_yaml(recipe), end="")
        return 0
    return train(recipe, arguments, f"brainlandmarks train {Path(arguments.config).name}")


def train(recipe: Recipe, arguments: argparse.Namespace, command: str) -> int:
    """Train, report progress, and return the exit code.

    Raises:
        UserError: the data or a checkpoint is wrong, or there is a run and it may not go on.
    """
    from BrainLandmarksTrainLib.engine.distributed import leads
    from BrainLandmarksTrainLib.pipeline.train import need_no_run, train_model

    if arguments.resume == "no":
        need_no_run(recipe)
    model = train_model(recipe, console.report, command=command, on_log=console.row)
    terminal.clear()
    if model is None:
        return INTERRUPTED
    if leads():
        _report_change(recipe, model)
    return 0


def _report_change(recipe: Recipe, model: Path) -> None:
    """Compare a fine-tuned model with the old one, where both find the landmarks."""
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.network.model_files import load_model
    from BrainLandmarksTrainLib.evaluation.model_comparison import PAGE, compare_models

    if recipe.start_from is None or recipe.scans is None or not recipe.finds_landmarks:
        return
    dataset, old = Dataset.open(recipe.scans.dataset), load_model(recipe.start_from)
    if old.protocol.hash != dataset.protocol.hash:
        return
    report, device = Path(recipe.output) / "report", recipe.machine.device
    print(compare_models(old, load_model(model), dataset, report, device, terminal.progress))
    print(f"wrote {report / PAGE}, numbers and plots", flush=True)
