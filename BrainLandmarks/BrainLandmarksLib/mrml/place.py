"""Placing a point with one click in a view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.mrml.views import helper_list


class PlaceOnce:
    """Slicer's place mode for one click, on a list of its own.

    The landmark lists have a fixed number of points, which place mode cannot touch; the click goes
    to a hidden list that is gone afterwards.

    Args:
        on_placed: Called with the label and the place, world RAS mm (3,), or None when the user
            ended the mode without a click.
    """

    def __init__(self, on_placed: Callable[[str, Any], None]) -> None:
        self._on_placed = on_placed
        self._label: str | None = None
        self._node: Any = None
        self._observed: list[tuple[Any, int]] = []

    @property
    def active(self) -> bool:
        """Whether a click is awaited."""
        return self._label is not None

    def start(self, label: str) -> None:
        """Wait for a click."""
        self.stop()
        scene = slicer.mrmlScene
        node = helper_list(label)
        self._label, self._node = label, node
        selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
        selection.SetActivePlaceNodeID(node.GetID())
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)
        for caller, event, method in (
            (node, node.PointPositionDefinedEvent, self._clicked),
            (interaction, interaction.InteractionModeChangedEvent, self._mode_changed),
        ):
            self._observed.append((caller, caller.AddObserver(event, method)))

    def stop(self) -> None:
        """Wait no more."""
        self._finish(None, tell=False)

    def _clicked(self, node: Any, _event: str) -> None:
        self._finish(np.array(node.GetNthControlPointPositionWorld(0)), tell=True)

    def _mode_changed(self, interaction: Any, _event: str) -> None:
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            self._finish(None, tell=True)

    def _finish(self, point: Any, *, tell: bool) -> None:
        if self._label is None:
            return
        label, self._label = self._label, None
        for caller, tag in self._observed:
            caller.RemoveObserver(tag)
        self._observed.clear()
        scene = slicer.mrmlScene
        interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        if interaction is not None:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        if self._node is not None and scene.IsNodePresent(self._node):
            remove(self._node)
        self._node = None
        if tell:
            self._on_placed(label, point)
