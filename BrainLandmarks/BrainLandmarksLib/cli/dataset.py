"""`brainlandmarks dataset`: make a training dataset, check it, split it."""

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
  brainlandmarks dataset create scans -o my_set              images and landmarks, paired by name
  brainlandmarks dataset check my_set                        validate every file and landmark
  brainlandmarks dataset split my_set                        training, validation and test heads
  brainlandmarks dataset annotate scans --maps gif -o points  landmarks from segmentations
  brainlandmarks dataset synthesize --label-maps maps -n 12 -o demo
                                                             a set to try everything with
"""
_CREATE_EXAMPLE = """\
examples:
  brainlandmarks dataset create scans -o my_set
      scans/head.nii.gz belongs to scans/head.mrk.json (or head_landmarks.csv, head_AB.fcsv)
  brainlandmarks dataset create bids/ bids/derivatives/points -o my_set --survey
      subjects are BIDS's sub-XX; images become 224 x 224 x 101 voxels of 1 x 1 x 2.2 mm
  brainlandmarks dataset create oasis -o my_set --subject-pattern '(OAS3[0-9]+)'
"""
_CHECK_EXAMPLE = """\
examples:
  brainlandmarks dataset check my_set             exit code 1 if the set is broken
  brainlandmarks dataset check my_set --accept    files were changed on purpose: renew checksums
"""
_SPLIT_EXAMPLE = """\
examples:
  brainlandmarks dataset split my_set                              30 and 50 of 234, as the paper
  brainlandmarks dataset split my_set --validation 0.2 --test 0.2  shares of a small set
  brainlandmarks dataset split my_set --validation 30 --test 50 --seed 7
"""

_BROKEN = 1
_FAILED = 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "dataset",
        help="make, check and split a training dataset",
        description="A dataset is a folder of images with landmarks and a list of them, "
        "dataset.json. Training and evaluation read it, and Add to dataset in 3D Slicer writes it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_create(actions)
    _add_check(actions)
    _add_split(actions)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    return actions.add_parser(
        name,
        help=summary,
        description=description,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# create -------------------------------------------------------------------------------------------


def _add_create(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _action(
        actions, "create", "from images and landmark files",
        "Pair images and landmark files by name, below the folders given, and copy them into a "
        "dataset. Images that cannot be used are named and left out.",
        _CREATE_EXAMPLE,
    )  # fmt: skip
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
    parser.set_defaults(run=create)


def create(arguments: argparse.Namespace) -> int:
    """Make a dataset of paired files; returns 0, or 2 if some could not be used.

    Raises:
        UserError: nothing can be paired or used, or the folder cannot be written to.
    """
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.dataset.dataset import need_empty
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
        missing = int(head.review.current.missing.sum())
        rows.append((entry.identity, entry.subject or "-", pair.image.name, pair.landmarks.name,
                     len(protocol) - missing, ", ".join(head.cut) or "-"))  # fmt: skip
    terminal.progress(len(found.pairs), len(found.pairs), "")
    if dataset is None:
        raise UserError(f"none of the {failures} images could be used; {folder} was not made.")
    _tell_created(dataset, rows, found, failures)
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


def _tell_created(
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


# check --------------------------------------------------------------------------------------------


def _add_check(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _action(
        actions, "check", "validate every file and landmark",
        "Check that files are there, readable and unchanged, and that every landmark lies inside "
        "the image, near its plane, in order along its outline and on its side; that no image is "
        "there twice and no subject in two splits.",
        _CHECK_EXAMPLE,
    )  # fmt: skip
    parser.add_argument("dataset", metavar="DIR", type=Path)
    parser.add_argument(
        "--off-plane", metavar="MM", type=float, default=5.0,
        help="how far a landmark may lie off the plane that its group shares (5)",
    )  # fmt: skip
    parser.add_argument(
        "--accept", action="store_true", help="renew the checksums of files changed on purpose"
    )
    parser.set_defaults(run=check)


def check(arguments: argparse.Namespace) -> int:
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


# split --------------------------------------------------------------------------------------------


def _add_split(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _action(
        actions, "split", "training, validation and test heads",
        "Draw validation and test heads, by subject and never by scan, and store the split in the "
        "dataset. Heads that are in a split stay there, so heads added later can be split, too.",
        _SPLIT_EXAMPLE,
    )  # fmt: skip
    parser.add_argument("dataset", metavar="DIR", type=Path)
    for name, share in (("validation", "30"), ("test", "50")):
        parser.add_argument(
            f"--{name}", metavar="N", type=float,
            help=f"number of heads, or below 1 the share of all ({share} of 234, as in the paper)",
        )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="another seed, another split (0)")
    parser.add_argument("--again", action="store_true", help="forget the present split")
    parser.add_argument(
        "--last", action="store_true", help="the last subjects by name, instead of drawn ones"
    )
    parser.set_defaults(run=split)


def split(arguments: argparse.Namespace) -> int:
    """Store a split and print its sizes; returns 0.

    Raises:
        UserError: the folder is no dataset, or has too few subjects.
    """
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.dataset.dataset import SPLITS
    from BrainLandmarksLib.dataset.split import split_dataset
    from BrainLandmarksLib.io.tables import Table

    dataset = Dataset.open(arguments.dataset)
    wanted = {
        name: value
        for name in ("validation", "test")
        if (value := getattr(arguments, name)) is not None
    }
    split_dataset(
        dataset, seed=arguments.seed, again=arguments.again, last=arguments.last, **wanted
    )
    rows = []
    for name in SPLITS:
        entries = [entry for entry in dataset.entries if entry.split == name]
        rows.append((name, len(entries), len({entry.person for entry in entries})))
    print(Table(("split", "heads", "subjects"), rows).plain())
    return 0
