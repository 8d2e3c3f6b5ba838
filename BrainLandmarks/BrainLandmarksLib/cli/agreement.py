"""`brainlandmarks agreement`: how well several people's annotations agree."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.errors import UserError

_EXAMPLE = """\
examples:
  brainlandmarks agreement rater_A rater_B -o agreement
      files of one head have one name: rater_A/0001.mrk.json and rater_B/0001.csv
  brainlandmarks agreement rater_A rater_B -o agreement --corrected corrected_A corrected_B
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "agreement",
        help="how well people agree on landmarks",
        description="Compare several people's annotations of the same heads: distances, "
        "intraclass correlation, Bland-Altman limits, planes and equal spacing, and a ranked list "
        "of what to annotate again.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="landmark files, a folder per person"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, type=Path)
    parser.add_argument(
        "--corrected", metavar="DIR", nargs="+", type=Path,
        help="the same people's corrected annotations, in the same order",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", default="brain88", metavar="NAME|FILE", help="the landmarks (brain88)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its short form; returns 0.

    Raises:
        UserError: the folders do not fit together, or a file cannot be read or written.
    """
    from BrainLandmarksLib.agreement.ratings import Ratings, group_table
    from BrainLandmarksLib.agreement.report import write_agreement
    from BrainLandmarksLib.io.atomic import need_writable
    from BrainLandmarksLib.protocol import load_protocol

    need_writable(arguments.output)
    people = len(arguments.folders)
    if arguments.corrected and len(arguments.corrected) != people:
        raise UserError(
            f"there are {people} people and --corrected names {len(arguments.corrected)} folders; "
            "give one for each, in the same order."
        )
    protocol = load_protocol(arguments.protocol)
    ratings = Ratings.read(arguments.folders, protocol)
    corrected = Ratings.read(arguments.corrected, protocol) if arguments.corrected else None
    write_agreement(ratings, arguments.output, corrected)
    print(f"{len(ratings.heads)} heads, {len(ratings.raters)} people, distances in mm")
    if ratings.left_out:
        print(f"left out, not annotated by all: {', '.join(ratings.left_out)}")
    for note in (*ratings.notes, *(corrected.notes if corrected is not None else ())):
        print(f"note: {note}")
    print(group_table(ratings).plain())
    if corrected is not None:
        print(f"\nafter correction\n{group_table(corrected).plain()}")
    print(f"\nwrote {arguments.output / 'agreement.md'}, tables and pictures")
    return 0
