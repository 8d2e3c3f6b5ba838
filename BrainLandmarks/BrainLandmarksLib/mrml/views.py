"""Showing a landmark: jumping all views to it, and marking it among its neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer

MARKER_NAME = "BrainLandmarks active point"
MARKER_COLOR = (1.0, 1.0, 1.0)
MARKER_GLYPH_MM = 4.5


def jump_to(point: Iterable[float]) -> None:
    """Centre all slice views and all 3-D views on a place, world RAS mm."""
    x, y, z = (float(v) for v in point)
    scene = slicer.mrmlScene
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, x, y, z, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLCameraNode")):
        camera = scene.GetNthNodeByClass(n, "vtkMRMLCameraNode")
        focus, position = camera.GetFocalPoint(), camera.GetPosition()
        # The camera moves along, so that the view keeps its direction and size.
        camera.SetPosition(*(p + new - f for p, f, new in zip(position, focus, (x, y, z))))
        camera.SetFocalPoint(x, y, z)
        camera.ResetClippingRange()


def helper_list(name: str) -> Any:
    """A markups list of ours that the user does not see among the nodes and no scene file keeps."""
    scene = slicer.mrmlScene
    node = scene.CreateNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetSaveWithScene(False)
    return node


class ActiveMarker:
    """A ring with a name at the active point.

    Slicer shows the names of a list's points all or none, and 88 names hide the anatomy. So the
    name stands at a list of its own with one point, which is not saved with the scene.
    """

    def __init__(self) -> None:
        self._node: Any = None

    @property
    def node(self) -> Any:
        """The list behind it, or None while nothing was marked (or the scene was closed)."""
        if self._node is not None and self._node.GetScene() is not slicer.mrmlScene:
            self._node = None
        return self._node

    def show(self, point: Iterable[float], name: str) -> None:
        """Mark a place, world RAS mm, with a name."""
        node = self.node or self._make()
        if node.GetNthControlPointLabel(0) != name:
            node.SetNthControlPointLabel(0, name)
        node.SetNthControlPointPositionWorld(0, *(float(v) for v in point))
        node.GetDisplayNode().SetVisibility(True)

    def hide(self) -> None:
        """Mark nothing."""
        if self.node is not None:
            self.node.GetDisplayNode().SetVisibility(False)

    def remove(self) -> None:
        """Take the list out of the scene."""
        if self.node is not None:
            slicer.mrmlScene.RemoveNode(self.node)
        self._node = None

    def _make(self) -> Any:
        node = helper_list(MARKER_NAME)
        node.AddControlPoint([0.0, 0.0, 0.0], "")
        node.SetFixedNumberOfControlPoints(True)
        node.SetLocked(True)
        display = node.GetDisplayNode()
        for paint in (display.SetSelectedColor, display.SetColor, display.SetActiveColor):
            paint(*MARKER_COLOR)
        display.SetGlyphTypeFromString("Circle2D")
        display.SetUseGlyphScale(False)
        display.SetGlyphSize(MARKER_GLYPH_MM)
        display.SetTextScale(3.5)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(True)
        self._node = node
        return node
