"""Rows of a landmark file matched with the landmarks of a protocol."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError, nearest
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.delimited import (
    number,
)
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import STATUSES, LandmarkSet

PLAUSIBILITY = "plausibility"
"""What files call how much the detection is of a head, 0 to 1 (`detection.plausibility`)."""

IMPLAUSIBLE_MARK = " (implausible)"
"""Ends the name of a list whose points are of no head."""

# A description reads "left frontal pole (confidence 0.93, model)" or "left frontal pole (missing:
# outside the image)". It is the only field of a control point that survives every round trip
# through Slicer, so it carries all of this.
DESCRIPTION = re.compile(
    r"^(?P<name>.*?) \((?:confidence (?P<confidence>[0-9.]+), )?(?P<status>"
    + "|".join(STATUSES)
    + r")(?:: (?P<note>.*))?\)$"
)
# What Slicer calls points nobody named: F-1, F_2, landmarks-3, or nothing but a number.
_UNNAMED = re.compile(r"^(?:(?P<stem>.*)[-_ ])?(?P<number>\d+)$")

LandmarkRow = tuple[int, Sequence[float], str, float, str]
"""Row of the protocol, RAS position (NaN if missing), status, confidence (NaN if none), note."""


def match_rows(
    name: str, protocol: Protocol, labels: Sequence[str], names: Sequence[str]
) -> list[int]:
    """The protocol's row of each point of a file, by label, number or, all unnamed, by order.

    Args:
        labels: What the file calls the points.
        names: The descriptions, "" where there is none; a second witness.
    """
    if not labels:
        raise UserError(f"{name} holds no points.")
    labels = [_plain(label) for label in labels]
    names = [_plain(description) for description in names]
    known = _known(protocol)
    if _are_unnamed(labels, known):
        if len(labels) != len(protocol):
            raise UserError(
                f"{name} has {len(labels)} points without names, {protocol.name} has "
                f"{len(protocol)} landmarks; name the points by their labels."
            )
        return list(range(len(labels)))
    # Numbers mean something only in a whole set: 1 to 32 of another protocol are other landmarks.
    numbered = len(labels) == len(protocol)
    running = not numbered and labels == [str(n) for n in range(1, len(labels) + 1)]
    rows: list[int] = []
    for label, description in zip(labels, names, strict=True):
        row = known.get(label.casefold())
        witness = known.get(description.casefold())
        if row is None and (not label or (running and witness is not None)):
            # Numbers that only count the rows of a part of a set say nothing.
            row = witness
        if row is None and (numbered or witness is not None):
            row = _counted(label, protocol)
        if row is None:
            raise UserError(_unknown(name, protocol, label))
        if witness is not None and witness != row:
            raise UserError(
                f"{name}: the point {label} is described as {description}, but in "
                f"{protocol.name} it is {protocol.landmarks[row].name}; correct one of the two."
            )
        if row in rows:
            raise UserError(f"{name} has the landmark {label} twice; remove one of the two.")
        rows.append(row)
    return rows


def _plain(text: str) -> str:
    """A label or description as it is compared: no spaces at the ends, single ones inside."""
    return " ".join(text.split())


def _known(protocol: Protocol) -> dict[str, int]:
    """The row of everything that a landmark is called: label, name, other names; lower case."""
    return {
        _plain(text).casefold(): row
        for row, landmark in enumerate(protocol)
        for text in (*landmark.aliases, landmark.name, landmark.label)
    }


def _counted(label: str, protocol: Protocol) -> int | None:
    """The row of a landmark that is called by its number."""
    if label.isdecimal() and 1 <= int(label) <= len(protocol):
        return int(label) - 1
    return None


def _are_unnamed(labels: Sequence[str], known: dict[str, int]) -> bool:
    """Whether all labels are empty, or one common word and the numbers 1, 2, 3 ..."""
    if any(label.casefold() in known for label in labels):
        return False
    if not any(labels):
        return True
    found = [_UNNAMED.match(label) for label in labels]
    stems = {match["stem"] for match in found if match}
    return (
        all(found)
        and len(stems) == 1
        and None not in stems
        and [int(match["number"]) for match in found if match] == list(range(1, len(labels) + 1))
    )


def _unknown(name: str, protocol: Protocol, label: str) -> str:
    if label.isdecimal():
        return (
            f"{name} has a point {label!r}, which {protocol.name} does not know: points may go by "
            f"number where all {len(protocol)} are there, or where their descriptions say the same."
        )
    near = nearest(label, protocol.labels, 0.4)
    hint = f"; did you mean {near}?" if near else "; check the protocol."
    return f"{name} has a point {label!r}, which {protocol.name} does not know{hint}"


def landmark_name(description: str) -> str:
    """The name within a description this project wrote; other texts as they are."""
    found = DESCRIPTION.match(description)
    return found["name"] if found else description


def assemble(protocol: Protocol, rows: Iterable[LandmarkRow]) -> LandmarkSet:
    """A landmark set of (row, position, status, confidence); rows not given are missing."""
    points = np.full((len(protocol), 3), np.nan)
    confidence = np.full(len(protocol), np.nan)
    statuses, notes = ["missing"] * len(protocol), [""] * len(protocol)
    for row, position, status, level, note in rows:
        points[row], statuses[row], confidence[row], notes[row] = position, status, level, note
    return LandmarkSet(protocol, points, statuses, confidence, notes)


def is_lps(name: str, system: object) -> bool:
    """Whether a coordinate system, as Slicer's headers write it, is LPS; RAS otherwise."""
    if str(system).upper() in ("RAS", "0"):
        return False
    if str(system).upper() in ("LPS", "1"):
        return True
    raise UserError(f"{name} is in the coordinate system {system}; only RAS and LPS are known.")


def confidence_of(place: str, text: str) -> float:
    """Confidence that a file states, NaN for none.

    Raises:
        UserError: it is no number from 0 to 1; ``place`` says where.
    """
    if not text:
        return math.nan
    value = number(text)
    if not 0 <= value <= 1:
        raise UserError(f"{place}: the confidence {text!r} is not between 0 and 1.")
    return value


def number_text(value: float, digits: int) -> str:
    """Fixed digits; empty for NaN; never a negative zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}" if math.isfinite(value) else ""


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file, without the mark that some editors begin UTF-8 with.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{Path(path).name} is not a text file of landmarks.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
