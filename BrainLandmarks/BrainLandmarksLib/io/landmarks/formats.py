"""Landmark files: Slicer markups (.mrk.json), a table (.csv) and the older .fcsv.

RAS millimetres inside, in .csv and in .fcsv; LPS in .mrk.json, Slicer's own convention. Every file
says which. Readers match points to the protocol by label, never by position alone, and refuse what
they do not understand, and sets that as a whole cannot be a head's as it lies in the scanner.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks.fcsv import read_fcsv, write_fcsv
from BrainLandmarksLib.io.landmarks.markups import read_mrk_json, write_mrk_json
from BrainLandmarksLib.io.landmarks.table import read_csv, write_csv
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.compliance import need_plausible
from BrainLandmarksLib.protocol.landmarks import LandmarkSet


def write_landmarks(
    path: str | os.PathLike[str], landmarks: LandmarkSet, *, plausibility: float | None = None
) -> None:
    """Write a landmark file in the format its suffix names: .mrk.json, .csv or .fcsv.

    >>> write_landmarks("head_landmarks.mrk.json", landmarks)

    Args:
        plausibility: Of the detection that found them; the file states it, and is marked if it is
            implausible.

    Raises:
        UserError: the suffix is none of these, or the file cannot be written.
    """
    _by_suffix(path, _WRITERS)(path, landmarks, plausibility=plausibility)


def read_landmarks(
    path: str | os.PathLike[str],
    protocol: Protocol,
    *,
    status: str = "truth",
    any_pose: bool = False,
) -> LandmarkSet:
    """Read a landmark file in the format its suffix names: .mrk.json, .json, .csv or .fcsv.

    Args:
        protocol: The landmarks to look for; those the file lacks come back missing.
        status: Status of points whose file does not state one.
        any_pose: Also take a head that lies with its left on the patient's right: this program's
            own answer on an image that was turned, or a file that is to be judged.

    Raises:
        UserError: the file is missing, damaged, its points do not fit the protocol, or all of them
            together cannot be right (:func:`.compliance.need_plausible`).
    """
    landmarks: LandmarkSet = _by_suffix(path, _READERS)(path, protocol, status=status)
    need_plausible(protocol, landmarks.points, Path(path).name, any_pose=any_pose)
    return landmarks


_Writer = Callable[..., None]
_Reader = Callable[..., LandmarkSet]

_WRITERS: dict[str, Any] = {".mrk.json": write_mrk_json, ".csv": write_csv, ".fcsv": write_fcsv}
_READERS: dict[str, Any] = {
    ".mrk.json": read_mrk_json,
    ".json": read_mrk_json,
    ".csv": read_csv,
    ".fcsv": read_fcsv,
}
FORMATS = tuple(suffix[1:] for suffix in _WRITERS)
"""Names of the formats that can be written: mrk.json, csv, fcsv."""


def _by_suffix(path: str | os.PathLike[str], choices: dict[str, Any]) -> Any:
    # Longest first: .fcsv ends in no other suffix, but .mrk.json also ends in .json.
    for suffix in sorted(choices, key=len, reverse=True):
        if str(path).lower().endswith(suffix):
            return choices[suffix]
    raise UserError(
        f"{Path(path).name} is not a landmark file; use the suffix {', '.join(choices)}."
    )
