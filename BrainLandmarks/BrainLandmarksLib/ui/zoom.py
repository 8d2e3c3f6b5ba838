"""Slice views closer to the active landmark, with the SlicerDevelopmentToolbox' view helpers.

The toolbox is a dependency of the extension. Its mixins import SimpleITK and pydicom, so they are
imported on the first use; without the toolbox there is no zoom, and everything else works.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

CLOSE_UP_MM = 90.0
"""Width of a slice view when zoomed in."""


def available() -> bool:
    """Whether the toolbox is installed."""
    return find_spec("SlicerDevelopmentToolboxUtils") is not None


def close_up(width_mm: float = CLOSE_UP_MM) -> None:
    """Show this much of the head in every visible slice view."""
    mixin = _mixin()
    for widget in mixin.getAllVisibleWidgets():
        node = widget.mrmlSliceNode()
        width, height, depth = node.GetFieldOfView()
        mixin.setFOV(widget.sliceLogic(), (width_mm, width_mm * height / width, depth))


def whole() -> None:
    """Show the whole volume in every visible slice view."""
    for widget in _mixin().getAllVisibleWidgets():
        widget.sliceLogic().FitSliceToBackground()


def _mixin() -> Any:
    from SlicerDevelopmentToolboxUtils.mixins import (  # type: ignore[import-not-found]
        ModuleWidgetMixin,
    )

    return ModuleWidgetMixin
