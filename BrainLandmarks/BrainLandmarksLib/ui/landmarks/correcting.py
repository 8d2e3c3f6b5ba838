"""The section Correct: what a person does to a point, a group, or all the rest."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.place_mode import PlaceOnce
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.ui.common.section import heard, later, reports_errors
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection

_ON_A_POINT = (
    "confirmButton",
    "confirmGroupButton",
    "placeButton",
    "missingButton",
    "revertButton",
    "respaceButton",
    "projectButton",
)


class CorrectSection(SessionSection):
    """Confirm, place, mark missing, revert, undo; re-space and flatten; update the others."""

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        ui = self.ui
        self._place = PlaceOnce(self._placed, later)
        self._preview: dict[str, Any] | None = None
        ui.previewBar.setVisible(False)
        self.on_click(
            {
                "confirmButton": partial(self._on_point, "confirm", True),
                "confirmGroupButton": partial(self._on_group, "confirm_group", True),
                "missingButton": partial(self._on_point, "mark_missing"),
                "revertButton": partial(self._on_point, "revert"),
                "respaceButton": partial(self._on_group, "respace"),
                "projectButton": partial(self._on_group, "project"),
                "undoButton": partial(self._on_session, "undo"),
                "redoButton": partial(self._on_session, "redo"),
                "revertAllButton": self._revert_all,
                "resolveButton": self._offer_update,
                "acceptButton": partial(self._answer_update, True),
                "discardButton": partial(self._answer_update, False),
            }
        )
        ui.placeButton.connect("toggled(bool)", self._place_clicked)
        ui.snapCombo.connect("currentTextChanged(QString)", self._snap_changed)

    @property
    def previewing(self) -> bool:
        """Whether an update of the others waits for an answer."""
        return self._preview is not None

    def enter(self, session: Session) -> None:
        """The snap that is chosen holds for the new session, too."""
        session.corrections.snap = str(self.ui.snapCombo.currentText)

    def leave(self) -> None:
        """Whatever waits for a click is over."""
        self.stop_placing()
        self.end_preview()

    def changed(self, session: Session, labels: list[str]) -> None:
        """An update of the others that waits for an answer was of other corrections."""
        self.end_preview()

    def end_preview(self) -> None:
        """Take the points of an update that nobody has answered back to where they are.

        Left in the lists, they would pass for the review.
        """
        preview, self._preview = self._preview, None
        self.ui.previewBar.setVisible(False)
        if preview is not None and self.session is not None and self.session.nodes.complete:
            self.session.corrections.preview(None)
            self.panel.refresh()

    def refresh(self, session: Session | None) -> None:
        """What can be clicked now."""
        ui, free = self.ui, session is not None and not self.previewing
        active = free and session is not None and session.selection.active is not None
        for name in _ON_A_POINT:
            getattr(ui, name).setEnabled(active)
        ui.revertAllButton.setEnabled(free)
        ui.resolveButton.setEnabled(free)
        ui.undoButton.setEnabled(free and session is not None and session.review.can_undo)
        ui.redoButton.setEnabled(free and session is not None and session.review.can_redo)

    # A point, a group, a session -----------------------------------------------------------------

    @reports_errors
    def _on_point(self, name: str, advance: bool = False) -> None:
        """Do something with the active landmark: confirm, mark_missing or revert."""
        session = self.panel.need_session()
        if session.selection.active is None:
            raise UserError("choose a landmark in the table first.")
        getattr(session.corrections, name)(session.selection.active)
        if advance:
            self.panel.next_uncertain()

    @reports_errors
    def _on_group(self, name: str, advance: bool = False) -> None:
        """Do something with the group of the active landmark: confirm_group, respace, project."""
        session = self.panel.need_session()
        if session.selection.active is None:
            raise UserError("choose a landmark of the group in the table first.")
        getattr(session.corrections, name)(session.protocol.group_of(session.selection.active).name)
        if advance:
            self.panel.next_uncertain()

    @reports_errors
    def _on_session(self, name: str) -> None:
        getattr(self.panel.need_session().corrections, name)()

    @reports_errors
    def _revert_all(self) -> None:
        session = self.panel.need_session()
        if slicer.util.confirmOkCancelDisplay(
            "Take all corrections of this volume back? Undo brings them back."
        ):
            session.corrections.revert(None)

    @heard
    def _snap_changed(self, text: str) -> None:
        if self.session is not None:
            self.session.corrections.snap = str(text)

    # Placing by click ----------------------------------------------------------------------------

    def stop_placing(self) -> None:
        """Wait for no click."""
        self._place.stop()
        self.ui.placeButton.checked = False

    @reports_errors
    def _place_clicked(self, on: bool) -> None:
        if not on:
            self._place.stop()
            return
        session = self.session
        if session is None or session.selection.active is None:
            self.ui.placeButton.checked = False
            raise UserError("choose a landmark in the table first, then click where it is.")
        self._place.start(session.selection.active)

    @heard
    def _placed(self, label: str, point: Any | None) -> None:
        self.ui.placeButton.checked = False
        if point is not None and self.session is not None:
            self.session.corrections.move(label, point)

    # Updating the others -------------------------------------------------------------------------

    @reports_errors
    def _offer_update(self) -> None:
        session = self.panel.need_session()
        preview = session.corrections.resolved()
        if not preview:
            raise UserError("every landmark has been corrected or confirmed already.")
        moves = [
            float(np.linalg.norm(point - session.review.current.point(label)))
            for label, point in preview.items()
        ]
        self._preview = preview
        session.corrections.preview(preview)
        self.ui.previewLabel.setText(
            f"{len(moves)} points would move, {np.mean(moves):.1f} mm on average and "
            f"{np.max(moves):.1f} mm at most."
        )
        self.ui.previewBar.setVisible(True)
        self.panel.refresh()

    @reports_errors
    def _answer_update(self, accept: bool) -> None:
        preview, self._preview = self._preview, None
        self.ui.previewBar.setVisible(False)
        if preview is None or self.session is None:
            return
        if accept:
            self.session.corrections.resolve()
        else:
            self.session.corrections.preview(None)
        self.panel.refresh()
