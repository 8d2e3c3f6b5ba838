"""`brainlandmarks report`: the table of a cohort and a page with the uncertain scans first."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
examples:
  brainlandmarks report data/derivatives/brainlandmarks             writes cohort.tsv, cohort.html
  brainlandmarks report data/derivatives/brainlandmarks --shown 50  more scans with pictures
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="table and quality page of a cohort",
        description="Write the table of the scans that detect --bids worked on, and a page of them "
        "that opens in any browser without a network, the uncertain ones first. Corrections that "
        "were saved over the .mrk.json files count.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="output of detect --bids")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: DIR/cohort.html)"
    )
    parser.add_argument(
        "--shown",
        type=int,
        default=20,
        metavar="N",
        help="scans with a picture and a 3-D view, worst first; all are listed (default: 20)",
    )
    parser.add_argument(
        "--bids", type=Path, metavar="DIR", help="the BIDS dataset, if it was moved since"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the table and the page; returns 0.

    Raises:
        UserError: the folder holds no results, or a file cannot be written.
    """
    from BrainLandmarksLib.cohort.derivatives import Derivatives
    from BrainLandmarksLib.cohort.report import write_report
    from BrainLandmarksLib.cohort.table import TABLE_FILE
    from BrainLandmarksLib.cohort.viewer import INSTALL, find_bundle

    if arguments.shown < 0:
        raise UserError("--shown must be 0 or more.")
    if arguments.bids is not None and not arguments.bids.is_dir():
        raise UserError(f"there is no folder {arguments.bids}; check the path of the BIDS dataset.")
    results = Derivatives.open(arguments.folder)
    path = write_report(
        results,
        arguments.output,
        raw=arguments.bids,
        shown=arguments.shown,
        progress=terminal.progress,
    )
    terminal.clear()
    print(f"wrote {results.folder / TABLE_FILE}")
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if find_bundle() is None:
        print(f"for the interactive view: {INSTALL}, then make the page again")
    return 0
