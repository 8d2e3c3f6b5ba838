"""Binding the panel to the scene: here it hears of its parameter node, too."""

from __future__ import annotations

from typing import Any

import vtk

from BrainLandmarksLib.ui.common.scene_binding import SceneBinding

MODIFIED = vtk.vtkCommand.ModifiedEvent


class TrainBinding(SceneBinding):
    """Gives the parameter node to the panel, and notifies it when the node has other values."""

    def pause(self) -> None:
        """The panel is out of view; what it only shows goes."""
        super().pause()
        self._widget.panel.end_preview()

    def _set(self, parameters: Any) -> None:
        widget, before = self._widget, self.parameters
        if before is not None:
            widget.removeObserver(before, MODIFIED, self._modified)
        super()._set(parameters)
        if parameters is not None:
            widget.addObserver(parameters, MODIFIED, self._modified)
        widget.panel.bind(parameters)

    def _modified(self, _caller: Any, _event: str) -> None:
        self._widget.panel.parameters_changed()
