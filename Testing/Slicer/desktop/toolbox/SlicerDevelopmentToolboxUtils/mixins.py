"""Two of the toolbox' view helpers, as they behave there."""

from __future__ import annotations

import slicer


class ModuleWidgetMixin:
    """Helpers for module panels."""

    @staticmethod
    def getAllVisibleWidgets():
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            widget = manager.sliceWidget(name)
            if widget.sliceView().visible:
                yield widget

    @staticmethod
    def setFOV(sliceLogic, FOV):
        node = sliceLogic.GetSliceNode()
        node.SetFieldOfView(*FOV)
        node.UpdateMatrices()
