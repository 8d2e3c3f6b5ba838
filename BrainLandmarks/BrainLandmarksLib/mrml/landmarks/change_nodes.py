"""What has changed since an earlier scan, in the scene: a table, and arrows on the baseline.

>>> change, table, arrows = show_change(baseline, later)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.mrml.folder import ROLE, VOLUME, folder_of, put_into
from BrainLandmarksLib.mrml.landmarks.alignment import TARGET, landmarks_of
from BrainLandmarksLib.mrml.placing import (
    follow,
    linear_transform_of,
    local_matrix,
    on_moved,
    was_hardened,
)
from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.registration import follow_up
from BrainLandmarksLib.registration.expected_error import expected_errors
from BrainLandmarksLib.registration.follow_up import Change
from BrainLandmarksLib.registration.series import distance_table, landmark_table

TABLE, ARROWS = "change table", "change arrows"
"""`folder.ROLE` of the two nodes."""

CHANGED_COLOR, WITHIN_COLOR = (0.76, 0.15, 0.36), (0.6, 0.64, 0.68)
TIP_MM = 4.0
"""Longest tip of an arrow; a shorter displacement has a shorter one."""


def show_change(
    baseline: Any,
    later: Any,
    errors: LandmarkErrors | None = None,
    later_errors: LandmarkErrors | None = None,
) -> tuple[Change, Any, Any]:
    """Compare the landmarks of two volumes of a head, and put the result into the scene.

    A former result of the same two volumes is replaced.

    Args:
        baseline, later: vtkMRMLScalarVolumeNode with landmarks.
        errors, later_errors: Of the models that found the landmarks of each; None if unknown.

    Returns:
        The change, a vtkMRMLTableNode, and a vtkMRMLModelNode with an arrow from each landmark of
        the baseline to where it has moved.

    Raises:
        UserError: one has no landmarks, or the two cannot be compared.
    """
    before, after = landmarks_of(baseline), landmarks_of(later)
    change = follow_up.follow(
        before, after, expected_errors(before, errors), expected_errors(after, later_errors)
    )
    remove_change(baseline, later)
    table = _table_node(change, later.GetName())
    arrows = _arrow_node(before.points, change, baseline)
    for node, role, name in ((table, TABLE, "change"), (arrows, ARROWS, "arrows")):
        node.SetName(f"{baseline.GetName()} to {later.GetName()} {name}")
        node.SetAttribute(ROLE, role)
        node.SetNodeReferenceID(VOLUME, baseline.GetID())
        node.SetNodeReferenceID(TARGET, later.GetID())
        put_into(folder_of(baseline), node)
    return change, table, arrows


def change_nodes(baseline: Any, later: Any) -> list[Any]:
    """The table and the arrows of two volumes, as far as they are in the scene."""
    return [
        node
        for kind, role in (("vtkMRMLTableNode", TABLE), ("vtkMRMLModelNode", ARROWS))
        for node in slicer.util.getNodesByClass(kind)
        if node.GetAttribute(ROLE) == role
        and node.GetNodeReference(VOLUME) is baseline
        and node.GetNodeReference(TARGET) is later
    ]


def remove_change(baseline: Any, later: Any) -> None:
    """Take the table and the arrows of two volumes out of the scene."""
    for node in change_nodes(baseline, later):
        remove(node)


class FollowingArrows:
    """Keeps the arrows of the scene under the transforms of their baselines until `close`.

    Of arrows that are made later it hears by `update`.
    """

    def __init__(self) -> None:
        self._observed: list[tuple[Any, int]] = []
        self.update()

    def update(self) -> None:
        """Look at all arrows that there are now."""
        self.close()
        for baseline in _baselines():
            self._observed += [(baseline, tag) for tag in on_moved(baseline, self._moved)]
            if any(was_hardened(baseline, node) for node in _arrows_on(baseline)):
                self._moved(baseline, "")

    def close(self) -> None:
        """Stop listening to the baselines; the arrows stay."""
        for baseline, tag in self._observed:
            baseline.RemoveObserver(tag)
        self._observed.clear()

    def _moved(self, baseline: Any, _event: str) -> None:
        for node in _arrows_on(baseline):
            follow(baseline, node, linear_transform_of(baseline))


def _arrows() -> list[Any]:
    nodes = slicer.util.getNodesByClass("vtkMRMLModelNode")
    return [node for node in nodes if node.GetAttribute(ROLE) == ARROWS]


def _arrows_on(baseline: Any) -> list[Any]:
    return [node for node in _arrows() if node.GetNodeReference(VOLUME) is baseline]


def _baselines() -> list[Any]:
    """The volumes of the scene that have arrows, each once."""
    found = {node.GetNodeReferenceID(VOLUME): node.GetNodeReference(VOLUME) for node in _arrows()}
    return [volume for volume in found.values() if volume is not None]


def _table_node(change: Change, time: str) -> Any:
    """Landmarks and distances in one table, the surest changes first."""
    moves = _columns(landmark_table({time: change}), "landmark", "moved_mm")
    grown = _columns(distance_table({time: change}), "distance", "difference_mm")
    rows = sorted(moves + grown, key=lambda row: -abs(row[3]))
    table = vtk.vtkTable()
    names = ("landmark or distance", "moved or grown, mm", "expected, mm", "z", "changed")
    for number, name in enumerate(names):
        column = vtk.vtkStringArray() if number in (0, 4) else vtk.vtkDoubleArray()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(row[number])
        table.AddColumn(column)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    node.SetAndObserveTable(table)
    # Slicer 5.12 has another name for it, and warns of the old one.
    new = getattr(node, "SetUseColumnTitleAsColumnHeader", None)
    (new or node.SetUseColumnNameAsColumnHeader)(True)
    node.SetLocked(True)
    return node


def _columns(table: Table, name: str, mm: str) -> list[tuple[str, float, float, float, str]]:
    at = {column: number for number, column in enumerate(table.header)}
    return [
        (
            str(row[at[name]]), float(row[at[mm]]), float(row[at["expected_mm"]]),
            float(row[at["z"]]), str(row[at["changed"]]),
        )
        for row in table.rows
    ]  # fmt: skip


def _arrow_node(points: np.ndarray, change: Change, baseline: Any) -> Any:
    """Arrows as a model; it lies under the baseline's transform and follows it."""
    transform = linear_transform_of(baseline)
    into = local_matrix(transform, np.eye(4))
    to_local = np.array([[into.GetElement(i, j) for j in range(4)] for i in range(4)])
    parts = vtk.vtkAppendPolyData()
    rows = [change.protocol.by_label(move.label).index - 1 for move in change.moves]
    for row, move in zip(rows, change.moves, strict=True):
        parts.AddInputData(_arrow(points[row], move.mm, move.changed, to_local))
    parts.Update()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    node.SetAndObservePolyData(parts.GetOutput())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetScalarVisibility(True)
    display.SetActiveScalarName("color")
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseDirectMapping)
    follow(baseline, node, transform)
    return node


