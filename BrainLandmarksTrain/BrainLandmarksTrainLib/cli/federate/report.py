"""`brainlandmarks federate report`: what each site has of it, by its own held-out scans."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.cli.options import add_device

_EXAMPLE = """\
examples:
  brainlandmarks federate report --sites scans --before brain88 --federated joined/model -o report
  brainlandmarks federate report --sites a b c --before brain88 --local runs/a/model runs/b/model \\
      runs/c/model --federated federation/model --pooled runs/pooled/model -o report
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command line."""
    parser = actions.add_parser(
        "report",
        help="compare local, federated and pooled training at each site",
        description="Measure models on each site's own held-out scans (the test split) and write "
        "one table: before, trained alone, trained together, trained on everybody's scans. A "
        "hospital gives its own dataset alone and gets its row.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "--sites", nargs="+", required=True, type=Path, metavar="DIR", help="dataset folders"
    )
    parser.add_argument("--before", required=True, metavar="MODEL", help="the model at the start")
    parser.add_argument(
        "--federated", nargs="+", required=True, metavar="MODEL",
        help="the federated model; with local batch norm one for each site",
    )  # fmt: skip
    parser.add_argument(
        "--local", nargs="+", metavar="MODEL", help="each site's model, trained alone"
    )
    parser.add_argument("--pooled", metavar="MODEL", help="the model of all scans in one place")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the report"
    )
    add_device(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and write the report; returns 0.

    Raises:
        UserError: a model or a dataset cannot be used, or their numbers do not fit.
    """
    from BrainLandmarksTrainLib.federation.report import PAGE, compare_sites

    columns = {
        "before": [arguments.before],
        "local": arguments.local or [],
        "federated": arguments.federated,
        "pooled": [arguments.pooled] if arguments.pooled else [],
    }
    page = compare_sites(
        arguments.sites, columns, arguments.output, arguments.device, terminal.progress
    )
    print(page)
    print(f"wrote {arguments.output / PAGE} and its numbers")
    return 0
