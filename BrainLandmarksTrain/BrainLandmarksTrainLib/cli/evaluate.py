"""`brainlandmarks evaluate`: how far from the truth a model, or any landmark files, are."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.cli.options import add_device, add_model, add_quality, need_at_least
from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
examples:
  brainlandmarks evaluate --model brain88 --dataset my_set -o report
      the test heads of a dataset; report/errors.md has all tables, beside it are numbers and plots
  brainlandmarks evaluate --model runs/tuned/model --before brain88 --dataset my_set -o report
      two models side by side
  brainlandmarks evaluate --predictions found --truth my_set/landmarks -o report
      two folders of landmark files: found/0001_landmarks.csv and my_set/landmarks/0001.mrk.json
  brainlandmarks evaluate --label-maps maps/ -o report
      unseen synthetic scans of held-out label maps, and confidence against error
"""


# What each of the three ways of evaluating can do something with, of the options that are not
# for all of them; the value is what an option is without being given.
_OPTIONS: dict[str, tuple[tuple[str, ...], object]] = {
    "truth": (("predictions",), None),
    "protocol": (("predictions",), "brain88"),
    "before": (("dataset",), None),
    "split": (("dataset",), "test"),
    "heads": (("label_maps",), None),
    "scans": (("label_maps",), 10),
    "model": (("dataset", "label_maps"), "brain88"),
    "quality": (("dataset", "label_maps"), "standard"),
    "device": (("dataset", "label_maps"), "auto"),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model, or any landmarks, against the truth",
        description="Compare found landmarks with the truth: errors per group and landmark, the "
        "paper's Tables III and IV with MAE per coordinate and Euclidean, plots. The landmarks are "
        "those a model finds on a dataset, or landmark files, or those a model finds on unseen "
        "synthetic T1 scans that are rendered from held-out label maps.",
        epilog=_EXAMPLE,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", metavar="DIR", type=Path, help="scans with true landmarks")
    what.add_argument(
        "--predictions", metavar="DIR", type=Path, help="landmark files; needs --truth"
    )
    what.add_argument(
        "--label-maps", metavar="PATH", nargs="+", type=Path,
        help="FreeSurfer-numbered head label maps, or folders of them",
    )  # fmt: skip
    parser.add_argument("--truth", metavar="DIR", type=Path, help="true landmarks of --predictions")
    add_model(parser)
    parser.add_argument(
        "--before", metavar="NAME|DIR", help="an older model, to show side by side on --dataset"
    )
    parser.add_argument(
        "--split", default="test", metavar="NAME",
        help="heads of the dataset: train, validation, test or all (test)",
    )  # fmt: skip
    parser.add_argument(
        "--heads", metavar="STEM", nargs="+",
        help="which of the label maps to use (those that the model says were held out)",
    )  # fmt: skip
    parser.add_argument("--scans", type=int, default=10, help="scans of each label map (10)")
    parser.add_argument(
        "--protocol", default="brain88", metavar="NAME|FILE", help="of --predictions (brain88)"
    )
    add_quality(parser)
    add_device(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its tables; returns 0.

    Raises:
        UserError: options do not go together, or the model or a file cannot be used.
    """
    from BrainLandmarksLib.io.atomic import need_writable

    if (arguments.predictions is None) != (arguments.truth is None):
        raise UserError("--predictions and --truth go together: a folder each.")
    _need_no_others(arguments)
    need_at_least(arguments, scans=1)
    need_writable(arguments.output)
    if arguments.label_maps:
        print(_of_label_maps(arguments))
    elif arguments.dataset:
        print(_of_dataset(arguments))
    else:
        print(_of_folders(arguments))
    print(f"wrote {arguments.output / 'errors.md'}, numbers and plots")
    return 0


def _need_no_others(arguments: argparse.Namespace) -> None:
    """Check that every option that is given does something.

    Raises:
        UserError: one does not.
    """
    for name, (ways, without) in _OPTIONS.items():
        used = any(getattr(arguments, way) is not None for way in ways)
        if not used and getattr(arguments, name) != without:
            where = " or ".join(f"--{way.replace('_', '-')}" for way in ways)
            raise UserError(f"--{name} goes with {where}.")


def _of_label_maps(arguments: argparse.Namespace) -> str:
    from BrainLandmarksLib.network.model_files import load_model
    from BrainLandmarksTrainLib.evaluation.report import held_out_report

    return held_out_report(
        load_model(arguments.model),
        arguments.label_maps,
        arguments.heads,
        arguments.output,
        scans=arguments.scans,
        device=arguments.device,
        quality=arguments.quality,
    )


def _of_dataset(arguments: argparse.Namespace) -> str:
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.network.model_files import load_model
    from BrainLandmarksTrainLib.evaluation.comparison import Comparison
    from BrainLandmarksTrainLib.evaluation.model_comparison import (
        distinct_names,
        write_model_comparison,
    )
    from BrainLandmarksTrainLib.evaluation.report import write_comparison

    dataset = Dataset.open(arguments.dataset)
    entries = dataset.of_split(arguments.split)
    model = load_model(arguments.model)
    how = (arguments.device, terminal.progress, arguments.quality)
    comparison = Comparison.of_model(model, dataset, entries, *how)
    page = write_comparison(comparison, arguments.output, model.spec.name)
    if not arguments.before:
        return page
    old = load_model(arguments.before)
    before = Comparison.of_model(old, dataset, entries, *how)
    names = distinct_names(old, model)
    return page + "\n\n" + write_model_comparison(before, comparison, names, arguments.output)


def _of_folders(arguments: argparse.Namespace) -> str:
    from BrainLandmarksLib.protocol import load_protocol
    from BrainLandmarksTrainLib.evaluation.comparison import Comparison
    from BrainLandmarksTrainLib.evaluation.report import write_comparison

    comparison = Comparison.of_folders(
        arguments.predictions, arguments.truth, load_protocol(arguments.protocol)
    )
    name = arguments.predictions.absolute().name
    return write_comparison(comparison, arguments.output, name)
