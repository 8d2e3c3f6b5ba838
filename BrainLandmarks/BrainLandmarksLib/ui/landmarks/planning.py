"""The section Planes: scan planes that follow from the landmarks, with how sure they are."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.planes import (
    PlaneNodes,
    align_views,
    reformat,
    upright_views,
)
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes import Prescription, prescribe
from BrainLandmarksLib.planes.files import PROPOSAL, dicom_text
from BrainLandmarksLib.planes.prescription import by_name
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection
from BrainLandmarksLib.ui.landmarks.source_model import errors_of

SHOW, NAME, ANGLE, OFFSET = range(4)
HEADERS = ("Show", "Plane", "± °", "± mm")
COLUMN_WIDTHS_PX = {SHOW: 44, ANGLE: 48, OFFSET: 52}


class PlaneSection(SessionSection):
    """A list of planes that follows the landmarks while the section is open.

    A click on a plane turns the slice views to it; its tick shows it as a plane node.
    """

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self.nodes: PlaneNodes | None = None
        self._found: list[Prescription] = []
        self._errors: LandmarkErrors | None = None
        # Whose they are: a new detection, perhaps by another model, brings a source of its own.
        self._source: dict[str, Any] = {}
        self._filling = False
        ui = self.ui
        ui.planesNoteLabel.setText(PROPOSAL)
        tree = ui.planesTree
        tree.setColumnCount(len(HEADERS))
        tree.setHeaderLabels(list(HEADERS))
        header = tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        for column, width in COLUMN_WIDTHS_PX.items():
            header.resizeSection(column, width)
        tree.connect("itemClicked(QTreeWidgetItem*,int)", self._clicked)
        tree.connect("itemChanged(QTreeWidgetItem*,int)", self._ticked)
        tree.connect("itemSelectionChanged()", self._selected)
        ui.planesSection.connect("contentsCollapsed(bool)", self._opened)
        self.on_click(
            {
                "copyPlaneButton": self.copy_geometry,
                "reformatButton": self.reformat,
                "uprightButton": self.upright,
            }
        )

    # The session ---------------------------------------------------------------------------------

    def enter(self, session: Session) -> None:
        """The planes of the new landmarks; nodes of an earlier session are gone on with."""
        self._errors = None
        self.nodes = PlaneNodes(session)
        self._opened()

    def leave(self) -> None:
        """No planes; the nodes stay in the scene."""
        if self.nodes is not None:
            self.nodes.stop()
        self.nodes, self._found = None, []
        self._fill()

    def changed(self, session: Session, labels: list[str]) -> None:
        """The nodes follow, and the list while it is seen."""
        if self.nodes is not None:
            self.nodes.update()
        self._opened()

    def refresh(self, session: Session | None) -> None:
        """The buttons go with the chosen plane."""
        chosen = self.chosen
        ready = chosen is not None and chosen.stack is not None
        for button in (self.ui.copyPlaneButton, self.ui.reformatButton):
            button.setEnabled(ready)
        self.ui.uprightButton.setEnabled(session is not None)

    # What a user does ----------------------------------------------------------------------------

    @property
    def chosen(self) -> Prescription | None:
        """The plane of the chosen row; None if no row is chosen."""
        item = self.ui.planesTree.currentItem()
        # Rows that go away tell of it when their planes are gone already.
        return None if item is None or not self._found else self._of(item)

    @reports_errors
    def copy_geometry(self) -> None:
        """Put the chosen plane's slices on the clipboard, as DICOM states them."""
        each = self._need_slices()
        slicer.app.clipboard().setText(dicom_text(each))
        self.panel.status(f"The geometry of {each.plane.name} is on the clipboard.")

    @reports_errors
    def reformat(self) -> None:
        """Make a volume on the slices of the chosen plane."""
        each = self._need_slices()
        node = reformat(self.panel.need_session().volume, each)
        self.panel.status(f"Made the volume {node.GetName()}.")

    @reports_errors
    def upright(self) -> None:
        """Turn the views back."""
        upright_views(self.nodes)

    def _need_slices(self) -> Prescription:
        each = self.chosen
        if each is None:
            raise UserError("choose a plane in the list first.")
        if each.stack is None:
            raise UserError(f"the plane {each.plane.name} has no slices: {each.reason}.")
        return each

    @reports_errors
    def _clicked(self, item: Any, column: int) -> None:
        if column != SHOW:
            align_views(self._of(item), self.nodes)

    @heard
    def _selected(self) -> None:
        self.refresh(self.session)

    @reports_errors
    def _ticked(self, item: Any, column: int) -> None:
        if self._filling or column != SHOW or self.nodes is None:
            return
        each = self._of(item)
        if item.checkState(SHOW) == qt.Qt.Checked:
            self.nodes.show(each)
        else:
            self.nodes.hide(each.plane.name)

    # The list ------------------------------------------------------------------------------------

    @heard
    def _opened(self, _collapsed: Any = None) -> None:
        """Make the list anew; a closed section costs nothing."""
        session = self.session
        if session is None or self.ui.planesSection.collapsed:
            return
        if not session.protocol.scan_planes:
            self._found = []
        else:
            if self._errors is None or self._source is not session.source:
                self._errors = errors_of(session.source, session.protocol)
                self._source = session.source
            self._found = prescribe(session.review.current, self._errors)
        self._fill()
        self.refresh(session)

    def _fill(self) -> None:
        tree = self.ui.planesTree
        shown = self.nodes.shown() if self.nodes is not None else set()
        self._filling = True
        try:
            if [tree.topLevelItem(n).text(NAME) for n in range(tree.topLevelItemCount)] != [
                each.plane.name for each in self._found
            ]:
                tree.clear()
                for each in self._found:
                    item = qt.QTreeWidgetItem()
                    item.setText(NAME, each.plane.name)
                    tree.addTopLevelItem(item)
            for number, each in enumerate(self._found):
                _dress(tree.topLevelItem(number), each, each.plane.name in shown)
        finally:
            self._filling = False

    def _of(self, item: Any) -> Prescription:
        return by_name(self._found, str(item.text(NAME)))


