"""A review, the lists that show it, and where both come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.review import Review

MOVED_MM = 1e-3
"""A smaller difference between list and review is rounding, not a change."""

Listener = Callable[[list[str]], None]


class ShownReview:
    """A review whose every change is shown in its lists and kept with them.

    Args:
        nodes: The lists.
        review: What they show.
        source: What made the model's answer, plain JSON values.
        shape: How landmarks vary together.

    ``listeners`` hear which landmarks changed. ``writing`` is true while the lists are being
    written: what they report then is our own doing. ``previewed`` are the points, (3,) world RAS
    mm, that the lists show elsewhere than the review has them.
    """

    def __init__(
        self,
        nodes: LandmarkNodes,
        review: Review,
        source: dict[str, Any],
        shape: ShapeModel | None = None,
    ) -> None:
        self.nodes = nodes
        self.review = review
        self.source = source
        self.shape = shape
        self.listeners: list[Listener] = []
        self.writing = False
        self.previewed: dict[str, FloatArray] = {}

    @property
    def shown_points(self) -> FloatArray:
        """(K, 3) world RAS mm, where the lists show the landmarks."""
        points = self.review.current.points.copy()
        for label, point in self.previewed.items():
            points[self.protocol.by_label(label).index - 1] = point
        return points

    @property
    def protocol(self) -> Protocol:
        """The landmarks' definition."""
        return self.review.protocol

    @property
    def volume(self) -> Any:
        """The volume node; None when it was deleted."""
        return self.nodes.volume

    def changed(self, labels: list[str]) -> None:
        """These landmarks have changed in the review: show them and notify the listeners."""
        if labels:
            self.show(labels)
            self.notify(labels)

    def all_changed(self) -> None:
        """As `changed`, for all landmarks."""
        self.show(None)
        self.notify(list(self.protocol.labels))

    def show(self, labels: Iterable[str] | None) -> None:
        """Bring the lists, by default all of them, and their record up to date."""
        shown = self.protocol.labels if labels is None else tuple(labels)
        for label in shown:
            self.previewed.pop(label, None)
        with self.own_changes():
            self.nodes.show(self.review.current, shown)
            self.nodes.store(self.review, self.source)

    def notify(self, labels: list[str]) -> None:
        """Tell the listeners that these landmarks have changed."""
        for listener in list(self.listeners):
            listener(labels)

    @contextmanager
    def own_changes(self) -> Iterator[None]:
        """Meanwhile changes of the lists are ours, and not put on record."""
        self.writing = True
        try:
            yield
        finally:
            self.writing = False
