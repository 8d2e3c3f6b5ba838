"""The tree of groups and landmarks in which one chooses what is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.ui.common.landmark_text import fits, tool_tip
from BrainLandmarksLib.ui.common.pixmaps import swatch


class ChoiceTree:
    """Fills and drives a QTreeWidget; a group stands for its landmarks.

    Args:
        tree: The widget.
        on_choice: Called with the labels in the protocol's order when a person has chosen others.
    """

    def __init__(self, tree: Any, on_choice: Callable[[tuple[str, ...]], None]) -> None:
        self._tree = tree
        self._on_choice = on_choice
        self._items: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._protocol: Protocol | None = None
        self._chosen: tuple[str, ...] = ()
        self._filling = False
        tree.setColumnCount(1)
        tree.setHeaderHidden(True)
        tree.setUniformRowHeights(True)
        tree.setSelectionMode(qt.QAbstractItemView.ExtendedSelection)
        tree.connect("itemSelectionChanged()", self._selection_changed)

    def fill(self, protocol: Protocol, pictures: Path) -> None:
        """Make the rows of a protocol; nothing is chosen."""
        self._filling = True
        try:
            self._tree.clear()
            self._items.clear()
            self._groups.clear()
            self._protocol, self._chosen = protocol, ()
            for group in protocol.groups:
                parent = qt.QTreeWidgetItem(self._tree)
                parent.setText(0, group.name)
                parent.setIcon(0, swatch(group.color))
                parent.setToolTip(0, f"All landmarks of the group. {group.guideline}")
                self._groups[group.name] = parent
                for landmark in protocol.members(group):
                    item = qt.QTreeWidgetItem(parent)
                    item.setText(0, f"{landmark.index}  {landmark.name}")
                    item.setToolTip(0, tool_tip(landmark, pictures / protocol.name))
                    self._items[landmark.label] = item
        finally:
            self._filling = False

    @property
    def protocol(self) -> Protocol | None:
        """Whose rows there are."""
        return self._protocol

    @property
    def chosen(self) -> tuple[str, ...]:
        """Labels of what is chosen."""
        return self._chosen

    def select(self, labels: Iterable[str]) -> None:
        """Choose these landmarks without calling `on_choice`."""
        wanted = set(labels)
        self._filling = True
        try:
            self._tree.clearSelection()
            for label, item in self._items.items():
                if label in wanted:
                    item.setSelected(True)
                    self._tree.scrollToItem(item)
        finally:
            self._filling = False
        self._chosen = tuple(label for label in self._items if label in wanted)

    def show_only(self, text: str) -> None:
        """Hide the rows that do not fit a search by name, label or number."""
        if self._protocol is None:
            return
        words = text.casefold().split()
        for group in self._protocol.groups:
            shown = [m for m in self._protocol.members(group) if fits(m, words)]
            for landmark in self._protocol.members(group):
                self._items[landmark.label].setHidden(landmark not in shown)
            self._groups[group.name].setHidden(not shown)
            if words:
                self._groups[group.name].setExpanded(True)

    def _selection_changed(self) -> None:
        if self._filling or self._protocol is None:
            return
        labels = {label for label, item in self._items.items() if item.isSelected()}
        for group in self._protocol.groups:
            if self._groups[group.name].isSelected():
                labels |= {landmark.label for landmark in self._protocol.members(group)}
        chosen = tuple(label for label in self._items if label in labels)
        if chosen != self._chosen:
            self._chosen = chosen
            self._on_choice(chosen)
