"""A head for a dataset from two files: an image and its landmarks.

>>> for pair in pair_up(["scans"]).pairs:
...     head = read_pair(pair, protocol, survey=True)
...     dataset.add(head.volume, head.review, subject=head.subject, origin=head.origin)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from BrainLandmarksLib.imaging.survey import to_survey
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image, stem
from BrainLandmarksLib.io.pairing import Pair, subject_of
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.compliance import need_plausible
from BrainLandmarksLib.review import Review, read_review


@dataclass(frozen=True)
class ImportedHead:
    """What `Dataset.add` takes, the landmarks that a survey's field of view cut
    off, and what of the image was uncertain."""

    volume: Volume
    review: Review
    source: dict[str, Any]
    subject: str
    origin: dict[str, Any]
    cut: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_pair(
    pair: Pair,
    protocol: Protocol,
    *,
    survey: bool = False,
    subject_pattern: re.Pattern[str] | None = None,
    assume_orientation: str | None = None,
) -> ImportedHead:
    """Read an image with its landmarks.

    The subject is the one that the name states in BIDS's way, or by the pattern. Any other name may
    be a patient's, so it goes nowhere, and the scan counts as a subject of its own.

    Args:
        survey: Convert the image to survey geometry (:mod:`.survey`); landmarks that are not in its
            field of view become missing.
        subject_pattern: As for `pairing.subject_of`.
        assume_orientation: As for `images.read_image`.

    Raises:
        UserError: a file cannot be read, the landmarks are of another protocol or together cannot
            be right, or the image cannot be made a survey.
    """
    # The points first: they are read in no time.
    review, source = read_review(pair.landmarks, protocol)
    need_plausible(protocol, review.current.points, pair.landmarks.name)
    volume = read_image(pair.image, assume_orientation=assume_orientation)
    notes = volume.notes
    origin: dict[str, Any] = {
        "voxels": list(volume.grid.shape),
        "spacing_mm": [round(float(mm), 4) for mm in volume.grid.spacing],
    }
    cut: tuple[str, ...] = ()
    if survey:
        volume = to_survey(volume)
        origin["converted_to"] = "survey"
        lost = ~review.current.missing & ~volume.grid.contains(review.current.points)
        cut = tuple(label for label, gone in zip(protocol.labels, lost) if gone)
        for label in cut:
            review.mark_missing(label)
    subject = subject_of(stem(pair.image), subject_pattern) or ""
    return ImportedHead(volume, review, source, subject, origin, cut, notes)
