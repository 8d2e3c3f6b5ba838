"""`brainlandmarks correct`: the guidelines applied to a person's annotation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.cli import reading
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from BrainLandmarksLib.io.tables import Table
    from BrainLandmarksLib.protocol import Protocol
    from BrainLandmarksLib.review import Edit, Review

_EXAMPLE = """\
examples:
  brainlandmarks correct head.mrk.json --dry-run          what would move, in mm
  brainlandmarks correct head.mrk.json                    writes head_corrected.mrk.json
  brainlandmarks correct head.mrk.json --image head.nii.gz --group "Brain Axial Boundary"
  brainlandmarks correct rater_A -o corrected_A           all files of a folder
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "correct",
        help="apply the guidelines to an annotation",
        description="Swap back names of left and right that were swapped, put the secondary "
        "points of a group onto its plane and spread them at equal distances along their outline. "
        "Primary points stay where they are, unless --primary is given.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "annotation", metavar="ANNOTATION", type=Path, help="a landmark file, or a folder of them"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path,
        help="file, or for a folder folder, to write (the name with _corrected)",
    )  # fmt: skip
    parser.add_argument("--group", metavar="NAME", nargs="+", help="only these groups (all)")
    parser.add_argument(
        "--image", metavar="IMAGE", type=Path,
        help="the annotated image, or a folder of images: outlines are traced on it",
    )  # fmt: skip
    reading.add_options(parser)
    parser.add_argument(
        "--primary", action="store_true", help="also put primary points onto the plane"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show the moves")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--protocol", default="brain88", metavar="NAME|FILE", help="the landmarks (brain88)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Correct one annotation or a folder of them; returns 0.

    Raises:
        UserError: a file cannot be read or written, or there is no such group.
    """
    from BrainLandmarksLib.io.atomic import need_absent, need_writable
    from BrainLandmarksLib.protocol import load_protocol
    from BrainLandmarksLib.review import read_review, write_review
    from BrainLandmarksLib.review.batch_correction import apply_guidelines, uncertainties

    protocol = load_protocol(arguments.protocol)
    for name in arguments.group or ():
        protocol.members(name)
    notes: list[str] = []
    inputs, outputs = _files(arguments.annotation, arguments.output, protocol, notes)
    if not arguments.dry_run:
        need_writable(outputs[0].absolute().parent)
        if not arguments.overwrite:
            need_absent(outputs)
    done = []
    for path in inputs:
        review, source = read_review(path, protocol)
        if review.current.missing.all():
            raise UserError(f"{path.name} has no landmark to correct.")
        image = _image_of(path, arguments.image)
        volume = reading.read(image, arguments) if image else None
        edits = apply_guidelines(review, arguments.group, volume, primary=arguments.primary)
        done.append((path, review, source, edits))
    # All or nothing: by now every file was read and corrected.
    for (_, review, source, _), output in zip(done, outputs, strict=True):
        if not arguments.dry_run:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_review(output, review, source)
    if len(done) == 1:
        _, review, _, edits = done[0]
        print(_moves(protocol, edits).plain() if edits else "nothing to move")
        off = ", ".join(f"{d.label} {d.mm:.1f} mm" for d in uncertainties(review, arguments.group))
        if off:
            print(f"primary points off their plane, which move with --primary only: {off}")
    else:
        rows = [_summary(path, review, edits, arguments.group) for path, review, _, edits in done]
        header = ("head", "swapped", "projected", "respaced", "mean, mm", "largest, mm", "check")
        from BrainLandmarksLib.io.tables import Table

        print(Table(header, rows).plain())
    for note in notes:
        print(f"note: {note}")
    if arguments.dry_run:
        print("dry run: nothing was written")
    else:
        print(f"wrote {outputs[0] if len(outputs) == 1 else outputs[0].parent}")
    return 0


def _moves(protocol: Protocol, edits: Sequence[Edit]) -> Table:
    """One row for each move: what, how far, and from where to where (RAS mm)."""
    from BrainLandmarksLib.io.tables import Table

    rows = []
    for edit in edits:
        landmark = protocol.by_label(edit.label)
        before, after = np.array(edit.before), np.array(edit.after)
        rows.append(
            (
                edit.label, landmark.group, landmark.role, edit.kind,
                float(np.linalg.norm(after - before)), *map(float, before), *map(float, after),
            )
        )  # fmt: skip
    header = ("landmark", "group", "role", "what", "mm", "R", "A", "S", "to R", "to A", "to S")
    return Table(header, rows, digits=1)


def _summary(
    path: Path, review: Review, edits: Sequence[Edit], groups: Sequence[str] | None
) -> tuple[object, ...]:
    from BrainLandmarksLib.io.pairing import annotation_stem
    from BrainLandmarksLib.review.batch_correction import uncertainties

    kinds = [edit.kind for edit in edits]
    moved = [edit.distance_mm or 0.0 for edit in edits]
    check = [
        f"{uncertainty.label} {uncertainty.mm:.1f}"
        for uncertainty in uncertainties(review, groups)[:3]
    ]
    return (
        annotation_stem(path),
        *(kinds.count(kind) for kind in ("swapped", "projected", "respaced")),
        float(np.mean(moved)) if moved else 0.0,
        float(max(moved, default=0.0)),
        ", ".join(check) or "-",
    )


def _files(
    annotation: Path, output: Path | None, protocol: Protocol, notes: list[str]
) -> tuple[list[Path], list[Path]]:
    """What to read and what to write; sentences on choices are added to the notes."""
    from BrainLandmarksLib.io.pairing import ANNOTATION_SUFFIXES, find_annotations

    if annotation.is_dir():
        inputs = list(find_annotations(annotation, protocol, notes).values())
        folder = output or annotation.with_name(f"{annotation.absolute().name}_corrected")
        return inputs, [folder / path.name for path in inputs]
    if output is not None:
        if not output.name.lower().endswith(ANNOTATION_SUFFIXES):
            raise UserError(
                f"{output.name} has no known suffix; use {', '.join(ANNOTATION_SUFFIXES)}."
            )
        return [annotation], [output]
    for suffix in ANNOTATION_SUFFIXES:
        if annotation.name.lower().endswith(suffix):
            name = annotation.name[: -len(suffix)]
            return [annotation], [annotation.with_name(f"{name}_corrected{suffix}")]
    raise UserError(
        f"{annotation.name} is not a landmark file; use the suffix "
        f"{', '.join(ANNOTATION_SUFFIXES)}."
    )


def _image_of(annotation: Path, image: Path | None) -> Path | None:
    """The image of an annotation: as given, or the one of its name in a folder."""
    from BrainLandmarksLib.io.images import stem
    from BrainLandmarksLib.io.pairing import annotation_stem

    if image is None or not image.is_dir():
        return image
    name = annotation_stem(annotation)
    # Files first: the folder of a name may be that of a head's other files.
    for path in sorted(image.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if stem(path) == name:
            return path
    raise UserError(
        f"there is no image of {annotation.name} in {image}; it would be called {name}."
    )
