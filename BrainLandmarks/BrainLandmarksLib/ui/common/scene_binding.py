"""What the widgets of all modules do alike: bind a panel to the scene, and let go of it again."""

from __future__ import annotations

from typing import Any

import slicer

from BrainLandmarksLib.mrml.gradcam.map_nodes import first_scan
from BrainLandmarksLib.ui.common.host import stop_shared_host


class SceneBinding:
    """Binds a module's widgets to its parameter node, anew in every scene that is opened.

    The module's widget calls `bind` at the end of its setup and when it is entered, `pause` when it
    is left, and `end` in its cleanup.

    Args:
        widget: The module's widget, with its `logic`, its `panel`, and its widgets by name in `ui`.
    """

    def __init__(self, widget: Any) -> None:
        self.parameters: Any = None
        self._widget = widget
        self._tag: Any = None
        scene = slicer.mrmlScene
        widget.addObserver(scene, scene.StartCloseEvent, self._scene_closing)
        widget.addObserver(scene, scene.EndCloseEvent, self._scene_changed)
        widget.addObserver(scene, scene.EndImportEvent, self._scene_changed)
        widget.addObserver(scene, scene.StartSaveEvent, self._scene_saving)

    def bind(self) -> None:
        """Bind the panel to the choices that the scene keeps."""
        self._set(self._widget.logic.getParameterNode())

    def pause(self) -> None:
        """The panel is out of view: its widgets leave the parameter node alone."""
        if self.parameters is not None and self._tag is not None:
            self.parameters.disconnectGui(self._tag)
            self._tag = None

    def end(self) -> None:
        """Let go of the scene for good."""
        self._set(None)
        self._widget.panel.close()

    def on_closing(self) -> None:
        """The scene is about to be closed."""

    def on_changed(self) -> None:
        """Another scene is there, and the panel, which is in view, is bound to it."""

    def _set(self, parameters: Any) -> None:
        """Bind the panel to a parameter node, or to none."""
        self.pause()
        self.parameters = parameters
        if parameters is not None:
            self._tag = parameters.connectGui(self._widget.ui)

    def _scene_closing(self, _caller: Any, _event: str) -> None:
        self.on_closing()
        self._set(None)

    def _scene_saving(self, _caller: Any, _event: str) -> None:
        self._widget.panel.end_preview()

    def _scene_changed(self, _caller: Any, _event: str) -> None:
        if self._widget.parent.isEntered:
            self.bind()
            self.on_changed()


class ScanBinding(SceneBinding):
    """For a module that works on the scan ``inputVolume``, and has the worker do so.

    Args:
        widget: As above; its panel has `set_volume`.
        selector: The widget in which the scan is chosen.
    """

    def __init__(self, widget: Any, selector: Any) -> None:
        super().__init__(widget)
        self._selector = selector
        selector.connect("currentNodeChanged(vtkMRMLNode*)", widget.panel.set_volume)

    def bind(self) -> None:
        """As above; with one scan in the scene, choose it."""
        super().bind()
        if self.parameters.inputVolume is None:
            scan = first_scan()
            if scan is not None:
                self.parameters.inputVolume = scan

    def end(self) -> None:
        """Let go of the scene for good, and of the worker."""
        super().end()
        stop_shared_host()

    def on_closing(self) -> None:
        """Let go of the scan."""
        self._widget.panel.close()

    def on_changed(self) -> None:
        """Work on the scan that is chosen now."""
        self._widget.panel.set_volume(self._selector.currentNode())
