"""`brainlandmarks dataset annotate`: landmarks of scans from segmentations of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from BrainLandmarksLib.dataset.annotating import AnnotatedHead, SegmentedHead

NAME = "dataset annotate"

_EXAMPLE = """\
examples:
  brainlandmarks dataset annotate scans --maps gif dlmuse -o points
      scans/head.nii.gz is segmented in gif/head.nii.gz, dlmuse/head_dseg.nii.gz, or both
  brainlandmarks dataset annotate scans --maps labels.json=ours -o points
      labels.json says what the numbers of the maps in the folder ours are
  brainlandmarks dataset create scans points -o my_set
      the dataset of these scans
"""

_FAILED = 2
_TABLE = "annotated.tsv"
"""No .csv: among landmark files that would be one."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="landmarks of scans from segmentations of them",
        description="Place the landmarks of brain88 by rule on the label maps of scans. Where a "
        "scan has maps by several methods, landmarks on which they agree within 4 mm count, after "
        "what a method is usually off the first one has been taken off. The eyes are found on the "
        "image. Heads whose landmarks together are implausible are named and left out.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("images", metavar="IMAGES", type=Path, help="folder of T1 scans")
    parser.add_argument(
        "--maps", metavar="[LABELS=]DIR", nargs="+", required=True,
        help="folders of label maps named as the scans, one for each method, the most trusted "
        "first; LABELS is a label scheme as in annotate (auto)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, type=Path,
        help=f"new folder of landmark files and a table of all scans, {_TABLE}",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", action="store_true", help="also a picture of every head, to look at"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the landmark files and the table; returns 0, or 2 if a head was left out.

    Raises:
        UserError: a folder or a label scheme does not exist, no scan has a map, or the output
            folder is not empty.
    """
    from BrainLandmarksLib.annotation import PROTOCOL, load_scheme
    from BrainLandmarksLib.dataset.annotating import annotate_heads
    from BrainLandmarksLib.dataset.dataset import need_empty
    from BrainLandmarksLib.detection.plausibility import Judge
    from BrainLandmarksLib.io.landmarks import write_landmarks
    from BrainLandmarksLib.io.tables import Table
    from BrainLandmarksLib.network.model_files import load_model

    folder: Path = arguments.output
    need_empty(folder)
    schemes, folders = _methods(arguments.maps)
    for scheme in schemes.values():
        load_scheme(scheme)  # a wrong name is reported before any image is read
    heads, alone = _heads(arguments.images, folders)
    model = load_model(PROTOCOL)
    assert model.shape is not None
    judge = Judge(model.shape, model.spec.mean_shape)
    steps = sum(len(head.maps) for head in heads) + len(heads)
    images = {head.name: head.image for head in heads}
    rows, left_out = [], 0
    folder.mkdir(parents=True, exist_ok=True)
    for head in annotate_heads(
        heads, model.shape, judge, schemes=schemes,
        report=lambda done, name: terminal.progress(done, steps, name),
    ):  # fmt: skip
        rows.append(_row(head))
        left_out += not head.usable
        if head.usable and head.landmarks is not None:
            write_landmarks(folder / f"{head.name}.mrk.json", head.landmarks)
            if arguments.pictures:
                _draw(head, images[head.name], folder)
    header = ("head", "methods", "placed", "missing", "plausibility", "result", "problems")
    table = Table(header, rows)
    table.write_tsv(folder / _TABLE)
    print(table.plain())
    if alone:
        shown = ", ".join(path.name for path in alone[:5]) + (", ..." if len(alone) > 5 else "")
        print(f"left out, scans without a label map: {len(alone)} ({shown})")
    print(f"annotated {len(heads) - left_out}, left out {left_out}; wrote {folder}")
    return _FAILED if left_out else 0


def _methods(texts: Sequence[str]) -> tuple[dict[str, str], dict[str, Path]]:
    """Schemes and folders of the methods, which are called as their folders."""
    schemes, folders = {}, {}
    for text in texts:
        scheme, _, path = text.rpartition("=")
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give a folder of label maps to --maps.")
        name = folder.absolute().name
        if name in folders:
            raise UserError(f"two folders of label maps are called {name}; rename one.")
        folders[name] = folder
        if scheme:
            schemes[name] = scheme
    return schemes, folders


def _heads(images: Path, folders: dict[str, Path]) -> tuple[list[SegmentedHead], list[Path]]:
    """Scans with label maps, by name, and scans without.

    Folders of label maps may lie in that of the scans; their images are no scans.

    Raises:
        UserError: no scan has a map, or two have one name, which is that of their results.
    """
    from BrainLandmarksLib.dataset.annotating import SegmentedHead
    from BrainLandmarksLib.io.images import stem
    from BrainLandmarksLib.io.pairing import find_images, image_of_same_head

    apart = {_absolute(folder) for folder in folders.values()}
    scans = [scan for scan in find_images(images) if not apart & set(_absolute(scan).parents)]
    if not scans:
        raise UserError(f"{images} holds label maps only; give the folder of the scans.")
    first: dict[str, Path] = {}
    for scan in scans:
        twin = first.setdefault(stem(scan), scan)
        if twin is not scan:
            raise UserError(
                f"{twin.relative_to(images)} and {scan.relative_to(images)} have one name, so "
                "their landmarks would be one file; rename one of them."
            )
    maps = {method: find_images(folder) for method, folder in folders.items()}
    heads, alone = [], []
    for scan in scans:
        own = {
            method: found
            for method, files in maps.items()
            if (found := image_of_same_head(scan, files)) is not None
        }
        if own:
            heads.append(SegmentedHead(stem(scan), scan, own))
        else:
            alone.append(scan)
    if not heads:
        raise UserError(
            f"none of the {len(scans)} scans in {images} has a label map of its name; the map of "
            "head.nii.gz is head.nii.gz or, for instance, head_dseg.nii.gz in another folder."
        )
    return heads, alone


def _absolute(path: Path) -> Path:
    """The path without "..", but through links as it was given."""
    return Path(os.path.abspath(path))


def _row(head: AnnotatedHead) -> tuple[object, ...]:
    missing = 0 if head.landmarks is None else int(head.landmarks.missing.sum())
    placed = 0 if head.landmarks is None else len(head.landmarks) - missing
    result = "used" if head.usable else "left out"
    problems = list(head.problems)
    if head.landmarks is not None and not head.usable:
        problems.append("these landmarks are not those of a head")
    return (
        head.name, ", ".join(head.methods) or "-", placed, missing, f"{head.plausibility:.3f}",
        result, " ".join(problems) or "-",
    )  # fmt: skip


def _draw(head: AnnotatedHead, image: Path, folder: Path) -> None:
    from BrainLandmarksLib.figures.slices import draw_landmarks
    from BrainLandmarksLib.io.images import read_image

    assert head.landmarks is not None
    draw_landmarks(read_image(image), head.landmarks, folder / f"{head.name}.png", title=head.name)
