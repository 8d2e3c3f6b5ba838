"""The active landmark, and which ones to review next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.shape_model import uncertainty
from BrainLandmarksLib.mrml.landmarks.session.shown_review import ShownReview
from BrainLandmarksLib.mrml.landmarks.views import ActiveMarker, jump_to


class Selection:
    """The active landmark of a review; the lists carry it, so that other modules know it, too.

    ``on_active`` hears when another module makes a landmark the active one.

    Args:
        shown: The review and its lists.
    """

    def __init__(self, shown: ShownReview) -> None:
        self._shown = shown
        self.active: str | None = None
        self.on_active: Callable[[str], None] = lambda _label: None
        self._known = shown.nodes.active
        self._marker = ActiveMarker()

    def activate(self, label: str | None, *, jump: bool = True) -> None:
        """Make one landmark the active one: named, unlocked, in the middle of all views."""
        self.active = label
        self._shown.nodes.unlock(label)
        self._shown.nodes.active = label
        self.mark()
        if label is not None and jump:
            point = self._shown.review.current.point(label)
            if np.isfinite(point).all():
                jump_to(point)

    def end(self) -> None:
        """Take the mark out of the scene."""
        self._marker.remove()

    # Which next ----------------------------------------------------------------------------------

    def deviation(self) -> FloatArray:
        """(K,) how far each point is from where the others expect it, in standard deviations.

        NaN without a shape model.
        """
        if self._shown.shape is None:
            return np.full(len(self._shown.protocol), np.nan)
        return self._shown.shape.deviation(self._shown.review.current.points)

    def uncertain(self) -> list[str]:
        """Labels that no person has reviewed, the most uncertain first.

        Uncertainty is what the model's confidence leaves, and more of it the farther the point is
        from where the others expect it.
        """
        current, labels = self._shown.review.current, self._shown.protocol.labels
        uncertainties = uncertainty(current.confidence, self.deviation())
        waiting = [k for k, status in enumerate(current.status) if status == "model"]
        return [labels[k] for k in sorted(waiting, key=lambda k: -uncertainties[k])]

    # The mark ------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Name the active landmark in the views, where the review has it."""
        if self.active is None or not self._mark_at(self._shown.review.current.point(self.active)):
            self._marker.hide()

    def follow_drag(self) -> None:
        """Name it where its list has it, while it is being dragged."""
        if self.active is not None:
            self._mark_at(self._shown.nodes.point(self.active))

    def _mark_at(self, point: FloatArray) -> bool:
        """Whether there is such a place."""
        there = bool(np.isfinite(point).all())
        if there and self.active is not None:
            self._marker.show(point, self.active)
        return there

    def follow_scene(self) -> None:
        """Another module may look at another landmark: go there, too."""
        label = self._shown.nodes.active
        if label == self._known:
            return
        self._known = label
        if label is not None and label != self.active:
            self.on_active(label)
