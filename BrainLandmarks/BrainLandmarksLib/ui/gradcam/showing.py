"""The part of the panel that shows maps: over the slices, with a legend, in space."""

from __future__ import annotations

from typing import Any

import slicer

from BrainLandmarksLib.mrml.gradcam import map_views
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors

LEFT, RIGHT = "left", "right"
"""Slots of the two maps that are shown; without a comparison there is the left one."""


class ShowSection(Section):
    """Overlay, opacity, threshold, legend, 3-D."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        ui = self.ui
        self._shown: dict[str, tuple[str, str]] = {}
        self._in_space: set[str] = set()
        ui.opacitySlider.connect("valueChanged(double)", self._opacity)
        ui.thresholdSlider.connect("valueChanged(double)", self._threshold)
        for box in (ui.overlayCheck, ui.legendCheck, ui.spaceCheck):
            box.connect("toggled(bool)", self._toggled)

    @property
    def shown(self) -> bool:
        """Whether there is a map to see."""
        return bool(self._nodes())

    def take(self, slot: str, node: Any, legend: str) -> None:
        """Show a map; the one that had the slot is shown no more."""
        before = self._shown.get(slot)
        if before is not None and before[0] != node.GetID():
            self._put_away(before[0])
        self._shown[slot] = (node.GetID(), legend)
        self.draw()

    def drop(self, slot: str) -> None:
        """Show nothing in a slot."""
        before = self._shown.pop(slot, None)
        if before is not None:
            self._put_away(before[0])

    def leave(self) -> None:
        """Show no maps."""
        for slot in list(self._shown):
            self.drop(slot)
        map_views.lay_over(None, 0.0)

    def dress(self, node: Any) -> None:
        """Give a map that is not shown the threshold of the others."""
        map_views.set_threshold(node, self._lower)

    def draw(self) -> None:
        """Show the maps as the boxes and sliders say."""
        nodes = self._nodes()
        for node, _ in nodes.values():
            map_views.set_threshold(node, self._lower)
        if not self.ui.overlayCheck.checked or not nodes:
            map_views.lay_over(None, 0.0)
        elif self.panel.comparing.on:
            map_views.lay_over(None, 0.0)
            left, right = (nodes.get(slot, (None, ""))[0] for slot in (LEFT, RIGHT))
            volume = self.panel.maps.volume
            self.panel.comparing.views.show(left, right, self._visible, over=volume)
        else:
            node, _ = next(iter(nodes.values()))
            map_views.lay_over(node, self._visible, over=self.panel.maps.volume)
        # Last, since views look for a legend when it changes, not when its map comes into view.
        for node, legend in nodes.values():
            on = bool(self.ui.overlayCheck.checked and self.ui.legendCheck.checked)
            map_views.set_legend(node, legend, on=on)
        self._draw_in_space(nodes)

    def _draw_in_space(self, nodes: dict[str, tuple[Any, str]]) -> None:
        """One map in space: two in one place could not be distinguished."""
        wanted = None
        if self.ui.spaceCheck.checked and nodes:
            wanted = next(iter(nodes.values()))[0]
        for identity in self._in_space - ({wanted.GetID()} if wanted else set()):
            node = slicer.mrmlScene.GetNodeByID(identity)
            if node is not None:
                map_views.show_in_space(node, self._lower, on=False)
        self._in_space = set()
        if wanted is not None:
            map_views.show_in_space(wanted, self._lower, on=True)
            self._in_space = {wanted.GetID()}

    def _put_away(self, identity: str) -> None:
        node = slicer.mrmlScene.GetNodeByID(identity)
        if node is None:
            return
        map_views.set_legend(node, "", on=False)
        if identity in self._in_space:
            map_views.show_in_space(node, self._lower, on=False)
            self._in_space.discard(identity)

    def _nodes(self) -> dict[str, tuple[Any, str]]:
        """Slot to map and legend, without those that were deleted."""
        found = {}
        for slot, (identity, legend) in sorted(self._shown.items()):
            node = slicer.mrmlScene.GetNodeByID(identity)
            if node is not None and self.panel.maps is not None:
                found[slot] = (node, legend)
        return found

    @property
    def _lower(self) -> float:
        return float(self.ui.thresholdSlider.value)

    @property
    def _visible(self) -> float:
        return float(self.ui.opacitySlider.value)

    @reports_errors
    def _toggled(self, _on: bool) -> None:
        self.draw()

    @heard
    def _opacity(self, _value: float) -> None:
        map_views.set_opacity(self._visible)

    @reports_errors
    def _threshold(self, _value: float) -> None:
        for node, _ in self._nodes().values():
            map_views.set_threshold(node, self._lower)
            if node.GetID() in self._in_space:
                map_views.show_in_space(node, self._lower, on=True)
