"""Scan planes in the scene: plane nodes that follow the landmarks, slice views along a plane, and
volumes on its slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.mrml.export.volume import world_volume
from BrainLandmarksLib.mrml.folder import ROLE, VOLUME, folder_of, put_into
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.placing import follow_parent, on_moved
from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.planes import Prescription
from BrainLandmarksLib.planes.construction import Frame, construct, lacking
from BrainLandmarksLib.planes.files import NODE_COLORS, reformatted
from BrainLandmarksLib.planes.stack import Stack

PLANE = "BrainLandmarks.plane"
"""Attribute of a plane node: the name of the scan plane that it shows."""

WAITING = "BrainLandmarks.waiting"
"""Attribute of a plane node that is hidden only because a landmark is missing."""

OPACITY, FILL, GLYPH_MM = 1.0, 0.35, 1.5

UNKNOWN_SIZE_MM = 200.0
"""Side of a plane without slices."""

_VIEWS = {"Red": "axial", "Yellow": "sagittal", "Green": "coronal"}


class PlaneNodes:
    """The plane nodes of a session's volume; they follow its landmarks until `stop`.

    >>> nodes = PlaneNodes(session)
    >>> nodes.show(prescription)
    >>> session.corrections.move("CC_G", point)      # the plane moves along

    Nodes stay in the scene, and are saved with it; a later session goes on with them.

    Args:
        session: Whose landmarks they follow.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._observed: list[tuple[Any, int]] = []
        for node in session.nodes.lists:
            # Also while a point is dragged, of which the session hears only at the end.
            tag = node.AddObserver(node.PointModifiedEvent, self._moved)
            self._observed.append((node, tag))
        volume = session.volume
        if volume is not None:
            # Of a hardened transform the session's listeners hear nothing: no landmark has moved.
            self._observed += [(volume, tag) for tag in on_moved(volume, self._volume_moved)]
        self.update()

    def stop(self) -> None:
        """Follow no more; the nodes stay."""
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed.clear()

    @property
    def nodes(self) -> dict[str, Any]:
        """The nodes by the name of their plane."""
        volume = self._session.volume
        return {
            node.GetAttribute(PLANE): node
            for node in slicer.util.getNodesByClass("vtkMRMLMarkupsPlaneNode")
            if node.GetAttribute(PLANE) and node.GetNodeReference(VOLUME) is volume
        }

    def shown(self) -> set[str]:
        """Names of the planes that are seen."""
        return {name for name, node in self.nodes.items() if node.GetDisplayNode().GetVisibility()}

    def show(self, each: Prescription) -> None:
        """Show a plane; one that is not there is not shown."""
        if each.frame is None or self._session.volume is None:
            return
        node = self.nodes.get(each.plane.name) or self._new(each)
        if each.stack is not None:
            node.SetSize(*each.stack.field_mm)
        _place(node, each.frame, each.stack)
        node.RemoveAttribute(WAITING)
        node.GetDisplayNode().SetVisibility(True)

    def hide(self, name: str) -> None:
        """Show a plane no more; its node goes."""
        node = self.nodes.get(name)
        if node is not None:
            remove(node)

    def update(self) -> None:
        """Put the planes that there are where the landmarks of the lists want them now.

        A plane that has become missing is hidden, and comes back with its landmark.
        """
        nodes, lists = self.nodes, self._session.nodes
        if not nodes or not lists.complete:
            return
        points = lists.read().points
        protocol = self._session.protocol
        frames = construct(protocol, points, set(lacking(protocol, points)))
        for name, node in nodes.items():
            frame = frames.get(name)
            if frame is None:
                _wait(node)
                continue
            follow_parent(self._session.volume, node)
            _place(node, frame, None)
            _wait_no_more(node)

    def _new(self, each: Prescription) -> Any:
        volume = self._session.volume
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsPlaneNode", each.plane.name)
        node.CreateDefaultDisplayNodes()
        node.SetAttribute(ROLE, "plane")
        node.SetAttribute(PLANE, each.plane.name)
        node.SetNodeReferenceID(VOLUME, volume.GetID())
        node.SetDescription(each.plane.purpose)
        node.SetPlaneType(node.PlaneTypePointNormal)
        node.SetSizeMode(node.SizeModeAbsolute)
        node.SetSize(UNKNOWN_SIZE_MM, UNKNOWN_SIZE_MM)
        # It follows the landmarks; a hand that moved it would be overruled by the next correction.
        node.SetLocked(True)
        put_into(folder_of(volume), node)
        follow_parent(self._session.volume, node)
        display = node.GetDisplayNode()
        for paint in (display.SetSelectedColor, display.SetColor, display.SetActiveColor):
            paint(*NODE_COLORS[each.plane.view])
        display.SetOpacity(OPACITY)
        display.SetHandlesInteractive(False)
        # The filling is the line in views that cut the plane. The outline is drawn in all views,
        # also where it is far from them.
        display.SetFillOpacity(FILL)
        display.SetOutlineVisibility(False)
        display.SetNormalVisibility(False)
        display.SetPointLabelsVisibility(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetUseGlyphScale(False)
        display.SetGlyphSize(GLYPH_MM)
        return node

    def _volume_moved(self, _volume: Any, _event: str) -> None:
        for node in self.nodes.values():
            follow_parent(self._session.volume, node)

    def _moved(self, _node: Any, _event: str) -> None:
        # What the session writes it also tells its listeners, once for all lists.
        if not self._session.writing:
            self.update()


def _wait(node: Any) -> None:
    """Hide a plane that is not there; one that a person hides is not ours to show again."""
    if node.GetDisplayNode().GetVisibility():
        node.SetAttribute(WAITING, "1")
        node.GetDisplayNode().SetVisibility(False)


def _wait_no_more(node: Any) -> None:
    if node.GetAttribute(WAITING):
        node.RemoveAttribute(WAITING)
        node.GetDisplayNode().SetVisibility(True)


def _place(node: Any, frame: Frame, stack: Stack | None) -> None:
    """Put a plane node where a plane is, world RAS mm.

    Without a stack it stays over the same part of the head: its centre is moved onto the plane.
    """
    if stack is not None:
        center = stack.center
    elif node.GetNumberOfDefinedControlPoints():
        before = np.array(node.GetCenterWorld())
        center = before - ((before - frame.origin) @ frame.normal) * frame.normal
    else:
        center = frame.origin
    waiting = node.StartModify()
    try:
        node.SetCenterWorld([float(x) for x in center])
        node.SetAxesWorld(*([float(x) for x in axis] for axis in frame.axes.T))
    finally:
        node.EndModify(waiting)


# Slice views --------------------------------------------------------------------------------------


def align_views(each: Prescription, nodes: PlaneNodes | None = None) -> None:
    """Turn the slice views to a plane: the one of its kind shows it, the other two cut it upright.

    All go through the middle of its field of view. Views in other arrangements stay as they are.

    Args:
        nodes: Of these the plane's own is not drawn over the view that lies in it.
    """
    if each.frame is None:
        return
    center = each.frame.origin if each.stack is None else each.stack.center
    axes = view_axes(each.plane.view, each.frame)
    for node in _slice_nodes():
        x, y, z = axes[_VIEWS[node.GetLayoutName()]]
        matrix = node.GetSliceToRAS()
        for row in range(3):
            for column, vector in enumerate((x, y, z, center)):
                matrix.SetElement(row, column, float(vector[row]))
        node.UpdateMatrices()
    if nodes is not None:
        _draw_everywhere(nodes)
        node = nodes.nodes.get(each.plane.name)
        if node is not None:
            _spare(node, each.plane.view)


def _spare(node: Any, view: str) -> None:
    """Draw a plane node in all views but that of its kind, which it would tint."""
    views = slicer.util.getNodesByClass("vtkMRMLAbstractViewNode")
    own = [one.GetID() for one in _slice_nodes() if _VIEWS[one.GetLayoutName()] == view]
    for one in views:
        if one.GetID() not in own:
            node.GetDisplayNode().AddViewNodeID(one.GetID())


def _draw_everywhere(nodes: PlaneNodes) -> None:
    for node in nodes.nodes.values():
        node.GetDisplayNode().RemoveAllViewNodeIDs()


def view_axes(view: str, frame: Frame) -> Mapping[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Directions of the screen's right and top and of the slices, RAS, of the three kinds of views.

    As in Slicer's own, the patient's right is on the left, and slices count to the right, to the
    front, and upwards.
    """
    row, column, normal = frame.row, frame.column, frame.normal
    right, front, top = {
        "axial": (-row, -column, normal),
        "coronal": (-row, -normal, -column),
        "sagittal": (normal, -row, -column),
    }[view]
    return {
        "axial": (-right, front, top),
        "sagittal": (-front, top, right),
        "coronal": (-right, top, front),
    }


def upright_views(nodes: PlaneNodes | None = None) -> None:
    """Turn the slice views back to the axes of the patient; where they are stays.

    Args:
        nodes: These are drawn in all views again.
    """
    if nodes is not None:
        _draw_everywhere(nodes)
    for node in _slice_nodes():
        node.SetOrientation(_VIEWS[node.GetLayoutName()].capitalize())


def _slice_nodes() -> list[Any]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return [node for node in nodes if node.GetLayoutName() in _VIEWS]


# Volumes ------------------------------------------------------------------------------------------


def reformat(volume: Any, each: Prescription) -> Any:
    """The image of a volume node on the slices of a plane, as a new volume node in its folder.

    Raises:
        UserError: the volume is empty, or its transform is not linear.
        ValueError: the plane has no slices.
    """
    if each.stack is None:
        raise ValueError(f"the plane {each.plane.name} has no slices")
    values = reformatted(world_volume(volume), each.stack)
    matrix = vtk.vtkMatrix4x4()
    for i in range(4):
        for j in range(4):
            matrix.SetElement(i, j, float(each.stack.grid.affine[i, j]))
    name = f"{volume.GetName()} {each.plane.name}"
    node = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(values.transpose(2, 1, 0)), matrix, name
    )
    node.CreateDefaultDisplayNodes()
    display, source = node.GetDisplayNode(), volume.GetDisplayNode()
    if source is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(source.GetWindow(), source.GetLevel())
    put_into(folder_of(volume), node)
    return node
