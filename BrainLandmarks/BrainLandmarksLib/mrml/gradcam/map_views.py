"""Showing Grad-CAM maps: over the scan in the slices, two of them side by side, and in space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer
import slicer.util
import vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.gradcam.color import color_function
from BrainLandmarksLib.mrml.gradcam.map_nodes import is_map

LEGEND_PLACE, LEGEND_SIZE = (0.97, 0.1), (0.09, 0.32)
"""Of the colour legend, as shares of a view; its letters fill what there is."""

LEFT, RIGHT = "Red", "Yellow"
"""Slice views of Slicer's layout "side by side"."""

PLANES = ("Axial", "Sagittal", "Coronal")


def lay_over(
    node: Any, opacity: float, *, over: Any = None, views: Iterable[str] | None = None
) -> None:
    """Show a map as the foreground of slice views.

    Args:
        node: The map, or None to take maps away; another foreground of the user's stays then.
        opacity: 0 to 1.
        over: The scan; it becomes the background.
        views: Names of the views; by default all.
    """
    chosen = None if views is None else set(views)
    for composite in _composites():
        if chosen is not None and composite.GetLayoutName() not in chosen:
            continue
        if node is None:
            if is_map(slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")):
                composite.SetForegroundVolumeID(None)
            continue
        if over is not None:
            composite.SetBackgroundVolumeID(over.GetID())
        composite.SetForegroundVolumeID(node.GetID())
        composite.SetForegroundOpacity(float(opacity))


def set_opacity(opacity: float) -> None:
    """Change the opacity of the maps that are shown, 0 to 1."""
    for composite in _composites():
        if is_map(slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")):
            composite.SetForegroundOpacity(float(opacity))


def set_threshold(node: Any, lower: float) -> None:
    """Show of a map only what is at least so much of its maximum, 0 to 1."""
    display = node.GetDisplayNode()
    display.SetThreshold(float(lower), 1.0)
    display.SetApplyThreshold(1)


def set_legend(node: Any, title: str, *, on: bool) -> None:
    """Show or hide the colour legend of a map, in the views that show the map by now."""
    logic = slicer.vtkSlicerColorLogic
    legend = logic.GetColorLegendDisplayNode(node)
    if legend is None:
        if not on:
            return
        legend = logic.AddDefaultColorLegendDisplayNode(node)
        legend.SetLabelFormat("%.1f")
        legend.SetNumberOfLabels(3)
        legend.SetPosition(*LEGEND_PLACE)
        legend.SetSize(*LEGEND_SIZE)
    legend.SetTitleText(title)
    legend.SetVisibility(bool(on))


def show_in_space(node: Any, lower: float, *, on: bool) -> None:
    """Show a map in the 3-D views by volume rendering, or do not.

    Args:
        lower: What is less of the maximum is not shown.

    Raises:
        UserError: Slicer runs without the module Volume Rendering.
    """
    logic = slicer.app.applicationLogic().GetModuleLogic("VolumeRendering")
    if logic is None:
        if on:
            raise UserError("Slicer's module Volume Rendering is not there; switch it on.")
        return
    display = logic.GetFirstVolumeRenderingDisplayNode(node)
    if display is None:
        if not on:
            return
        display = logic.CreateDefaultVolumeRenderingNodes(node)
    colors, opacity = color_function(lower)
    rendering = display.GetVolumePropertyNode().GetVolumeProperty()
    rendering.SetColor(colors)
    rendering.SetScalarOpacity(opacity)
    rendering.ShadeOff()
    rendering.SetInterpolationTypeToLinear()
    flat = vtk.vtkPiecewiseFunction()
    flat.AddPoint(0.0, 1.0)
    rendering.SetGradientOpacity(flat)
    display.SetVisibility(bool(on))


class SideBySide:
    """Two maps of the same place in two slice views that look the same way.

    The layout becomes "side by side", the right view is turned like the left one, and both move and
    zoom together. ``stop`` puts everything back. Without a layout (Slicer without its window) the
    views alone are set.

    >>> both = SideBySide()
    >>> both.start("Axial")
    >>> both.show(map_of_one_model, map_of_another, 0.6, over=volume)
    >>> both.stop()
    """

    def __init__(self) -> None:
        self._layout: int | None = None
        self._views: list[tuple[str, vtk.vtkMatrix4x4]] = []
        self._links: list[tuple[str, int, int]] = []

    @property
    def on(self) -> bool:
        """Whether it was started."""
        return bool(self._views)

    def start(self, plane: str) -> None:
        """Arrange the views, or turn them, if they are arranged already.

        Raises:
            UserError: there is no such plane, or there are no slice views.
        """
        if plane not in PLANES:
            raise UserError(f"there is no plane {plane!r}; choose one of {', '.join(PLANES)}.")
        nodes = [n for n in _slices() if n.GetLayoutName() in (LEFT, RIGHT)]
        if len(nodes) < 2:
            raise UserError("there are no slice views to compare in.")
        if not self.on:
            self._remember(nodes)
            layout = _layout()
            if layout is not None:
                self._layout = layout.GetViewArrangement()
                layout.SetViewArrangement(layout.SlicerLayoutSideBySideView)
        for node in nodes:
            node.SetOrientation(plane)

    def show(self, left: Any, right: Any, opacity: float, *, over: Any) -> None:
        """Lay two maps over the scan."""
        for view, node in ((LEFT, left), (RIGHT, right)):
            lay_over(node, opacity, over=over, views=[view])

    def stop(self) -> None:
        """Put layout, directions and links back."""
        scene = slicer.mrmlScene
        for identity, matrix in self._views:
            node = scene.GetNodeByID(identity)
            if node is not None:
                node.GetSliceToRAS().DeepCopy(matrix)
                node.UpdateMatrices()
        for identity, linked, hot in self._links:
            composite = scene.GetNodeByID(identity)
            if composite is not None:
                composite.SetLinkedControl(linked)
                composite.SetHotLinkedControl(hot)
        layout = _layout()
        if layout is not None and self._layout is not None:
            layout.SetViewArrangement(self._layout)
        self._layout, self._views, self._links = None, [], []

    def _remember(self, nodes: list[Any]) -> None:
        for node in nodes:
            matrix = vtk.vtkMatrix4x4()
            matrix.DeepCopy(node.GetSliceToRAS())
            self._views.append((node.GetID(), matrix))
        for composite in _composites():
            if composite.GetLayoutName() in (LEFT, RIGHT):
                links = (composite.GetLinkedControl(), composite.GetHotLinkedControl())
                self._links.append((composite.GetID(), *links))
                composite.SetLinkedControl(1)
                composite.SetHotLinkedControl(1)


def _composites() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def _slices() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLSliceNode")


def _layout() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
