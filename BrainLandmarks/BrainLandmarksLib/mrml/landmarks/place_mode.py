"""Placing a point with one click in a view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from BrainLandmarksLib.mrml.landmarks.views import helper_list
from BrainLandmarksLib.mrml.scene import remove


class PlaceOnce:
    """Slicer's place mode for one click, on a list of its own.

    The landmark lists have a fixed number of points, which place mode cannot touch; the click goes
    to a hidden list that is gone afterwards. Which list the user's next click belongs to, and
    whether place mode stays, is then as it was before.

    While a view handles a click it goes on using the list, so the list is never removed in an event
    of the scene: that, and what follows the click, happens after the event.

    Args:
        on_placed: Called with the label and the place, world RAS mm (3,), or None when the user
            ended the mode without a click.
        later: Calls a function when what goes on now has ended, as a timer of 0 ms does.
    """

    def __init__(
        self,
        on_placed: Callable[[str, Any], None],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._on_placed = on_placed
        self._later = later
        self._wait: _Wait | None = None

    @property
    def active(self) -> bool:
        """Whether a click is awaited."""
        return self._wait is not None

    def start(self, label: str) -> None:
        """Wait for a click."""
        self.stop()
        self._wait = _Wait(label)
        self._wait.observe(self._clicked, lambda: self._ended(None))

    def stop(self) -> None:
        """Stop waiting, without a notification."""
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.end()
            self._later(wait.clear)

    def _clicked(self, node: Any, _event: str) -> None:
        self._ended(np.array(node.GetNthControlPointPositionWorld(0)))

    def _ended(self, point: Any) -> None:
        """A view or the toolbar is at work: go on when it is done."""
        wait = self._wait
        assert wait is not None
        wait.ignore()  # a click ends the mode, too
        self._later(lambda: self._finish(wait, point))

    def _finish(self, wait: _Wait, point: Any) -> None:
        if self._wait is not wait:  # stopped since
            return
        self._wait = None
        wait.end()
        wait.clear()
        self._on_placed(wait.label, point)


class _Wait:
    """One click that is awaited, and what the user had chosen to place before."""

    def __init__(self, label: str) -> None:
        selection, interaction = _selection(), _interaction()
        self.label = label
        self._kind = selection.GetActivePlaceNodeClassName()
        self._identity = selection.GetActivePlaceNodeID()
        self._persistence = interaction.GetPlaceModePersistence()
        self._observed: list[tuple[Any, int]] = []
        self._node = node = helper_list(label)
        selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
        selection.SetActivePlaceNodeID(node.GetID())
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)

    def observe(self, clicked: Callable[[Any, str], None], left: Callable[[], None]) -> None:
        """Hear of the click, and when place mode is left or is another list's now."""
        node, selection, interaction = self._node, _selection(), _interaction()

        def changed(_caller: Any, _event: str) -> None:
            if not self._is_awaited(selection, interaction):
                left()

        for caller, event, method in (
            (node, node.PointPositionDefinedEvent, clicked),
            (interaction, interaction.InteractionModeChangedEvent, changed),
            (selection, selection.ActivePlaceNodeIDChangedEvent, changed),
        ):
            self._observed.append((caller, caller.AddObserver(event, method)))

    def _is_awaited(self, selection: Any, interaction: Any) -> bool:
        placing = interaction.GetCurrentInteractionMode() == interaction.Place
        return placing and selection.GetActivePlaceNodeID() == self._node.GetID()

    def ignore(self) -> None:
        """Hear nothing more."""
        for caller, tag in self._observed:
            caller.RemoveObserver(tag)
        self._observed.clear()

    def end(self) -> None:
        """Leave place mode and give the user's choice back, unless they chose another since."""
        self.ignore()
        selection, interaction = _selection(), _interaction()
        if not self._in_scene():  # the scene was closed
            return
        if selection.GetActivePlaceNodeID() == self._node.GetID():
            if interaction.GetCurrentInteractionMode() == interaction.Place:
                interaction.SetCurrentInteractionMode(interaction.ViewTransform)
            there = self._identity and slicer.mrmlScene.GetNodeByID(self._identity)
            selection.SetReferenceActivePlaceNodeClassName(self._kind)
            selection.SetActivePlaceNodeID(self._identity if there else None)
        interaction.SetPlaceModePersistence(self._persistence)

    def clear(self) -> None:
        """Take the list away."""
        if self._in_scene():
            remove(self._node)

    def _in_scene(self) -> bool:
        return bool(slicer.mrmlScene.IsNodePresent(self._node))


def _selection() -> Any:
    return slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")


def _interaction() -> Any:
    return slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
