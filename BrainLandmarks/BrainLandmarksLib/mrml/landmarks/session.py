"""A review in a Slicer scene: what a person does to the lists goes on record, and back.

``Session`` holds a review and its lists together. A drag, a click that places a point, or any other
change of the lists (another module, a script) becomes an edit of the review; an edit of the review
is shown in the lists. Listeners hear which landmarks changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.shape_model import ShapeModel, sigma_of_confidence, uncertainty
from BrainLandmarksLib.imaging import edges
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.mrml.export.volume import world_affine
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.views import ActiveMarker, jump_to
from BrainLandmarksLib.protocol import Protocol, constraints
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review

MOVED_MM = 1e-3
"""A smaller difference between list and review is rounding, not a change."""

SNAPS = ("none", "plane", "boundary")
"""What happens to a point that was dragged or placed: nothing, it goes to the plane that it shares
with others of its kind, or to the brain's surface."""

Listener = Callable[[list[str]], None]


class Session:
    """The review of one volume's landmarks, tied to their lists in the scene.

    >>> session = Session.begin(volume, detection.landmarks, source)
    >>> session.listeners.append(lambda labels: print("changed:", labels))
    >>> session.activate("CC_G")         # jump there; this point can be dragged
    >>> session.resolve()                # the rest follows the corrections

    Args:
        nodes: The lists.
        review: What they show.
        source: What made the model's answer, plain JSON values.
        shape: How landmarks vary together, for `deviation` and `resolve`.

    ``on_active`` hears when another module makes a landmark the active one, ``on_error`` what could
    not be done.
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
        self.snap = "none"
        self.active: str | None = None
        self.listeners: list[Listener] = []
        self.on_active: Callable[[str], None] = lambda _label: None
        self.on_error: Callable[[str], None] = lambda _sentence: None
        self._known_active = nodes.active
        self._marker = ActiveMarker()
        self._showing = False
        self._dragging = False
        self._observed: list[tuple[Any, int]] = []
        self._observe()

    # Beginning and end ---------------------------------------------------------------------------

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
            nodes = LandmarkNodes.create(volume, landmarks.protocol)
        session = cls(nodes, Review.of(landmarks, reviewer), source, shape)
        session._show(None)
        return session

    @classmethod
    def resume(
        cls, nodes: LandmarkNodes, shape: ShapeModel | None = None, reviewer: str = ""
    ) -> Session:
        """Go on with lists that are in the scene, as after loading one.

        Raises:
            UserError: their record is damaged or of another version.
        """
        review, source = nodes.restore()
        review.reviewer = reviewer
        session = cls(nodes, review, source, shape)
        session._show(None)
        return session

    def renew(self, landmarks: LandmarkSet, source: dict[str, Any], *, keep: bool) -> None:
        """A new detection of the same volume; with ``keep`` what a person did stays."""
        self.review = self.review.renewed(landmarks, keep=keep)
        self.source = source
        self._show(None)
        self._tell(list(self.protocol.labels))

    def adopt(self, review: Review) -> None:
        """Go on with another review of the same landmarks, as after loading a file."""
        self.review = review
        self._show(None)
        self._tell(list(self.protocol.labels))

    def end(self) -> None:
        """Stop listening to the scene; the lists stay, locked."""
        for caller, tag in self._observed:
            caller.RemoveObserver(tag)
        self._observed.clear()
        self.listeners.clear()
        self._marker.remove()
        if self.nodes.complete:
            self.nodes.unlock(None)

    @property
    def protocol(self) -> Protocol:
        """The landmarks' definition."""
        return self.review.protocol

    @property
    def volume(self) -> Any:
        """The volume node; None when it was deleted."""
        return self.nodes.volume

    # Looking -------------------------------------------------------------------------------------

    def activate(self, label: str | None, *, jump: bool = True) -> None:
        """Make one landmark the active one: named, unlocked, in the middle of all views."""
        self.active = label
        self.nodes.unlock(label)
        self.nodes.active = label
        self._mark()
        if label is not None and jump:
            point = self.review.current.point(label)
            if np.isfinite(point).all():
                jump_to(point)

    def deviation(self) -> FloatArray:
        """(K,) how far each point is from where the others expect it, in standard deviations.

        NaN without a shape model.
        """
        if self.shape is None:
            return np.full(len(self.protocol), np.nan)
        return self.shape.deviation(self.review.current.points)

    def uncertain(self) -> list[str]:
        """Labels that no person has looked at, the most uncertain first.

        Uncertainty is what the model's confidence leaves, and more of it the farther the point is
        from where the others expect it.
        """
        current = self.review.current
        uncertainties = uncertainty(current.confidence, self.deviation())
        waiting = [k for k, status in enumerate(current.status) if status == "model"]
        return [self.protocol.labels[k] for k in sorted(waiting, key=lambda k: -uncertainties[k])]

    # Changing ------------------------------------------------------------------------------------

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
        self._changed(self.review.move(label, target, kind))

    def confirm(self, label: str) -> None:
        """Agree with a point."""
        self._changed(self.review.confirm(label))

    def confirm_group(self, group: str) -> None:
        """Agree with all points of a group that nobody has looked at, in one step."""
        labels = [landmark.label for landmark in self.protocol.members(group)]
        self._changed(self.review.confirm_many(labels))

    def reopen(self, label: str) -> None:
        """Take an agreement back."""
        self._changed(self.review.reopen(label))

    def mark_missing(self, label: str) -> None:
        """Say that the anatomy is not there."""
        self._changed(self.review.mark_missing(label))

    def revert(self, label: str | None) -> None:
        """Go back to the model's answer: one point, or all with None."""
        self._changed(self.review.revert_all() if label is None else self.review.revert(label))

    def undo(self) -> None:
        """Take the last step back."""
        self._changed(self.review.undo())

    def redo(self) -> None:
        """Do the last undone step again."""
        self._changed(self.review.redo())

    def respace(self, group: str) -> None:
        """Spread a group's secondary points at equal distances.

        Raises:
            UserError: it has none.
        """
        points = constraints.respaced(self.protocol, self.review.current.points, group)
        self._changed(self.review.set_points(points, "respaced"))

    def project(self, group: str) -> None:
        """Move a group's points onto their common plane.

        Raises:
            UserError: they share none.
        """
        points = constraints.projected(self.protocol, self.review.current.points, group)
        self._changed(self.review.set_points(points, "projected"))

    def resolved(self) -> dict[str, FloatArray]:
        """Where the points that no person has placed go after the corrections, if one accepts.

        Raises:
            UserError: the model has no shape model, or nothing was corrected yet.
        """
        if self.shape is None:
            raise UserError("this model has no shape model; install one that has.")
        review = self.review
        if not review.corrected.any():
            raise UserError("correct or confirm some points first; the others then follow them.")
        corrected = np.where(review.corrected[:, None], review.current.points, np.nan)
        sigma = sigma_of_confidence(review.found.confidence, self.source.get("threshold_mm", 4.0))
        points = self.shape.resolve(review.found.points, corrected, sigma)
        return {
            label: points[row]
            for row, label in enumerate(self.protocol.labels)
            if review.current.status[row] == "model" and np.isfinite(points[row]).all()
        }

    def preview(self, points: dict[str, FloatArray] | None) -> None:
        """Show points elsewhere without an edit; None shows the review again."""
        current = self.review.current
        moved = current.points.copy()
        for label, point in (points or {}).items():
            moved[self.protocol.by_label(label).index - 1] = point
        self._showing = True
        try:
            self.nodes.show(replace(current, points=moved))
        finally:
            self._showing = False

    def resolve(self) -> None:
        """Let the points that no person has placed follow the corrections.

        Raises:
            UserError: as `resolved`.
        """
        self._changed(self.review.move_many(self.resolved(), "resolved"))

    # The scene -----------------------------------------------------------------------------------

    def _changed(self, labels: list[str]) -> None:
        if labels:
            self._show(labels)
            self._tell(labels)

    def _show(self, labels: Iterable[str] | None) -> None:
        self._showing = True
        try:
            self.nodes.show(self.review.current, labels)
            self.nodes.store(self.review, self.source)
        finally:
            self._showing = False
        self._mark()

    def _mark(self) -> None:
        if self.active is None:
            self._marker.hide()
            return
        point = self.review.current.point(self.active)
        if np.isfinite(point).all():
            self._marker.show(point, self.active)
        else:
            self._marker.hide()

    def _tell(self, labels: list[str]) -> None:
        for listener in list(self.listeners):
            listener(labels)

    def _observe(self) -> None:
        for node in self.nodes.lists:
            for event, method in (
                (node.PointStartInteractionEvent, self._drag_started),
                (node.PointEndInteractionEvent, self._drag_ended),
                (node.PointModifiedEvent, self._point_modified),
            ):
                self._observed.append((node, node.AddObserver(event, method)))
        anchor = self.nodes.anchor
        self._observed.append((anchor, anchor.AddObserver("ModifiedEvent", self._anchor_modified)))
        volume = self.volume
        if volume is not None:
            for event in (
                slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
                slicer.vtkMRMLNode.ReferenceModifiedEvent,
            ):
                self._observed.append((volume, volume.AddObserver(event, self._transformed)))

    def _anchor_modified(self, _anchor: Any, _event: str) -> None:
        """Another module looks at another landmark: go there, too."""
        label = self.nodes.active
        if label == self._known_active:
            return
        self._known_active = label
        if label is not None and label != self.active:
            self.on_active(label)

    def _drag_started(self, _node: Any, _event: str) -> None:
        self._dragging = True

    def _drag_ended(self, node: Any, _event: str) -> None:
        self._dragging = False
        self._take(node)

    def _point_modified(self, node: Any, _event: str) -> None:
        if self._showing:
            return
        if self._dragging:
            self._follow_drag()
        else:
            self._take(node)

    def _follow_drag(self) -> None:
        if self.active is not None:
            point = self.nodes.point(self.active)
            if np.isfinite(point).all():
                self._marker.show(point, self.active)

    def _take(self, node: Any) -> None:
        """Put on record what differs between a list and the review."""
        if not self.nodes.complete:
            return
        lists = self.nodes.lists
        if not any(candidate is node for candidate in lists):
            return
        for index in range(node.GetNumberOfControlPoints()):
            label = self.nodes.label_of(node, index)
            assert label is not None
            here, known = self.nodes.point(label), self.review.current.point(label)
            if np.isnan(here).any():
                if not np.isnan(known).any():
                    self.mark_missing(label)
            elif np.isnan(known).any() or np.linalg.norm(here - known) > MOVED_MM:
                self.move(label, here)

    def _transformed(self, _volume: Any, _event: str) -> None:
        """The volume got another transform: the lists follow, and the review with them."""
        if self._showing or not self.nodes.complete or self.volume is None:
            return
        before = self.nodes.read().points
        self._showing = True
        try:
            self.nodes.follow_volume()
        finally:
            self._showing = False
        after = self.nodes.read().points
        if np.allclose(before, after, atol=MOVED_MM, equal_nan=True) and np.allclose(
            after, self.review.current.points, atol=MOVED_MM, equal_nan=True
        ):
            return
        self.review.carry(_affine_between(self.review.current.points, after))
        self._show(None)
        self._tell(list(self.protocol.labels))

    # Snapping ------------------------------------------------------------------------------------

    def _snapped(self, label: str, target: FloatArray) -> FloatArray:
        points = self.review.current.points.copy()
        row = self.protocol.by_label(label).index - 1
        points[row] = target
        if self.snap == "plane":
            return constraints.on_plane(self.protocol, points, label)
        inside = np.nanmean(points, axis=0)
        return edges.on_brain_boundary(world_volume(self.volume), target, inside)


def world_volume(node: Any) -> Volume:
    """A volume node as the library's volume: a view of its voxels, where they are in the world.

    Raises:
        UserError: it was deleted, is empty, or its transform is not linear.
    """
    import slicer.util

    if node is None or node.GetImageData() is None:
        raise UserError("the volume of these landmarks is no longer there; load it again.")
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise UserError("the volume has a warping transform; harden it first.")
    kji = slicer.util.arrayFromVolume(node)
    return Volume(kji.transpose(2, 1, 0), Grid(kji.shape[::-1], world_affine(node)))


def _affine_between(before: FloatArray, after: FloatArray) -> FloatArray:
    """4x4 affine that takes the points before onto those after, by least squares."""
    known = np.isfinite(before).all(1) & np.isfinite(after).all(1)
    solution = np.linalg.lstsq(
        np.column_stack([before[known], np.ones(known.sum())]), after[known], rcond=None
    )[0]
    affine = np.eye(4)
    affine[:3, :] = solution.T
    return affine
