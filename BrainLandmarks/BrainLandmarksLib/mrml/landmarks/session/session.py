"""The life of a session: it begins with a detection or a scene, is renewed, and ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session.corrections import Corrections
from BrainLandmarksLib.mrml.landmarks.session.scene_observer import SceneObserver
from BrainLandmarksLib.mrml.landmarks.session.selection import Selection
from BrainLandmarksLib.mrml.landmarks.session.shown_review import ShownReview
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review


class Session(ShownReview):
    """The review of one volume's landmarks, tied to their lists in the scene until it ends.

    >>> session = Session.begin(volume, detection.landmarks, source)
    >>> session.listeners.append(lambda labels: print("changed:", labels))
    >>> session.selection.activate("CC_G")    # jump there; this point can be dragged
    >>> session.corrections.resolve()         # the rest follows the corrections
    """

    def __init__(
        self,
        nodes: LandmarkNodes,
        review: Review,
        source: dict[str, Any],
        shape: ShapeModel | None = None,
    ) -> None:
        super().__init__(nodes, review, source, shape)
        self.corrections = Corrections(self)
        self.selection = Selection(self)
        self._observer = SceneObserver(self, self.corrections, self.selection)

    @classmethod
    def begin(
        cls,
        volume: Any,
        landmarks: LandmarkSet,
        source: dict[str, Any],
        shape: ShapeModel | None = None,
        reviewer: str = "",
    ) -> Session:
        """Show the model's answer for a volume, in new lists or in those that it has already.

        Points of an earlier review of the volume are replaced; `renew` keeps them.
        """
        nodes = LandmarkNodes.of_volume(volume)
        if nodes is not None and nodes.protocol.hash != landmarks.protocol.hash:
            nodes.remove()
            nodes = None
        if nodes is None:
            LandmarkNodes.remove_remnants(volume)
            nodes = LandmarkNodes.create(volume, landmarks.protocol)
        nodes.follow_volume()
        session = cls(nodes, Review.of(landmarks, reviewer), source, shape)
        session.show(None)
        return session

    @classmethod
    def resume(
        cls, nodes: LandmarkNodes, shape: ShapeModel | None = None, reviewer: str = ""
    ) -> Session:
        """Go on with lists that are in the scene, as after loading one.

        Raises:
            UserError: their record is damaged or of another version.
        """
        nodes.follow_hardened()
        review, source = nodes.restore()
        review.reviewer = reviewer
        session = cls(nodes, review, source, shape)
        session.show(None)
        return session

    def renew(
        self,
        landmarks: LandmarkSet,
        source: dict[str, Any],
        shape: ShapeModel | None,
        *,
        keep: bool,
    ) -> None:
        """A new detection of the same volume, with the shape model of the model that made it.

        Args:
            keep: Keep what a person did.

        Raises:
            ValueError: the landmarks are of another protocol.
        """
        self.review = self.review.renewed(landmarks, keep=keep)
        self.source = source
        self.shape = shape
        with self.own_changes():
            self.nodes.follow_volume()
        self.all_changed()

    def adopt(self, review: Review) -> None:
        """Go on with another review of the same landmarks, as after loading a file."""
        self.review = review
        self.all_changed()

    def show(self, labels: Iterable[str] | None) -> None:
        """Bring the lists, their record and the mark of the active landmark up to date."""
        super().show(labels)
        self.selection.mark()

    def end(self) -> None:
        """Stop listening to the scene; the lists stay, locked."""
        self._observer.stop()
        self.listeners.clear()
        self.selection.end()
        if self.nodes.complete:
            self.nodes.unlock(None)
