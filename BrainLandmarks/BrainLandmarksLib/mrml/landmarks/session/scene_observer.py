"""What happens to the lists in the scene, by a person or another module, goes on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.thin_plate import ThinPlate
from BrainLandmarksLib.mrml.landmarks.session.corrections import Corrections
from BrainLandmarksLib.mrml.landmarks.session.selection import Selection
from BrainLandmarksLib.mrml.landmarks.session.shown_review import MOVED_MM, ShownReview
from BrainLandmarksLib.mrml.placing import follow_parent, has_lost_transform


class SceneObserver:
    """Observes the lists, their anchor and their volume until `stop`.

    Args:
        shown: The review and its lists.
        corrections: Takes what was dragged, placed or taken away; a drag is one edit.
        selection: Follows a drag, and the active landmark of another module.
    """

    def __init__(self, shown: ShownReview, corrections: Corrections, selection: Selection) -> None:
        self._shown = shown
        self._corrections = corrections
        self._selection = selection
        self._dragging = False
        self._observed: list[tuple[Any, int]] = []
        self._observe()

    def stop(self) -> None:
        """Hear nothing more."""
        for caller, tag in self._observed:
            caller.RemoveObserver(tag)
        self._observed.clear()

    def _observe(self) -> None:
        for node in self._shown.nodes.lists:
            for event, method in (
                (node.PointStartInteractionEvent, self._drag_started),
                (node.PointEndInteractionEvent, self._drag_ended),
                (node.PointModifiedEvent, self._point_modified),
                (slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._list_transformed),
            ):
                self._observed.append((node, node.AddObserver(event, method)))
        anchor = self._shown.nodes.anchor
        self._observed.append((anchor, anchor.AddObserver("ModifiedEvent", self._anchor_modified)))
        volume = self._shown.volume
        if volume is not None:
            for event in (
                slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
                slicer.vtkMRMLNode.ReferenceModifiedEvent,
            ):
                self._observed.append((volume, volume.AddObserver(event, self._transformed)))

    def _anchor_modified(self, _anchor: Any, _event: str) -> None:
        self._selection.follow_scene()

    def _drag_started(self, _node: Any, _event: str) -> None:
        self._dragging = True

    def _drag_ended(self, node: Any, _event: str) -> None:
        self._dragging = False
        self._take(node)

    def _point_modified(self, node: Any, _event: str) -> None:
        if self._shown.writing:
            return
        if self._dragging:
            self._selection.follow_drag()
        elif not self._being_hardened(node):
            self._take(node)

    def _take(self, node: Any) -> None:
        """Put on record what differs between a list and what was shown in it."""
        nodes = self._shown.nodes
        for index in range(node.GetNumberOfControlPoints()):
            label = nodes.label_of(node, index)
            if label is None:  # it is none of the lists any more, or has points of others
                return
            here, known = nodes.point(label), self._known(label)
            if np.isnan(here).any():
                if not np.isnan(known).any():
                    self._corrections.mark_missing(label)
            elif np.isnan(known).any() or np.linalg.norm(here - known) > MOVED_MM:
                self._corrections.move(label, here)

    def _being_hardened(self, node: Any) -> bool:
        """Whether a list's points have been moved by its transform, which it is about to lose."""
        nodes = self._shown.nodes
        if node.GetParentTransformNode() is None or not nodes.complete:
            return False
        count = node.GetNumberOfControlPoints()
        local = np.array([node.GetNthControlPointPosition(index) for index in range(count)])
        known = self._recorded(node)
        local[np.isnan(known).any(1)] = np.nan
        return _same_places(local, known)

    def _list_transformed(self, node: Any, _event: str) -> None:
        """A list was hardened without its volume: under the volume's transform, it stays there."""
        shown, volume = self._shown, self._shown.volume
        if shown.writing or volume is None or not shown.nodes.complete:
            return
        if not has_lost_transform(volume, node):
            return
        labels = self._labels(node)
        if _same_places(
            np.array([shown.nodes.point(each) for each in labels]), self._recorded(node)
        ):
            with shown.own_changes():
                follow_parent(volume, node)
            shown.changed(labels)

    def _labels(self, node: Any) -> list[str]:
        """The labels of a list's points."""
        nodes = self._shown.nodes
        count = node.GetNumberOfControlPoints()
        return [label for n in range(count) if (label := nodes.label_of(node, n)) is not None]

    def _recorded(self, node: Any) -> FloatArray:
        """Where a list's points were put, (n, 3) world RAS mm."""
        return np.array([self._known(label) for label in self._labels(node)])

    def _known(self, label: str) -> FloatArray:
        """Where a point was put, (3,) world RAS mm: by the review, or a preview."""
        point = self._shown.previewed.get(label)
        return self._shown.review.current.point(label) if point is None else point

    def _transformed(self, _volume: Any, _event: str) -> None:
        """The volume got another transform: the lists follow, and the review with them.

        Where a transform was hardened, the head, its lists and the review stay where they are.
        """
        shown, nodes = self._shown, self._shown.nodes
        if shown.writing or not nodes.complete or shown.volume is None:
            return
        before = nodes.read().points
        with shown.own_changes():
            nodes.follow_volume()
        after, recorded = nodes.read().points, shown.shown_points
        if _same_places(before, after) and _same_places(after, recorded):
            return
        shown.review.carry(_map_between(recorded, after))
        shown.all_changed()


def _same_places(here: FloatArray, there: FloatArray) -> bool:
    return np.allclose(here, there, atol=MOVED_MM, equal_nan=True)


def _map_between(before: FloatArray, after: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """What takes the points before onto those after: an affine, or where there is none a warp."""
    known = np.isfinite(before).all(1) & np.isfinite(after).all(1)
    solution = np.linalg.lstsq(
        np.column_stack([before[known], np.ones(known.sum())]), after[known], rcond=None
    )[0]
    affine = np.eye(4)
    affine[:3, :] = solution.T

    def straight(points: FloatArray) -> FloatArray:
        return apply_affine(affine, points)

    if _same_places(straight(before[known]), after[known]):
        return straight
    try:
        # Of errors beyond all limits none is too large: every point counts.
        return ThinPlate.fit(before, after, 1e9, smoothing=0.0)
    except ValueError:  # all in one plane
        return straight
