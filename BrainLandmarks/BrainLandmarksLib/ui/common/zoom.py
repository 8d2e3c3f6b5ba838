"""Slice views closer to the active landmark, with the SlicerDevelopmentToolbox' view helpers.

The toolbox is a dependency of the extension, but nothing depends on it: its mixins, which are
imported on the first use, in turn import SimpleITK, sitkUtils and pydicom, and where one of these
is missing or the toolbox itself is, the same is done without it.
"""

from __future__ import annotations

from typing import Any

import slicer

CLOSE_UP_MM = 90.0
"""Width of a slice view when zoomed in."""


def close_up(width_mm: float = CLOSE_UP_MM) -> None:
    """Show this much of the head in every visible slice view."""
    toolbox = _toolbox()
    for logic in _visible_slices(toolbox):
        width, height, depth = logic.GetSliceNode().GetFieldOfView()
        size = (width_mm, width_mm * height / width, depth)
        if toolbox is not None:
            toolbox.setFOV(logic, size)
        else:
            logic.GetSliceNode().SetFieldOfView(*size)
            logic.GetSliceNode().UpdateMatrices()


def whole() -> None:
    """Show the whole volume in every visible slice view."""
    for logic in _visible_slices(_toolbox()):
        logic.FitSliceToBackground()


def _toolbox() -> Any:
    """The toolbox' helpers for views, or None."""
    try:
        from SlicerDevelopmentToolboxUtils.mixins import (  # type: ignore[import-not-found]
            ModuleWidgetMixin,
        )
    except Exception:  # it is not maintained: a Slicer may come on which it cannot be imported
        return None
    return ModuleWidgetMixin


def _visible_slices(toolbox: Any) -> list[Any]:
    """The slice logics whose views are shown."""
    if toolbox is not None:
        return [widget.sliceLogic() for widget in toolbox.getAllVisibleWidgets()]
    every = slicer.app.applicationLogic().GetSliceLogics()
    logics = [every.GetItemAsObject(n) for n in range(every.GetNumberOfItems())]
    return [logic for logic in logics if logic.GetSliceNode().IsMappedInLayout()]
