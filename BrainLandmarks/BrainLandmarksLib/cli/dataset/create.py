"""`brainlandmarks dataset create`: a dataset of images and landmark files, paired by name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import reading, terminal
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.io.pairing import Pairing

_EXAMPLE = """\
examples:
  brainlandmarks dataset create scans -o my_set
      scans/head.nii.gz belongs to scans/head.mrk.json (or head_landmarks.csv, head_AB.fcsv)
  brainlandmarks dataset create bids/ bids/derivatives/points -o my_set --survey
      subjects are BIDS's sub-XX; images become 224 x 224 x 101 voxels of 1 x 1 x 2.2 mm
  brainlandmarks dataset create oasis -o my_set --subject-pattern '(OAS3[0-9]+)'
"""

_FAILED = 2


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command."""
    parser = actions.add_parser(
        "create",
        help="from images and landmark files",
        description="Pair images and landmark files by name, below the folders given, and copy "
        "them into a dataset. Images that cannot be used are named and left out.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", type=Path, help="folders to look in"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, type=Path)
    parser.add_argument(
        "--protocol", default="brain88", metavar="NAME|FILE", help="the landmarks (brain88)"
    )
    parser.add_argument(
        "--survey", action="store_true", help="convert images to the paper's survey geometry"
    )
    parser.add_argument(
        "--subject-pattern", metavar="REGEX",
        help="what the file name calls the subject: the first group of a regular expression. By "
        "default BIDS's sub-XX; without it every scan is a subject of its own",
    )  # fmt: skip
    reading.add_options(parser, dicom=False)
    parser.add_argument("--add", action="store_true", help="add to a dataset that exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make a dataset of paired files; returns 0, or 2 if some could not be used.

    Raises:
        UserError: nothing can be paired or used, or the folder cannot be written to.
    """
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.dataset.dataset import image_hash, need_empty
    from BrainLandmarksLib.dataset.importing import read_pair
    from BrainLandmarksLib.io.images import stem
    from BrainLandmarksLib.io.pairing import pair_up
    from BrainLandmarksLib.protocol import load_protocol

    pattern = _pattern(arguments.subject_pattern)
    folder: Path = arguments.output
    if not arguments.add:
        need_empty(folder)
    protocol = load_protocol(arguments.protocol)
    found = pair_up(arguments.sources, protocol)
    if not found.pairs:
        raise UserError(
            f"no image has a landmark file of its name ({len(found.lone_images)} images and "
            f"{len(found.lone_landmarks)} landmark files were found); the landmarks of head.nii.gz "
            "are head.mrk.json, head.csv or head.fcsv."
        )
    dataset: Dataset | None = Dataset.open(folder, protocol) if arguments.add else None
    rows, failures = [], len(found.problems)
    added: dict[str, str] = {}
    for problem in found.problems:
        terminal.report(UserError(problem))
    for number, pair in enumerate(found.pairs):
        terminal.progress(number, len(found.pairs), stem(pair.image))
        try:
            head = read_pair(
                pair,
                protocol,
                survey=arguments.survey,
                subject_pattern=pattern,
                assume_orientation=arguments.assume_orientation,
            )
            terminal.notes(head.notes)
            known_by = image_hash(head.volume)
            if known_by in added:
                raise UserError(
                    f"{pair.image.name} is the same image as {added[known_by]}, whose landmarks "
                    "stay; leave one of the two in the folders."
                )
            # Nothing is made before there is something to put in.
            if dataset is None:  # an empty one is false
                dataset = Dataset.create(folder, protocol)
            entry = dataset.add(
                head.volume, head.review, head.source, subject=head.subject, origin=head.origin
            )
        except UserError as error:
            failures += 1
            terminal.report(error)
            continue
        added[known_by] = pair.image.name
        missing = int(head.review.current.missing.sum())
        rows.append((entry.identity, entry.subject or "-", pair.image.name, pair.landmarks.name,
                     len(protocol) - missing, ", ".join(head.cut) or "-"))  # fmt: skip
    terminal.progress(len(found.pairs), len(found.pairs), "")
    if dataset is None:
        raise UserError(f"none of the {failures} images could be used; {folder} was not made.")
    _report_created(dataset, rows, found, failures)
    return _FAILED if failures else 0


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"--subject-pattern is no regular expression: {error}.") from None
    if pattern.groups < 1:
        raise UserError("--subject-pattern needs a group, such as '(OAS3[0-9]+)', for the subject.")
    return pattern


def _report_created(
    dataset: Dataset, rows: Sequence[Sequence[object]], found: Pairing, failures: int
) -> None:
    from BrainLandmarksLib.io.tables import Table

    header = ("head", "subject", "image", "landmarks", "placed", "cut off by the survey")
    print(Table(header, rows).plain())
    for note in found.notes:
        print(f"note: {note}")
    for what, lone in (
        ("images without landmarks", found.lone_images),
        ("landmark files without an image", found.lone_landmarks),
    ):
        if lone:
            shown = ", ".join(path.name for path in lone[:5]) + (", ..." if len(lone) > 5 else "")
            print(f"left out, {what}: {len(lone)} ({shown})")
    alone = sum(1 for entry in dataset.entries if not entry.subject)
    if alone:
        print(
            f"note: {alone} of the scans count as subjects of their own, because their names do "
            "not state one; give --subject-pattern if several are of one person"
        )
    print(f"added {len(rows)}, refused {failures}; heads in {dataset.folder}: {len(dataset)}")
