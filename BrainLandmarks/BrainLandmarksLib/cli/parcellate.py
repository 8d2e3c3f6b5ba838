"""`brainlandmarks parcellate`: which voxel of a head is which structure, as label maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import options, reading, terminal
from BrainLandmarksLib.cli.each_image import check_names, each_image, named
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import need_absent, need_writable
from BrainLandmarksLib.resources import image_path

if TYPE_CHECKING:
    from BrainLandmarksLib.io.tables import Table

_EXAMPLE = """\
examples:
  brainlandmarks parcellate head.nii.gz -o labels.nii.gz    writes labels.nii.gz and labels.tsv
  brainlandmarks parcellate *.nii.gz -o results             many images: results/NAME_labels.nii.gz
  brainlandmarks parcellate sample:colin27 -o labels.nii.gz
"""
FORCE_HINT = "With --force the label map is written all the same."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "parcellate",
        help="divide the brain into its structures",
        description="Write which voxel of a T1-weighted image of a head is which structure of the "
        "brain: a label map with FreeSurfer's numbers in the image's own voxels, and beside it a "
        "table (.tsv) with the names, colours and volumes of the structures.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="NIfTI, MGZ, NRRD or MetaImage file, or a folder of DICOM files",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="OUT",
        help="label map to write (.nii or .nii.gz), or a folder for those of one or more images",
    )
    options.add_model(parser)
    options.add_device(parser)
    reading.add_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument(
        "--force",
        action="store_true",
        help="write the label map even if no head was recognised",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Parcellate every image and return the exit code: 2 if any image failed.

    Raises:
        UserError: nothing can be done at all: a wrong model, device or output.
    """
    paths = [image_path(argument) for argument in arguments.images]
    outputs = _outputs(paths, arguments.output)

    from BrainLandmarksLib.annotation.label_files import table_file, write_parcellation
    from BrainLandmarksLib.detection import Detector

    detector = Detector(arguments.model, arguments.device)
    detector.need_parcellation()
    read = reading.reader(arguments)

    def parcellate(path: Path) -> None:
        output = outputs[path]
        if not arguments.overwrite:
            need_absent((output, table_file(output)))
        volume = read(path)
        found = detector.parcellate(volume, force=arguments.force)
        grid = volume.file_grid
        table = write_parcellation(output, found.labels.labels_on(grid), grid)
        terminal.notes(named(note, path, paths) for note in found.notes)
        if len(paths) == 1:
            print(_volumes(table))
            print(f"\nwrote {output}\nwrote {table_file(output)}")

    failures = each_image(paths, parcellate, FORCE_HINT)
    if len(paths) > 1:
        done = len(paths) - failures
        print(f"{done} of {len(paths)} images done, results in {arguments.output}")
    return 2 if failures else 0


def _outputs(paths: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Each image and the label map that is to be written of it.

    Raises:
        UserError: it cannot be, or not under a name of its own.
    """
    from BrainLandmarksLib.annotation.label_files import is_label_map
    from BrainLandmarksLib.io.images import stem

    if is_label_map(output):
        if len(paths) > 1:
            raise UserError(
                f"{output} is one file, and there are {len(paths)} images; give a folder."
            )
        if output.is_dir():
            raise UserError(f"{output} is a folder; give another name.")
        need_writable(output.parent)
        return {paths[0]: output}
    if output.suffix and not output.is_dir():
        raise UserError(
            f"{output.name} has no known suffix; use .nii.gz or .nii for a label map, or give a "
            "folder."
        )
    check_names(paths)
    need_writable(output)
    return {path: output / f"{stem(path)}_labels.nii.gz" for path in paths}


def _volumes(table: Table) -> str:
    """The structures as text for a terminal: number, name, volume."""
    from BrainLandmarksLib.io.tables import Table

    rows = [(index, name, volume) for index, name, _, _, _, volume in table.rows]
    return Table(("index", "structure", "volume ml"), rows, digits=1).plain()
