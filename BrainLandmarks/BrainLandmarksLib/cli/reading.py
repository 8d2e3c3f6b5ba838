"""Reading the user's image files: the options of all commands that do, and what is noted of one.

>>> add_options(parser)
>>> volume = read(path, parser.parse_args())
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import terminal

if TYPE_CHECKING:
    from BrainLandmarksLib.imaging.volume import Volume


def add_options(parser: argparse.ArgumentParser, *, dicom: bool = True) -> None:
    """Add what cannot be read from every image: --assume-orientation and, for DICOM, --series."""
    if dicom:
        parser.add_argument(
            "--series",
            metavar="NUMBER|TEXT",
            help="which series of a DICOM folder: its number, its UID or a part of its description "
            "(default: the one that is most like a T1; in uncertainty all are listed)",
        )
    parser.add_argument(
        "--assume-orientation",
        metavar="CODE",
        help="where the voxel axes i, j, k point if an image does not state it, such as RAS or "
        "LPS; it is refused otherwise. If this is wrong, left and right are swapped",
    )


def reader(arguments: argparse.Namespace) -> Callable[[Path], Volume]:
    """A function that reads an image as the options say; its notes stay with the volume."""

    def read_one(path: Path) -> Volume:
        from BrainLandmarksLib.io.images import read_image

        return read_image(
            path,
            series=getattr(arguments, "series", None),
            assume_orientation=arguments.assume_orientation,
        )

    return read_one


def read(path: Path, arguments: argparse.Namespace) -> Volume:
    """Read an image as the options say and print its notes.

    Raises:
        UserError: as `images.read_image`.
    """
    volume = reader(arguments)(path)
    terminal.notes(volume.notes)
    return volume
