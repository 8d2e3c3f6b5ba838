"""The section Review: the table, the way from point to point, and what the views show."""

from __future__ import annotations

import qt

from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.landmarks.views import show_slices_in_3d
from BrainLandmarksLib.ui.common import zoom
from BrainLandmarksLib.ui.common.landmark_text import picture_of, tool_tip
from BrainLandmarksLib.ui.common.section import heard
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection
from BrainLandmarksLib.ui.landmarks.table import LandmarkTable


class ReviewSection(SessionSection):
    """Table, search, the uncertain points worst first, solo, zoom."""

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        ui = self.ui
        self._visited: list[str] = []
        self.table = LandmarkTable(ui.landmarkTree, self.activate, self._show)
        self.on_click(
            {"nextButton": self.next_uncertain, "previousButton": self.previous_uncertain}
        )
        ui.soloButton.connect("toggled(bool)", self._solo)
        ui.zoomButton.connect("toggled(bool)", self._zoom)
        ui.slicesButton.connect("toggled(bool)", show_slices_in_3d)
        ui.searchEdit.connect("textChanged(QString)", self._filter)
        ui.filterCombo.connect("currentTextChanged(QString)", self._filter)

    def enter(self, session: Session) -> None:
        """Fill the table."""
        self._visited.clear()
        protocol = session.protocol
        self.table.fill(protocol, self.panel.pictures / protocol.name)
        self.table.update(session.review.current)
        self.table.tick(session.nodes.shown())
        self._filter()
        self._describe(None)

    def leave(self) -> None:
        """Empty the table."""
        self.table.clear()
        self._describe(None)

    def changed(self, session: Session, labels: list[str]) -> None:
        """Show the new statuses."""
        self.table.update(session.review.current, labels)
        self._filter()

    def refresh(self, session: Session | None) -> None:
        """Without landmarks there is nothing to go to."""
        free = session is not None and not self.panel.previewing
        self.ui.nextButton.setEnabled(free)
        self.ui.previousButton.setEnabled(free)
        self.ui.soloButton.setEnabled(session is not None and session.selection.active is not None)
        self.ui.zoomButton.setEnabled(session is not None and session.selection.active is not None)

    # From point to point -------------------------------------------------------------------------

    @heard
    def activate(self, label: str) -> None:
        """Go to a landmark: views, table, definition, and it can be dragged."""
        session = self.session
        if session is None:
            return
        self.panel.stop_placing()
        session.selection.activate(label)
        self.table.select(label)
        self._describe(label)
        if self.ui.soloButton.checked:
            self._solo(True)
        if self.ui.zoomButton.checked:
            self._zoom(True)
        self.panel.refresh()

    @heard
    def next_uncertain(self) -> None:
        """To the most uncertain point not reviewed yet, after the active one."""
        if self.session is None:
            return
        uncertain = self.session.selection.uncertain()
        waiting = [label for label in uncertain if label not in self._visited]
        if not waiting:
            self._visited.clear()
            waiting = uncertain
        if not waiting:
            self.panel.status("Every landmark has been reviewed.")
            return
        self._visited.append(waiting[0])
        self.activate(waiting[0])

    @heard
    def previous_uncertain(self) -> None:
        """Back to the uncertain point before."""
        if len(self._visited) > 1:
            self._visited.pop()
            self.activate(self._visited[-1])

    def _describe(self, label: str | None) -> None:
        """Definition and picture of the active landmark below the table."""
        if label is None or self.session is None:
            self.ui.definitionLabel.setText("")
            self.ui.pictureLabel.setVisible(False)
            return
        protocol = self.session.protocol
        landmark = protocol.by_label(label)
        self.ui.definitionLabel.setText(tool_tip(landmark))
        file = picture_of(landmark, self.panel.pictures / protocol.name)
        self.ui.pictureLabel.setVisible(file is not None)
        if file is not None:
            self.ui.pictureLabel.setPixmap(qt.QPixmap(str(file)))

    # What is shown -------------------------------------------------------------------------------

    @heard
    def _solo(self, on: bool) -> None:
        session = self.session
        if session is None:
            return
        labels = set(session.protocol.labels)
        if on and session.selection.active is not None:
            group = session.protocol.group_of(session.selection.active)
            labels = {landmark.label for landmark in session.protocol.members(group)}
        self.table.tick(labels)
        session.nodes.show_only(labels)

    @heard
    def _show(self, labels: set[str]) -> None:
        if self.session is not None:
            self.session.nodes.show_only(labels)

    @heard
    def _zoom(self, on: bool) -> None:
        if on:
            zoom.close_up()
            if self.session is not None and self.session.selection.active is not None:
                self.session.selection.activate(self.session.selection.active)
        else:
            zoom.whole()

    @heard
    def _filter(self, _text: str = "") -> None:
        self.table.show_only(str(self.ui.searchEdit.text), str(self.ui.filterCombo.currentText))
