"""The landmarks of a volume as nodes of a Slicer scene.

One markups list per group, because Slicer has one colour per list; all lists in one folder; and one
hidden node that holds them together, with the record of the review. The lists carry the volume's
transform, so they follow it; coordinates here are world RAS mm.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.landmarks.markups import (
    description_of,
    note_of_description,
    status_of_description,
)
from BrainLandmarksLib.io.landmarks.matching import IMPLAUSIBLE_MARK
from BrainLandmarksLib.mrml.folder import ROLE, VOLUME, folder_of, put_into
from BrainLandmarksLib.mrml.placing import (
    follow_parent,
    geometry_changed,
    has_lost_transform,
    was_hardened,
)
from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.protocol import Group, Protocol, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksLib.review.edits import from_record, is_implausible, to_record

LIST = "BrainLandmarks.list"
"""Reference to the list of each group, in the protocol's order."""

ACTIVE = "active"
"""Parameter with the label of the active landmark; modules follow one another by it."""

MEASUREMENT = "confidence"
GLYPH_MM = 2.5
ACTIVE_COLOR = (0.4, 1.0, 0.0)

_DEFINED, _MISSING = 2, 3


class LandmarkNodes:
    """The landmark lists of one volume.

    >>> nodes = LandmarkNodes.of_volume(volume) or LandmarkNodes.create(volume, protocol)
    >>> nodes.show(review.current)
    >>> nodes.unlock("CC_G")            # this point can now be dragged, and no other

    Args:
        anchor: The vtkMRMLScriptedModuleNode that holds them together.
        protocol: Their definition.
    """

    def __init__(self, anchor: Any, protocol: Protocol) -> None:
        self.anchor = anchor
        self.protocol = protocol
        self._place = {
            landmark.label: (g, landmark.index - group.first)
            for g, group in enumerate(protocol.groups)
            for landmark in protocol.members(group)
        }

    # Finding and making --------------------------------------------------------------------------

    @classmethod
    def all_in_scene(cls) -> list[LandmarkNodes]:
        """Every complete set of lists in the scene."""
        found = []
        scene = slicer.mrmlScene
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
            anchor = scene.GetNthNodeByClass(n, "vtkMRMLScriptedModuleNode")
            if anchor.GetAttribute(ROLE) != "landmarks":
                continue
            try:
                protocol = load_protocol(anchor.GetParameter("protocol"))
            except UserError:
                continue
            nodes = cls(anchor, protocol)
            if nodes.complete:
                found.append(nodes)
        return found

    @classmethod
    def of_volume(cls, volume: Any) -> LandmarkNodes | None:
        """The lists of a volume node, or None."""
        return next((nodes for nodes in cls.all_in_scene() if nodes.volume is volume), None)

    @classmethod
    def create(cls, volume: Any, protocol: Protocol) -> LandmarkNodes:
        """New lists with all points missing, in a folder named after the volume."""
        scene = slicer.mrmlScene
        anchor = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        anchor.UnRegister(None)
        anchor.SetName(f"{volume.GetName()} landmarks")
        anchor.SetHideFromEditors(True)
        anchor.SetAttribute(ROLE, "landmarks")
        anchor.SetParameter("protocol", protocol.name)
        scene.AddNode(anchor)
        anchor.SetNodeReferenceID(VOLUME, volume.GetID())
        nodes = cls(anchor, protocol)
        folder = folder_of(volume)
        for group in protocol.groups:
            node = _new_list(group, protocol)
            node.SetNodeReferenceID(VOLUME, volume.GetID())
            anchor.AddNodeReferenceID(LIST, node.GetID())
            put_into(folder, node)
        nodes.follow_volume()
        return nodes

    @property
    def lists(self) -> list[Any]:
        """The vtkMRMLMarkupsFiducialNode of each group; None for one that was deleted."""
        count = self.anchor.GetNumberOfNodeReferences(LIST)
        there = [self.anchor.GetNthNodeReference(LIST, n) for n in range(count)]
        groups = self.protocol.groups
        if len(there) == len(groups):
            return there
        # The reference of a list that was deleted is gone, and the others have moved up.
        of_group = {
            self._place[label][0]: node
            for node in there
            if node is not None and node.GetNumberOfControlPoints()
            for label in (node.GetNthControlPointLabel(0),)
            if label in self._place
        }
        return [of_group.get(g) for g in range(len(groups))]

    def need_list(self, g: int) -> Any:
        """The list of a group, by the group's number.

        Raises:
            UserError: it was deleted.
        """
        node = self.lists[g]
        if node is None:
            raise UserError(
                f"the list {self.protocol.groups[g].name} was deleted from the scene; save the "
                "landmarks to a file and load it, which brings the list back."
            )
        return node

    @property
    def volume(self) -> Any:
        """The volume node, or None when it was deleted."""
        return self.anchor.GetNodeReference(VOLUME)

    @classmethod
    def remove_remnants(cls, volume: Any) -> None:
        """Take what is left of lists of a volume, some of which were deleted, out of the scene."""
        for anchor in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
            if anchor.GetAttribute(ROLE) != "landmarks":
                continue
            try:
                nodes = cls(anchor, load_protocol(anchor.GetParameter("protocol")))
            except UserError:
                continue
            if nodes.volume is volume and not nodes.complete:
                nodes.remove()

    @property
    def complete(self) -> bool:
        """Whether every list is there with as many points as its group has landmarks."""
        lists = self.lists
        return len(lists) == len(self.protocol.groups) and all(
            node is not None and node.GetNumberOfControlPoints() == len(group.indices)
            for node, group in zip(lists, self.protocol.groups)
        )

    def remove(self) -> None:
        """Take the lists, their folder and the node behind them out of the scene."""
        scene = slicer.mrmlScene
        tree = scene.GetSubjectHierarchyNode()
        lists = [node for node in self.lists if node is not None]
        parents = {tree.GetItemParent(tree.GetItemByDataNode(node)) for node in lists}
        for node in lists:
            remove(node)
        for item in parents:
            children = vtk.vtkIdList()
            tree.GetItemChildren(item, children)
            if item != tree.GetSceneItemID() and children.GetNumberOfIds() == 0:
                tree.RemoveItem(item)
        scene.RemoveNode(self.anchor)

    # Landmarks in and out ------------------------------------------------------------------------

    def show(self, landmarks: LandmarkSet, labels: Iterable[str] | None = None) -> None:
        """Put landmarks into the lists.

        Args:
            landmarks: World RAS mm, of the same protocol.
            labels: Those that changed; by default all.

        Raises:
            UserError: the list of one of them was deleted.
        """
        chosen = self.protocol.labels if labels is None else tuple(labels)
        rows = {label: self.protocol.by_label(label).index - 1 for label in chosen}
        touched = {self._place[label][0] for label in rows}
        lists = {g: self.need_list(g) for g in touched}
        waiting = {g: lists[g].StartModify() for g in touched}
        try:
            for label, row in rows.items():
                g, index = self._place[label]
                _show_point(lists[g], index, landmarks, row)
            for g in touched:
                _set_confidence(lists[g], landmarks, self.protocol.groups[g])
        finally:
            for g, before in waiting.items():
                lists[g].EndModify(before)

    def point(self, label: str) -> FloatArray:
        """World RAS mm of a point, (3,); NaN if it is missing."""
        node, index = self.place_of(label)
        if node.GetNthControlPointPositionStatus(index) != _DEFINED:
            return np.full(3, np.nan)
        return np.array(node.GetNthControlPointPositionWorld(index))

    def read(self) -> LandmarkSet:
        """The landmarks as the lists hold them."""
        count = len(self.protocol)
        points = np.full((count, 3), np.nan)
        status, notes = ["missing"] * count, [""] * count
        lists = self.lists
        for row, label in enumerate(self.protocol.labels):
            g, index = self._place[label]
            points[row] = self.point(label)
            text = lists[g].GetNthControlPointDescription(index)
            if np.isfinite(points[row]).all():
                status[row] = status_of_description(text) or "edited"
            if status_of_description(text) == status[row]:
                notes[row] = note_of_description(text)
        return LandmarkSet(self.protocol, points, status, np.full(count, np.nan), notes)

    def label_of(self, node: Any, index: int) -> str | None:
        """The label of a list's control point, or None if the list is not one of these."""
        for g, candidate in enumerate(self.lists):
            if candidate is node:
                members = self.protocol.members(self.protocol.groups[g])
                return members[index].label if 0 <= index < len(members) else None
        return None

    def place_of(self, label: str) -> tuple[Any, int]:
        """List node and control point index of a landmark.

        Raises:
            UserError: the list was deleted.
        """
        g, index = self._place[label]
        if self.anchor.GetNumberOfNodeReferences(LIST) == len(self.protocol.groups):
            return self.anchor.GetNthNodeReference(LIST, g), index
        return self.need_list(g), index

    @property
    def active(self) -> str | None:
        """Label of the active landmark, or None."""
        label = self.anchor.GetParameter(ACTIVE)
        return label if label in self._place else None

    @active.setter
    def active(self, label: str | None) -> None:
        if self.active != label:
            self.anchor.SetParameter(ACTIVE, label or "")

    # The review's record -------------------------------------------------------------------------

    def store(self, review: Review, source: dict[str, Any]) -> None:
        """Keep the record of a review in the scene, so that it is saved with it.

        The names of the lists say whether the model's answer is implausible.
        """
        self.anchor.SetParameter("record", json.dumps(to_record(review, source)))
        mark = IMPLAUSIBLE_MARK if is_implausible(source) else ""
        for node in filter(None, self.lists):
            name = node.GetName().removesuffix(IMPLAUSIBLE_MARK) + mark
            if node.GetName() != name:
                node.SetName(name)

    def restore(self) -> tuple[Review, dict[str, Any]]:
        """The review whose record the scene holds, with the points as they are in the lists.

        Raises:
            UserError: the record is damaged, too new, or of another definition of the landmarks.
        """
        text = self.anchor.GetParameter("record")
        current = self.read()
        if not text:
            return Review.of(current), {}
        name = "the scene"
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UserError(f"the record of edits in {name} is damaged.") from error
        review, source = from_record(record, current, name)
        return review, source

    # How they look and behave --------------------------------------------------------------------

    def follow_volume(self) -> None:
        """Give the lists the transform that the volume has now; points keep their local place.

        Where the volume's transform was hardened, that of the lists is too.
        """
        for node in filter(None, self.lists):
            follow_parent(self.volume, node)

    def settle(self) -> None:
        """Put lists that have lost the volume's transform under it again, before it is changed.

        Where a list was hardened without its volume, its points stay in their place in the world;
        where it was only taken from the transform, in their local place. The record of the review
        tells which.

        Raises:
            UserError: the record of the review is damaged, too new, or of another definition.
        """
        volume = self.volume
        alone = [
            (group, node)
            for group, node in zip(self.protocol.groups, self.lists)
            if volume is not None and has_lost_transform(volume, node)
        ]
        if not alone:
            return
        review, _ = self.restore()
        here = review.current.points
        under = np.array([_to_world(volume, point) for point in here])
        for group, node in alone:
            # If the volume was hardened, too, its voxels went along with the points.
            stay = not geometry_changed(volume, node)
            follow_parent(volume, node)
            rows = slice(group.first - 1, group.last)
            if stay and _nearer(here[rows], under[rows], review.found.points[rows]):
                self.show(review.current, self.protocol.labels[rows])

    def follow_hardened(self) -> None:
        """`follow_volume` if a transform was hardened while nobody looked.

        Raises:
            UserError: as `settle`.
        """
        self.settle()
        volume = self.volume
        if volume is not None and all(
            was_hardened(volume, node) or node.GetTransformNodeID() == volume.GetTransformNodeID()
            for node in self.lists
        ):
            self.follow_volume()

    def unlock(self, label: str | None) -> None:
        """Let one point be dragged, or none: a middle-button drag moves all unlocked points."""
        for g, node in enumerate(self.lists):
            if node is None:
                continue
            mine = label is not None and self._place[label][0] == g
            for index in range(node.GetNumberOfControlPoints()):
                locked = not (mine and self._place[label][1] == index)  # type: ignore[index]
                if bool(node.GetNthControlPointLocked(index)) != locked:
                    node.SetNthControlPointLocked(index, locked)
            if bool(node.GetLocked()) != (not mine):
                node.SetLocked(not mine)

    def show_only(self, labels: Iterable[str]) -> None:
        """Show exactly these landmarks."""
        chosen = set(labels)
        for node, group in zip(self.lists, self.protocol.groups):
            if node is None:
                continue
            members = self.protocol.members(group)
            before = node.StartModify()
            try:
                for index, landmark in enumerate(members):
                    visible = landmark.label in chosen
                    if bool(node.GetNthControlPointVisibility(index)) != visible:
                        node.SetNthControlPointVisibility(index, visible)
            finally:
                node.EndModify(before)
            node.GetDisplayNode().SetVisibility(any(m.label in chosen for m in members))

    def shown(self) -> set[str]:
        """Labels of the landmarks that are shown."""
        return {
            landmark.label
            for node, group in zip(self.lists, self.protocol.groups)
            if node is not None and node.GetDisplayNode().GetVisibility()
            for index, landmark in enumerate(self.protocol.members(group))
            if node.GetNthControlPointVisibility(index)
        }


