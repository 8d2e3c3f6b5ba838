"""The colours of maps: from black over red to pale yellow, brighter for more."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

INFERNO = "vtkMRMLColorTableNodeFileInferno.txt"
"""Slicer's own table, which it reads from a file at its start."""

FALLBACK = "BrainLandmarks Inferno"
COLORS = 256

ANCHORS = (
    (0.001, 0.000, 0.014),
    (0.087, 0.045, 0.225),
    (0.258, 0.039, 0.406),
    (0.416, 0.090, 0.433),
    (0.578, 0.148, 0.404),
    (0.736, 0.216, 0.330),
    (0.865, 0.317, 0.226),
    (0.955, 0.469, 0.100),
    (0.988, 0.645, 0.040),
    (0.964, 0.844, 0.273),
    (0.988, 0.998, 0.645),
)
"""Matplotlib's Inferno at equal steps; between them it is as good as straight."""


def map_colors() -> Any:
    """The colour node for maps: Slicer's Inferno, or where that is missing one like it."""
    scene = slicer.mrmlScene
    return scene.GetNodeByID(INFERNO) or scene.GetFirstNodeByName(FALLBACK) or _made()


def color_function(lower: float) -> tuple[Any, Any]:
    """The same colours for volume rendering, and an opacity that begins at a threshold.

    Returns:
        vtkColorTransferFunction and vtkPiecewiseFunction over 0 to 1.
    """
    colors = vtk.vtkColorTransferFunction()
    for step, color in enumerate(ANCHORS):
        colors.AddRGBPoint(step / (len(ANCHORS) - 1), *color)
    opacity = vtk.vtkPiecewiseFunction()
    for value, alpha in ((0.0, 0.0), (lower, 0.0), (min(lower + 0.02, 1.0), 0.08), (1.0, 0.6)):
        opacity.AddPoint(value, alpha)
    return colors, opacity


def _made() -> Any:
    colors, _ = color_function(0.0)
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetName(FALLBACK)
    node.SetHideFromEditors(True)
    node.SetTypeToUser()
    node.SetNumberOfColors(COLORS)
    for index in range(COLORS):
        node.SetColor(index, *colors.GetColor(index / (COLORS - 1)), 1.0)
    return slicer.mrmlScene.AddNode(node)