def _arrow(start: np.ndarray, step: np.ndarray, changed: bool, to_local: np.ndarray) -> Any:
    """One arrow as polygons, with its colour at every point."""
    length = max(float(np.linalg.norm(step)), 1e-3)
    source = vtk.vtkArrowSource()
    tip = min(TIP_MM / length, 0.5)
    source.SetTipLength(tip)
    source.SetTipRadius(0.35 * tip)
    source.SetShaftRadius(0.12 * tip)
    along = step / length if length > 1e-3 else np.array([1.0, 0.0, 0.0])
    aside = np.cross(along, np.eye(3)[int(np.abs(along).argmin())])
    aside /= np.linalg.norm(aside)
    place = np.eye(4)
    place[:3, :3] = length * np.stack([along, aside, np.cross(along, aside)], axis=1)
    place[:3, 3] = start
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((to_local @ place).ravel())
    move = vtk.vtkTransform()
    move.SetMatrix(matrix)
    carry = vtk.vtkTransformPolyDataFilter()
    carry.SetTransform(move)
    carry.SetInputConnection(source.GetOutputPort())
    carry.Update()
    arrow = carry.GetOutput()
    color = np.array(CHANGED_COLOR if changed else WITHIN_COLOR)
    colors = np.tile((255 * color).astype(np.uint8), (arrow.GetNumberOfPoints(), 1))
    array = numpy_to_vtk(colors, 1)
    array.SetName("color")
    arrow.GetPointData().AddArray(array)
    return arrow