def _dress(item: Any, each: Prescription, shown: bool) -> None:
    """Bring a row up to date."""
    there, unsure = each.frame is not None, each.uncertainty
    item.setCheckState(SHOW, qt.Qt.Checked if shown else qt.Qt.Unchecked)
    flags = item.flags() | qt.Qt.ItemIsUserCheckable
    item.setFlags(flags | qt.Qt.ItemIsEnabled if there else flags & ~qt.Qt.ItemIsEnabled)
    item.setText(ANGLE, f"{unsure.angle:.1f}" if unsure else "–" if there else "missing")
    item.setText(OFFSET, f"{unsure.offset:.1f}" if unsure else "–" if there else "")
    for column in range(len(HEADERS)):
        item.setToolTip(column, _tool_tip(each))


def _tool_tip(each: Prescription) -> str:
    plane, stack, unsure = each.plane, each.stack, each.uncertainty
    lines = [plane.purpose]
    if each.reason:
        lines.append(f"{each.reason[0].upper()}{each.reason[1:]}.")
    if stack is not None:
        lines.append(
            f"{stack.slices} slices of {stack.thickness_mm:g} mm, gap {stack.gap_mm:g} mm, field "
            f"of view {stack.field_mm[0]:g} x {stack.field_mm[1]:g} mm."
        )
    if unsure is not None:
        lines.append(
            f"90 % of such planes lie within {unsure.angle:.1f}° and {unsure.offset:.1f} mm; about "
            f"the rows {unsure.about_row:.1f}°, about the columns {unsure.about_column:.1f}°."
        )
    if plane.own_error is not None:
        own = plane.own_error
        lines.append(f"Besides, {own.degrees:g}° and {own.mm:g} mm {own.source}.")
    return "\n".join(lines)
