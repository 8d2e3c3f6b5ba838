"""Following the active landmark of a volume, whichever module chose it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk

from BrainLandmarksLib.mrml.folder import ROLE
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes


class Follower:
    """Tells when another landmark of a volume becomes the active one.

    That happens when a row is chosen in the table of Brain Landmarks, or when a point is clicked in
    a view: while somebody follows, all lists take clicks. Their points stay locked.

    >>> follower = Follower(print)
    >>> follower.start(volume)
    >>> follower.stop()

    Args:
        on_active: Called with the label.
    """

    def __init__(self, on_active: Callable[[str], None]) -> None:
        self._on_active = on_active
        self._volume: Any = None
        self._nodes: LandmarkNodes | None = None
        self._label: str | None = None
        self._scene_tag: tuple[Any, int] | None = None
        self._anchors: list[tuple[Any, int]] = []
        self._displays: list[tuple[Any, int]] = []

    @property
    def label(self) -> str | None:
        """The active landmark, or None."""
        return self._label

    def start(self, volume: Any) -> None:
        """Follow what happens to the landmarks of a volume, those it has and those it will get."""
        self.stop()
        if volume is None:
            return
        self._volume = volume
        scene = slicer.mrmlScene
        self._scene_tag = (scene, scene.AddObserver(scene.NodeAddedEvent, self._node_added))
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
            self._observe(scene.GetNthNodeByClass(n, "vtkMRMLScriptedModuleNode"))
        self._refresh(notify=False)

    def stop(self) -> None:
        """Follow no more."""
        if self._scene_tag is not None:
            self._scene_tag[0].RemoveObserver(self._scene_tag[1])
            self._scene_tag = None
        for caller, tag in self._anchors:
            caller.RemoveObserver(tag)
        self._anchors.clear()
        self._leave_lists()
        self._volume, self._label = None, None

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_added(self, _scene: Any, _event: str, node: Any = None) -> None:
        self._observe(node)

    def _observe(self, anchor: Any) -> None:
        # A new one is not complete yet; it is modified when it is.
        if anchor is not None and anchor.GetAttribute(ROLE) == "landmarks":
            self._anchors.append((anchor, anchor.AddObserver("ModifiedEvent", self._modified)))

    def _modified(self, _anchor: Any, _event: str) -> None:
        self._refresh(notify=True)

    def _refresh(self, *, notify: bool) -> None:
        """Find the volume's lists and what is active in them now."""
        if self._nodes is None or not self._nodes.complete:
            self._leave_lists()
            nodes = LandmarkNodes.of_volume(self._volume)
            if nodes is None:
                return
            self._enter_lists(nodes)
        assert self._nodes is not None
        for node in self._nodes.lists:
            if node.GetLocked():
                node.SetLocked(False)
        label = self._nodes.active
        if label != self._label:
            self._label = label
            if notify and label is not None:
                self._on_active(label)

    def _enter_lists(self, nodes: LandmarkNodes) -> None:
        self._nodes = nodes
        for node in nodes.lists:
            display = node.GetDisplayNode()
            tag = display.AddObserver(display.JumpToPointEvent, self._clicked)
            self._displays.append((display, tag))

    def _leave_lists(self) -> None:
        for display, tag in self._displays:
            display.RemoveObserver(tag)
        self._displays.clear()
        nodes, self._nodes = self._nodes, None
        if nodes is not None and nodes.complete:
            for node in nodes.lists:
                locked = all(
                    node.GetNthControlPointLocked(n) for n in range(node.GetNumberOfControlPoints())
                )
                if bool(node.GetLocked()) != locked:
                    node.SetLocked(locked)

    def _clicked(self, display: Any, _event: str) -> None:
        if self._nodes is None or display.GetActiveComponentType() != display.ComponentControlPoint:
            return
        node = display.GetDisplayableNode()
        label = self._nodes.label_of(node, display.GetActiveComponentIndex())
        if label is not None:
            self._nodes.active = label
