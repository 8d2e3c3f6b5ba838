"""The section Correct by guidelines: what the rules would move, shown before they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import qt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.review import Edit, Review
from BrainLandmarksLib.review.batch_correction import apply_guidelines, uncertainties
from BrainLandmarksLib.review.edits import from_record, to_record
from BrainLandmarksLib.ui.common.section import Section, reports_errors
from BrainLandmarksTrainLib.mrml.case import Case

from . import landmarks_module
from .dataset import need_case

HEADERS = ("Landmark", "What", "mm")
ROW_PX, SHOWN_ROWS = 24, 6


class GuidelinesSection(Section):
    """A preview of the moves in table and views; Apply records them, Discard does not."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._case: Case | None = None
        self._before: Review | None = None
        self._moved: tuple[Review, dict[str, Any]] | None = None
        table = self.ui.movesTable
        table.setColumnCount(len(HEADERS))
        table.setHorizontalHeaderLabels(list(HEADERS))
        table.verticalHeader().setVisible(False)
        table.setMinimumHeight(ROW_PX * SHOWN_ROWS)
        self.on_click(
            {
                "guidelinesButton": self.preview,
                "applyMovesButton": self.apply,
                "discardMovesButton": self.discard,
            }
        )
        self.forget()

    def forget(self) -> None:
        """Wait for no answer; the case was closed or changed."""
        self._case, self._before, self._moved = None, None, None
        self.ui.movesBar.setVisible(False)
        self.ui.guidelinesButton.setEnabled(True)

    @reports_errors
    def preview(self) -> None:
        """Show what would move; nothing is recorded yet."""
        case = need_case()
        review, source = case.review()
        if review.current.missing.all():
            raise UserError("the case has no landmark to correct.")
        moved = _copy(review)
        moved.reviewer = case.rater or str(self.panel.preference("reviewer"))
        edits = apply_guidelines(moved, primary=bool(self.ui.primaryCheck.checked))
        off_plane = ", ".join(f"{d.label} {d.mm:.1f} mm" for d in uncertainties(moved))
        if not edits:
            raise UserError(
                "nothing to move; the case keeps to the guidelines." + _named(off_plane)
            )
        landmarks_module.release(case.volume)
        case.nodes.show(moved.current)
        self._case, self._before, self._moved = case, review, (moved, source)
        self._fill(edits, off_plane)

    @reports_errors
    def apply(self) -> None:
        """Move the points, with a record."""
        if self._case is None or self._moved is None:
            return
        case, (review, source) = self._case, self._moved
        self.forget()
        case.replace(review, source)
        landmarks_module.take_up(case.volume)
        self.panel.case_changed()

    @reports_errors
    def discard(self) -> None:
        """Leave the points where they were."""
        if self._case is None or self._moved is None:
            return
        case, before = self._case, self._before
        self.forget()
        assert before is not None
        case.nodes.show(before.current)
        landmarks_module.take_up(case.volume)

    def end_preview(self) -> None:
        """Discard what is shown and not decided; without its bar nobody could any more.

        The points in the views would pass for the case's own.
        """
        if self._case is None:
            return
        if LandmarkNodes.of_volume(self._case.volume) is None:
            self.forget()
        else:
            self.discard()

    def need_decided(self) -> None:
        """Check that no preview is shown.

        Raises:
            UserError: there is one.
        """
        if self._case is not None:
            raise UserError("apply or discard what the guidelines would move first.")

    def _fill(self, edits: Sequence[Edit], off_plane: str) -> None:
        table = self.ui.movesTable
        table.setRowCount(len(edits))
        for row, edit in enumerate(edits):
            mm = edit.distance_mm
            texts = (edit.label, edit.kind, "" if mm is None else f"{mm:.1f}")
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        known = [edit.distance_mm or 0.0 for edit in edits]
        self.ui.movesLabel.setText(
            f"{len(edits)} moves, {np.mean(known):.1f} mm on average and {max(known):.1f} mm at "
            "most; the views show where the points would go." + _named(off_plane)
        )
        self.ui.movesBar.setVisible(True)
        self.ui.guidelinesButton.setEnabled(False)


def _named(off_plane: str) -> str:
    return f" Primary points off their plane, to be checked: {off_plane}." if off_plane else ""


def _copy(review: Review) -> Review:
    current = replace(review.current)  # the constructor copies
    return from_record(to_record(review), current, "the scene")[0]
