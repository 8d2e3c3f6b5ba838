"""The review table: a tree of groups and their landmarks, with confidence, status and eye."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.protocol import Group, Landmark, Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.ui.common.landmark_text import fits, tool_tip
from BrainLandmarksLib.ui.common.pixmaps import BAR_PX, bar, swatch

NAME, CONFIDENCE, STATUS = range(3)
HEADERS = ("Landmark", "Confidence", "Status")

COLUMN_WIDTHS_PX = {CONFIDENCE: 72, STATUS: 78}
INDENTATION_PX = 12

STATUS_WORDS = {
    "model": "model",
    "edited": "edited",
    "confirmed": "confirmed",
    "missing": "missing",
    "truth": "reference",
}

_FILTER_STATUS = {
    "to review": ("model",),
    "edited": ("edited",),
    "confirmed": ("confirmed",),
    "missing": ("missing",),
}


class LandmarkTable:
    """Fills and drives a QTreeWidget.

    Args:
        tree: The widget.
        on_activate: Called with a label when its row is chosen with mouse or keys.
        on_visible: Called with the labels whose boxes are ticked when a box was clicked; a group's
            box stands for those of its landmarks.
    """

    def __init__(
        self,
        tree: Any,
        on_activate: Callable[[str], None],
        on_visible: Callable[[set[str]], None],
    ) -> None:
        self._tree = tree
        self._on_activate = on_activate
        self._on_visible = on_visible
        self._items: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._protocol: Protocol | None = None
        self._status: dict[str, str] = {}
        self._ticked: set[str] = set()
        self._filling = False
        tree.setColumnCount(len(HEADERS))
        tree.setHeaderLabels(list(HEADERS))
        tree.setRootIsDecorated(True)
        tree.setUniformRowHeights(True)
        tree.setAlternatingRowColors(True)
        tree.setIndentation(INDENTATION_PX)
        tree.setIconSize(qt.QSize(*BAR_PX))
        header = tree.header()
        header.setStretchLastSection(False)
        # A long name is cut off, with an ellipsis; the other columns stay in view.
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        for column, width in COLUMN_WIDTHS_PX.items():
            header.resizeSection(column, width)
        tree.connect("currentItemChanged(QTreeWidgetItem*,QTreeWidgetItem*)", self._current_changed)
        tree.connect("itemChanged(QTreeWidgetItem*,int)", self._item_changed)

    def fill(self, protocol: Protocol, pictures: Path | None = None) -> None:
        """Make the rows of a protocol; they are empty until `update`.

        Args:
            pictures: Folder with a picture of each landmark, ``<label>.jpg``.
        """
        self._filling = True
        try:
            self._tree.clear()
            self._items.clear()
            self._groups.clear()
            self._protocol = protocol
            for group in protocol.groups:
                parent = self._group_row(group)
                for landmark in protocol.members(group):
                    self._items[landmark.label] = _landmark_row(parent, landmark, group, pictures)
        finally:
            self._filling = False

    def clear(self) -> None:
        """No rows at all."""
        self._filling = True
        try:
            self._tree.clear()
        finally:
            self._filling = False
        self._items.clear()
        self._groups.clear()
        self._protocol = None

    def update(self, landmarks: LandmarkSet, labels: Iterable[str] | None = None) -> None:
        """Show confidence and status of landmarks, by default of all."""
        self._filling = True
        try:
            for label in landmarks.protocol.labels if labels is None else labels:
                row = landmarks.protocol.by_label(label).index - 1
                self._show(label, landmarks, row)
            for group in landmarks.protocol.groups:
                self._show_group(group, landmarks)
        finally:
            self._filling = False

    def select(self, label: str | None) -> None:
        """Make a row the current one without calling `on_activate`."""
        self._filling = True
        try:
            item = self._items.get(label) if label else None
            self._tree.setCurrentItem(item)
            if item is not None:
                self._tree.scrollToItem(item)
        finally:
            self._filling = False

    def show_only(self, text: str, status: str) -> None:
        """Hide the rows that do not fit a search (name, label or number) and a filter."""
        if self._protocol is None:
            return
        words = text.casefold().split()
        wanted = _FILTER_STATUS.get(status)
        for group in self._protocol.groups:
            shown = 0
            for landmark in self._protocol.members(group):
                here = fits(landmark, words) and (
                    wanted is None or self._status.get(landmark.label) in wanted
                )
                self._items[landmark.label].setHidden(not here)
                shown += here
            item = self._groups[group.name]
            item.setHidden(shown == 0)
            item.setExpanded(bool(words) or wanted is not None or item.isExpanded())

    def tick(self, labels: Iterable[str]) -> None:
        """Tick exactly these landmarks, without calling `on_visible`."""
        chosen = set(labels)
        self._filling = True
        try:
            for label, item in self._items.items():
                state = qt.Qt.Checked if label in chosen else qt.Qt.Unchecked
                if item.checkState(NAME) != state:
                    item.setCheckState(NAME, state)
        finally:
            self._filling = False

    def ticked(self) -> set[str]:
        """Labels of the landmarks whose box is ticked."""
        checked = qt.Qt.Checked
        return {label for label, item in self._items.items() if item.checkState(NAME) == checked}

    # Inside --------------------------------------------------------------------------------------

    def _group_row(self, group: Group) -> Any:
        item = qt.QTreeWidgetItem(self._tree)
        item.setText(NAME, group.name)
        item.setIcon(NAME, swatch(group.color))
        item.setToolTip(NAME, group.guideline)
        item.setFlags(item.flags() | qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsAutoTristate)
        item.setExpanded(True)
        self._groups[group.name] = item
        return item

    def _show(self, label: str, landmarks: LandmarkSet, row: int) -> None:
        item, status = self._items[label], landmarks.status[row]
        self._status[label] = status
        item.setText(STATUS, STATUS_WORDS[status])
        item.setToolTip(STATUS, landmarks.notes[row])
        confidence = float(landmarks.confidence[row])
        picture = bar(confidence) if math.isfinite(confidence) else None
        item.setData(CONFIDENCE, qt.Qt.DecorationRole, picture)

    def _show_group(self, group: Group, landmarks: LandmarkSet) -> None:
        rows = slice(group.first - 1, group.last)
        status = landmarks.status[rows]
        seen = sum(s in ("edited", "confirmed") for s in status)
        item = self._groups[group.name]
        item.setText(STATUS, f"{seen} of {len(status)} seen")

    def _current_changed(self, current: Any, _previous: Any) -> None:
        if self._filling or current is None:
            return
        label = current.data(NAME, qt.Qt.UserRole)
        if label:
            self._on_activate(str(label))

    def _item_changed(self, item: Any, column: int) -> None:
        if self._filling or column != NAME:
            return
        ticked = self.ticked()
        if ticked != self._ticked:  # a group's box changes many rows, and each of them says so
            self._ticked = ticked
            self._on_visible(ticked)


def _landmark_row(parent: Any, landmark: Landmark, group: Group, pictures: Path | None) -> Any:
    item = qt.QTreeWidgetItem(parent)
    item.setText(NAME, f"{landmark.index}  {landmark.name}")
    item.setIcon(NAME, swatch(group.color))
    item.setData(NAME, qt.Qt.UserRole, landmark.label)
    item.setFlags(item.flags() | qt.Qt.ItemIsUserCheckable)
    item.setCheckState(NAME, qt.Qt.Checked)
    item.setToolTip(NAME, tool_tip(landmark, pictures))
    return item
