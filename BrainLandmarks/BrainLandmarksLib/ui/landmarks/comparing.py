"""The section Compare: this head brought onto another one, and what has changed since a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.alignment import align, alignment_of, undo_alignment
from BrainLandmarksLib.mrml.landmarks.change_nodes import FollowingArrows, show_change
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.placing import on_moved
from BrainLandmarksLib.registration.report import region_table, wrong
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection
from BrainLandmarksLib.ui.landmarks.source_model import errors_of_volume

MOST_NAMED = 5
"""Landmarks that the sentence names; the table and the transform have all."""


class CompareSection(SessionSection):
    """Buttons that align, take the alignment away, and show changes; a table of the last result."""

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self._volume: Any = None
        self._observed: list[int] = []
        self._arrows: FollowingArrows | None = None
        self.on_click(
            {
                "alignButton": self.align,
                "undoAlignButton": self.undo,
                "changeButton": self.show_change,
            }
        )
        self.ui.compareSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._chosen)

    def set_volume(self, volume: Any) -> None:
        """Another volume was chosen, or None: whether it is aligned, and the scene's arrows."""
        for tag in self._observed:
            self._volume.RemoveObserver(tag)
        if self._arrows is not None:
            self._arrows.close()
        self._volume, self._observed, self._arrows = volume, [], None
        if volume is not None:
            self._observed = on_moved(volume, self._moved)
            self._arrows = FollowingArrows()

    def leave(self) -> None:
        """Nothing to compare."""
        self._fill((), ())

    def refresh(self, session: Session | None) -> None:
        """What can be clicked: both need landmarks here and another volume."""
        ui, volume = self.ui, self.panel.volume()
        ready = session is not None and self._other() not in (None, volume)
        ui.alignButton.setEnabled(ready)
        ui.changeButton.setEnabled(ready)
        ui.undoAlignButton.setEnabled(volume is not None and alignment_of(volume) is not None)

    @reports_errors
    def align(self) -> None:
        """Bring the volume and its landmarks onto the other's."""
        volume, other = self.panel.need_session().volume, self._need_other()
        kind = str(self.ui.alignKindCombo.currentText)
        errors = errors_of_volume(volume), errors_of_volume(other)
        found = align(volume, other, kind, *errors).registration
        table = region_table(found)
        shown = [(row[0], row[3], row[4]) for row in table.rows]
        self._fill(("Region", "target error, mm", "left out, mm"), shown)
        text = (
            f"Aligned with {other.GetName()} ({kind}) by {int(found.used.sum())} of "
            f"{int(found.there.sum())} landmarks."
        )
        self.panel.status(text + _named(" Left out as wrong: ", wrong(found)))
        self.panel.refresh()

    @reports_errors
    def undo(self) -> None:
        """Take the alignment away."""
        undo_alignment(self.panel.volume())
        self._fill((), ())
        self.panel.status("The alignment was taken away.")
        self.panel.refresh()

    @reports_errors
    def show_change(self) -> None:
        """A table and arrows: what has changed since the other volume was scanned."""
        later, baseline = self.panel.need_session().volume, self._need_other()
        errors = errors_of_volume(baseline), errors_of_volume(later)
        change, _, _ = show_change(baseline, later, *errors)
        if self._arrows is not None:
            self._arrows.update()
        rows = [(m.label, m.length_mm, m.expected_mm, m.z, m.changed) for m in change.moves]
        rows += [(d.name, d.mm, d.expected_mm, d.z, d.changed) for d in change.distances]
        rows.sort(key=lambda row: -abs(row[3]))
        cells = [(*row[:4], "yes" if row[4] else "no") for row in rows]
        self._fill(("Landmark or distance", "mm", "expected", "z", "changed"), cells)
        nothing = f"Nothing has changed since {baseline.GetName()} by more than the expected error."
        since = f"Changed since {baseline.GetName()}: "
        self.panel.status(_named(since, change.changed) or nothing)
        self.panel.refresh()

    @heard
    def _chosen(self, _node: Any = None) -> None:
        self.refresh(self.session)

    @heard
    def _moved(self, _volume: Any, _event: str) -> None:
        # An alignment is over when it is hardened, or the volume is taken from it.
        self.refresh(self.session)

    def _other(self) -> Any:
        return self.ui.compareSelector.currentNode()

    def _need_other(self) -> Any:
        other = self._other()
        if other is None:
            raise UserError("no volume to compare with is chosen; choose one in this section.")
        return other

    def _fill(self, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self.ui.compareTable
        table.setColumnCount(len(headers))
        table.setHorizontalHeaderLabels(list(headers))
        table.setRowCount(len(rows))
        for r, row in enumerate(rows):
            for c, cell in enumerate(row):
                text = f"{cell:.2f}" if isinstance(cell, float) else str(cell)
                table.setItem(r, c, qt.QTableWidgetItem(text.replace("nan", "–")))
        table.resizeColumnsToContents()


def _named(start: str, labels: Sequence[str]) -> str:
    """A sentence with the first of some names; empty without any."""
    if not labels:
        return ""
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return f"{start}{', '.join(labels[:MOST_NAMED])}{more}."
