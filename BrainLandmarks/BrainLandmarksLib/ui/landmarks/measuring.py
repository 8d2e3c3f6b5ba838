"""The section Measure: named distances and left-right asymmetry of the landmarks as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.protocol import measures
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.ui.common.section import heard
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection


class MeasureSection(SessionSection):
    """A table that follows the landmarks while the section is open."""

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self.ui.measureCombo.connect("currentTextChanged(QString)", self.show)
        self.ui.measureSection.connect("contentsCollapsed(bool)", self.show)

    def enter(self, session: Session) -> None:
        """Measure the new landmarks."""
        self.show()

    def leave(self) -> None:
        """Nothing to measure."""
        self._fill(("", ""), [])

    def changed(self, session: Session, labels: list[str]) -> None:
        """Measure again."""
        self.show()

    @heard
    def show(self, _choice: Any = None) -> None:
        """Fill the table; a closed section costs nothing."""
        if self.session is None or self.ui.measureSection.collapsed:
            return
        landmarks = self.session.review.current
        if str(self.ui.measureCombo.currentText) == "distances":
            rows = [(m.distance.name, m.mm) for m in measures.measured(landmarks)]
            self._fill(("Distance", "mm"), rows)
            return
        try:
            rows = _asymmetry(landmarks)
        except UserError as error:
            rows = []
            self.show_error(str(error))
        self._fill(("Pair", "mm"), rows)

    def _fill(self, headers: tuple[str, str], rows: list[tuple[str, float]]) -> None:
        table = self.ui.measureTable
        table.setColumnCount(len(headers))
        table.setHorizontalHeaderLabels(list(headers))
        table.setRowCount(len(rows))
        for r, (name, mm) in enumerate(rows):
            table.setItem(r, 0, qt.QTableWidgetItem(name))
            table.setItem(r, 1, qt.QTableWidgetItem(f"{mm:.1f}" if np.isfinite(mm) else "–"))
        table.resizeColumnsToContents()


def _asymmetry(landmarks: LandmarkSet) -> list[tuple[str, float]]:
    by_label = landmarks.protocol.by_label
    return [
        (by_label(pair.left).name.replace("left ", "", 1), pair.mm)
        for pair in measures.asymmetries(landmarks)
    ]
