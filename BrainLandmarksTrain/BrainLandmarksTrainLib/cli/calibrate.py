"""`brainlandmarks calibrate`: fit a model to a scanner without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.cli.options import add_device
from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
examples:
  brainlandmarks calibrate brain88 my_set -o mine
  brainlandmarks detect head.nii.gz -o results --model mine
  brainlandmarks evaluate --model mine --before brain88 --dataset my_set -o report
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit a model to a scanner without training",
        description="Measure on annotated scans how heads vary, how the landmarks of a model lie "
        "off on them, and how far to trust them, and write a model that takes this into account. "
        "It takes two detections per scan and no GPU. Scans of the training split give the "
        "correction, those of the validation split the confidence.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("model", metavar="MODEL", help="name or folder of the model")
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="dataset folder")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the new model"
    )
    parser.add_argument("--name", help="of the new model (the old one's with -calibrated)")
    parser.add_argument(
        "--heads", type=int, metavar="N", help="scans that errors are measured on (24)"
    )
    add_device(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the new model; returns 0.

    Raises:
        UserError: the model or the dataset cannot be used, or the folder exists.
    """
    import numpy as np

    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.geometry.correction import FEWEST_HEADS
    from BrainLandmarksLib.io.tables import Table
    from BrainLandmarksLib.network.model_files import REAL_SCANS, load_model, save_model
    from BrainLandmarksTrainLib.pipeline.calibrate import HEADS, calibrate_model

    if arguments.output.exists():
        raise UserError(f"{arguments.output} exists already; choose another folder.")
    heads = HEADS if arguments.heads is None else arguments.heads
    if heads < FEWEST_HEADS:
        raise UserError(f"--heads {heads} is too few; {FEWEST_HEADS} are needed.")
    model = calibrate_model(
        load_model(arguments.model),
        Dataset.open(arguments.dataset),
        name=arguments.name,
        heads=heads,
        device=arguments.device,
        progress=terminal.progress,
    )
    save_model(model, arguments.output)
    assert model.correction is not None
    rows = []
    for part, errors in model.correction.errors.items():
        length = np.linalg.norm(errors.offset, axis=1)
        largest = model.protocol.labels[int(length.argmax()) % len(model.protocol)]
        rows.append((part, float(length.mean()), float(length.max()), largest))
    print(Table(("source", "mean offset mm", "largest mm", "of"), rows).plain())
    measured = model.spec.held_out.get(REAL_SCANS)
    if measured is not None:
        print(
            f"\nerror on the {measured['scans']} scans of the validation split, mm, without eyes:"
        )
        names = ("n", "mean", "median", "p90", "per_coordinate", "before")
        lines = [(g, *(v[name] for name in names)) for g, v in measured["errors_mm"].items()]
        header = ("group", *names[:4], "per coordinate", "networks alone")
        print(Table(header, lines).plain())
    print(f"wrote {arguments.output}")
    return 0
