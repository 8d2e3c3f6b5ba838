"""What a person does to a review in the scene: to a point, a group, or all the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.shape_model import sigma_of_confidence
from BrainLandmarksLib.imaging import edges
from BrainLandmarksLib.mrml.export.volume import world_volume
from BrainLandmarksLib.mrml.landmarks.segmentation import on_structure_boundary
from BrainLandmarksLib.mrml.landmarks.session.shown_review import ShownReview
from BrainLandmarksLib.protocol import constraints

SNAPS = ("none", "plane", "boundary", "structure boundary")
"""What happens to a point that was dragged or placed: nothing, it goes to the plane that it shares
with others of its kind, to the brain's surface, or to where two structures of the parcellation
meet."""


class Corrections:
    """Edits of a review; each is a step that can be undone, and is shown at once.

    ``snap`` is one of `SNAPS`; ``on_error`` hears what could not be done.

    Args:
        shown: The review and its lists.
    """

    def __init__(self, shown: ShownReview) -> None:
        self._shown = shown
        self.snap = "none"
        self.on_error: Callable[[str], None] = lambda _sentence: None

    # A point -------------------------------------------------------------------------------------

    def move(self, label: str, point: npt.ArrayLike, *, snap: bool = True) -> None:
        """Place a point, world RAS mm; it snaps as `snap` says."""
        kind = "moved"
        target = np.array(point, float)
        if snap and self.snap != "none":
            try:
                target = self._snapped(label, target)
                kind = "snapped"
            except UserError as error:
                self.on_error(str(error))
        self._shown.changed(self._shown.review.move(label, target, kind))

    def confirm(self, label: str) -> None:
        """Agree with a point."""
        self._shown.changed(self._shown.review.confirm(label))

    def reopen(self, label: str) -> None:
        """Take an agreement back."""
        self._shown.changed(self._shown.review.reopen(label))

    def mark_missing(self, label: str) -> None:
        """Say that the anatomy is not there."""
        self._shown.changed(self._shown.review.mark_missing(label))

    def revert(self, label: str | None) -> None:
        """Go back to the model's answer: one point, or all with None."""
        review = self._shown.review
        self._shown.changed(review.revert_all() if label is None else review.revert(label))

    # A group -------------------------------------------------------------------------------------

    def confirm_group(self, group: str) -> None:
        """Confirm all points of a group that nobody has reviewed, in one step."""
        labels = [landmark.label for landmark in self._shown.protocol.members(group)]
        self._shown.changed(self._shown.review.confirm_many(labels))

    def respace(self, group: str) -> None:
        """Spread a group's secondary points at equal distances.

        Raises:
            UserError: it has none.
        """
        review = self._shown.review
        points = constraints.respaced(review.protocol, review.current.points, group)
        self._shown.changed(review.set_points(points, "respaced"))

    def project(self, group: str) -> None:
        """Move a group's points onto their common plane.

        Raises:
            UserError: they share none.
        """
        review = self._shown.review
        points = constraints.projected(review.protocol, review.current.points, group)
        self._shown.changed(review.set_points(points, "projected"))

    # Steps ---------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take the last step back."""
        self._shown.changed(self._shown.review.undo())

    def redo(self) -> None:
        """Do the last undone step again."""
        self._shown.changed(self._shown.review.redo())

    # The others follow ---------------------------------------------------------------------------

    def resolved(self) -> dict[str, FloatArray]:
        """Where the points that no person has placed go after the corrections, if one accepts.

        Raises:
            UserError: the model has no shape model, or nothing was corrected yet.
        """
        shape, review = self._shown.shape, self._shown.review
        if shape is None:
            raise UserError("this model has no shape model; install one that has.")
        if not review.corrected.any():
            raise UserError("correct or confirm some points first; the others then follow them.")
        corrected = np.where(review.corrected[:, None], review.current.points, np.nan)
        threshold_mm = self._shown.source.get("threshold_mm", 4.0)
        sigma = sigma_of_confidence(review.found.confidence, threshold_mm)
        points = shape.resolve(review.found.points, corrected, sigma)
        return {
            label: points[row]
            for row, label in enumerate(review.protocol.labels)
            if review.current.status[row] == "model" and np.isfinite(points[row]).all()
        }

    def preview(self, points: dict[str, FloatArray] | None) -> None:
        """Show points elsewhere without an edit; None shows the review again."""
        shown = self._shown
        shown.previewed = dict(points or {})
        with shown.own_changes():
            shown.nodes.show(replace(shown.review.current, points=shown.shown_points))

    def resolve(self) -> None:
        """Let the points that no person has placed follow the corrections.

        Raises:
            UserError: as `resolved`.
        """
        self._shown.changed(self._shown.review.move_many(self.resolved(), "resolved"))

    # Snapping ------------------------------------------------------------------------------------

    def _snapped(self, label: str, target: FloatArray) -> FloatArray:
        protocol = self._shown.protocol
        points = self._shown.review.current.points.copy()
        row = protocol.by_label(label).index - 1
        points[row] = target
        if self.snap == "plane":
            return constraints.on_plane(protocol, points, label)
        if self.snap == "structure boundary":
            return on_structure_boundary(self._shown.volume, target)
        inside = np.nanmean(points, axis=0)
        return edges.on_brain_boundary(world_volume(self._shown.volume), target, inside)