def _to_world(node: Any, point: FloatArray) -> FloatArray:
    """Where a local place, (3,) mm, lies under a node's transform."""
    if not np.isfinite(point).all():
        return np.full(3, np.nan)
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld([float(x) for x in point], world)
    return np.array(world)


def _nearer(points: FloatArray, others: FloatArray, known: FloatArray) -> bool:
    """Whether most points, (n, 3), are at least as near to known places as others are."""
    near, far = (np.linalg.norm(each - known, axis=1) for each in (points, others))
    there = np.isfinite(near)
    return not there.any() or bool(np.median(near[there]) <= np.median(far[there]))


def _new_list(group: Group, protocol: Protocol) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", group.name)
    node.CreateDefaultDisplayNodes()
    for landmark in protocol.members(group):
        index = node.AddControlPoint([0.0, 0.0, 0.0], landmark.label)
        node.SetNthControlPointDescription(index, landmark.name)
        node.SetNthControlPointPositionMissing(index)
        node.SetNthControlPointLocked(index, True)
    node.SetFixedNumberOfControlPoints(True)
    node.SetLocked(True)
    display = node.GetDisplayNode()
    for paint in (display.SetSelectedColor, display.SetColor):
        paint(*group.rgb)
    display.SetActiveColor(*ACTIVE_COLOR)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(GLYPH_MM)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    # A point belongs where it was put, not on the nearest surface in front of it.
    display.SetSnapMode(display.SnapModeUnconstrained)
    return node


