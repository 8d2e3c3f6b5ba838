"""A case of a dataset in the scene: its image, its landmark lists, and where they belong.

>>> case = Case.load(dataset, dataset.entries[0])             # ready to be corrected
>>> case = Case.load(dataset, dataset.entries[0], rater="BC") # blinded: no landmark is placed
>>> case.save()

The landmark lists are those of the module Brain Landmarks, which corrects them. There is one case
in the scene at a time, so that a blinded rater never sees the first annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.ratings import keep_rating, rating_file, read_rating
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.protocol import is_shipped
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review

DATASET, IDENTITY, RATER = (
    f"BrainLandmarksTrain.{name}" for name in ("dataset", "identity", "rater")
)
SAVED = "BrainLandmarksTrain.saved"
"""Attributes of the volume node: where it belongs, and a digest of what was loaded or saved."""


class Case:
    """The case that is in the scene.

    Args:
        volume: Its vtkMRMLScalarVolumeNode.
    """

    def __init__(self, volume: Any) -> None:
        self.volume = volume

    @classmethod
    def in_scene(cls) -> Case | None:
        """The case that was loaded, in this session or before the scene was saved."""
        scene, kind = slicer.mrmlScene, "vtkMRMLScalarVolumeNode"
        for n in range(scene.GetNumberOfNodesByClass(kind)):
            volume = scene.GetNthNodeByClass(n, kind)
            if volume.GetAttribute(IDENTITY) and LandmarkNodes.of_volume(volume) is not None:
                return cls(volume)
        return None

    @classmethod
    def load(cls, dataset: Dataset, entry: Entry, rater: str = "", reviewer: str = "") -> Case:
        """Load an entry with its landmarks, in place of the case that is in the scene.

        Args:
            rater: A second rater's name: their annotation is loaded, or none is placed; the first
                annotation is not shown. By default the dataset's own landmarks are loaded.
            reviewer: Who will correct them.

        Raises:
            UserError: a file is missing or damaged, or the landmarks cannot be shown.
        """
        if not is_shipped(dataset.protocol):
            raise UserError(
                f"Slicer shows the landmark sets that come with BrainLandmarks, and "
                f"{dataset.protocol.name} is none of them."
            )
        review, source = _landmarks(dataset, entry, rater)
        old = cls.in_scene()
        path = dataset.folder / entry.image
        try:
            volume = slicer.util.loadVolume(str(path), {"name": f"Case {entry.identity}"})
        except RuntimeError:
            raise UserError(f"Slicer cannot read {path}; check the dataset.") from None
        if old is not None:
            old.close()
        values = {DATASET: dataset.folder.absolute(), IDENTITY: entry.identity, RATER: rater}
        for name, value in values.items():
            volume.SetAttribute(name, str(value))
        session = Session.begin(volume, review.found, source, None, rater or reviewer)
        session.adopt(review)
        session.end()
        case = cls(volume)
        case._mark_saved(review)
        return case

    @property
    def identity(self) -> str:
        """Number of the entry."""
        return str(self.volume.GetAttribute(IDENTITY))

    @property
    def rater(self) -> str:
        """The second rater's name; empty for the dataset's own annotation."""
        return str(self.volume.GetAttribute(RATER) or "")

    @property
    def nodes(self) -> LandmarkNodes:
        """Its lists.

        Raises:
            UserError: one was deleted.
        """
        nodes = LandmarkNodes.of_volume(self.volume)
        if nodes is None:
            raise UserError("the landmarks of the loaded case were deleted; load it again.")
        return nodes

    def dataset(self) -> Dataset:
        """The dataset that it belongs to.

        Raises:
            UserError: it is no longer there.
        """
        return Dataset.open(str(self.volume.GetAttribute(DATASET)))

    def review(self) -> tuple[Review, dict[str, Any]]:
        """The landmarks as they are in the scene, with their record; and their source.

        Raises:
            UserError: the record is damaged, or a list was deleted.
        """
        return self.nodes.restore()

    def replace(self, review: Review, source: dict[str, Any]) -> None:
        """Show other landmarks, with their record; nothing is saved yet."""
        nodes = self.nodes
        nodes.show(review.current)
        nodes.store(review, source)

    @property
    def changed(self) -> bool:
        """Whether the landmarks differ from what was loaded or saved last."""
        return _digest(self.review()[0]) != self.volume.GetAttribute(SAVED)

    def save(self) -> str:
        """Write the landmarks with their record; returns a sentence on where.

        Raises:
            UserError: the dataset or its entry is gone, or cannot be written to.
        """
        dataset = self.dataset()
        entry = next((e for e in dataset.entries if e.identity == self.identity), None)
        if entry is None:
            raise UserError(f"the dataset has no case {self.identity} any more.")
        review, source = self.review()
        if self.rater:
            review.reviewer = self.rater
            path = keep_rating(dataset, self.rater, self.identity, review, source)
            where = path.relative_to(dataset.folder).as_posix()
        else:
            review.reviewer = _last_editor(review) or entry.who
            dataset.revise(entry, review, source)
            where = entry.landmarks
        self._mark_saved(review)
        return f"Saved case {self.identity} to {where}."

    def close(self) -> None:
        """Take the image and its lists out of the scene."""
        nodes = LandmarkNodes.of_volume(self.volume)
        if nodes is not None:
            nodes.remove()
        remove(self.volume)

    def _mark_saved(self, review: Review) -> None:
        self.volume.SetAttribute(SAVED, _digest(review))


def _landmarks(dataset: Dataset, entry: Entry, rater: str) -> tuple[Review, dict[str, Any]]:
    if not rater:
        return read_review(dataset.folder / entry.landmarks, dataset.protocol)
    rating_file(dataset, rater, entry.identity)  # is it a name?
    known = read_rating(dataset, rater, entry.identity)
    if known is not None:
        return known
    count = len(dataset.protocol)
    nothing = LandmarkSet.from_points(dataset.protocol, np.full((count, 3), np.nan))
    return Review.of(nothing, rater), {}


def _last_editor(review: Review) -> str:
    names: Sequence[str] = [edit.who for edit in review.edits if edit.who]
    return names[-1] if names else ""


def _digest(review: Review) -> str:
    """Positions to a hundredth of a millimetre and statuses: what a person sees of a change."""
    points = np.round(np.nan_to_num(review.current.points, nan=1e6), 2) + 0.0
    text = " ".join(review.current.status)
    return sha256([points.astype("<f4").tobytes(), text])[:16]
