"""Showing a landmark: jumping all views to it, and marking it among its neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util

from BrainLandmarksLib.mrml.scene import remove

MARKER_NAME = "BrainLandmarks active point"
MARKER_COLOR = (1.0, 1.0, 1.0)
MARKER_GLYPH_MM = 9.0

_MARGIN = 1.15


def jump_to(point: Iterable[float]) -> None:
    """Centre all slice views and all 3-D views on a place, world RAS mm."""
    x, y, z = (float(v) for v in point)
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, x, y, z, slicer.vtkMRMLSliceNode.CenteredJumpSlice
    )
    for camera in _cameras():
        focus, position = camera.GetFocalPoint(), camera.GetPosition()
        # The camera moves along, so that the view keeps its direction and size.
        camera.SetPosition(*(p + new - f for p, f, new in zip(position, focus, (x, y, z))))
        camera.SetFocalPoint(x, y, z)
        camera.ResetClippingRange()


def look_at(points: npt.ArrayLike) -> None:
    """Centre all views on landmarks; the 3-D ones, from the side they look from, show them all.

    Args:
        points: (K, 3) world RAS mm; missing ones are NaN.
    """
    array = np.array(points, float)
    array = array[np.isfinite(array).all(1)]
    if len(array) == 0:
        return
    center = (array.min(0) + array.max(0)) / 2
    radius = float(np.linalg.norm(array - center, axis=1).max())
    jump_to(center)
    for camera in _cameras():
        distance = _MARGIN * radius / math.sin(math.radians(camera.GetViewAngle()) / 2)
        direction = np.subtract(camera.GetPosition(), camera.GetFocalPoint())
        direction /= np.linalg.norm(direction)
        camera.SetPosition(*(float(v) for v in center + distance * direction))
        camera.ResetClippingRange()


def show_slices_in_3d(on: bool) -> None:
    """Show the slices in the 3-D views, or do not."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.SetSliceVisible(bool(on))


def _cameras() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLCameraNode")


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
    """A cross with a name at the active point.

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
            remove(self.node)
        self._node = None

    def _make(self) -> Any:
        node = helper_list(MARKER_NAME)
        node.AddControlPoint([0.0, 0.0, 0.0], "")
        node.SetFixedNumberOfControlPoints(True)
        node.SetLocked(True)
        display = node.GetDisplayNode()
        for paint in (display.SetSelectedColor, display.SetColor, display.SetActiveColor):
            paint(*MARKER_COLOR)
        display.SetGlyphTypeFromString("Cross2D")
        display.SetUseGlyphScale(False)
        display.SetGlyphSize(MARKER_GLYPH_MM)
        display.SetTextScale(3.5)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(True)
        self._node = node
        return node