def _show_point(node: Any, index: int, landmarks: LandmarkSet, row: int) -> None:
    description = description_of(landmarks, row)
    if node.GetNthControlPointDescription(index) != description:
        node.SetNthControlPointDescription(index, description)
    if landmarks.status[row] == "missing":
        if node.GetNthControlPointPositionStatus(index) != _MISSING:
            node.SetNthControlPointPositionMissing(index)
    else:
        x, y, z = (float(v) for v in landmarks.points[row])
        node.SetNthControlPointPositionWorld(index, x, y, z)


def _set_confidence(node: Any, landmarks: LandmarkSet, group: Group) -> None:
    """Confidence of a list's points as a measurement, which files keep; none where there is none.

    Missing numbers are 0, because Slicer would write NaN, which is no JSON.
    """
    values = landmarks.confidence[group.first - 1 : group.last]
    if not np.isfinite(values).any():
        return
    array = vtk.vtkDoubleArray()
    array.SetName(MEASUREMENT)
    for value in np.nan_to_num(values):
        array.InsertNextValue(float(value))
    measurement = node.GetMeasurement(MEASUREMENT)
    if measurement is None:
        measurement = slicer.vtkMRMLStaticMeasurement()
        measurement.SetName(MEASUREMENT)
        measurement.SetPrintFormat("")
        measurement.SetControlPointValues(array)
        node.AddMeasurement(measurement)
    else:
        measurement.SetControlPointValues(array)
