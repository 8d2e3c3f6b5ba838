"""A session that a user would recognise: load a head, detect, review, correct, save."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import slicer

from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.review import read_review

MODULE = Path(__file__).parents[2] / "BrainLandmarks" / "BrainLandmarks.py"
PROTOCOL = load_protocol("brain88")
MINUTES = 120.0


@pytest.fixture
def panel(desktop):
    widget = desktop.open(MODULE)
    return widget.self()


def until(desktop, condition, timeout_s=MINUTES):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        desktop.app.processEvents()
        time.sleep(0.01)


def rows(ui):
    """Label of each landmark's row to its item."""
    import qt

    found = {}
    for n in range(ui.landmarkTree.topLevelItemCount):
        group = ui.landmarkTree.topLevelItem(n)
        for k in range(group.childCount()):
            found[group.child(k).data(0, qt.Qt.UserRole)] = group.child(k)
    return found


def test_a_review_from_the_scan_to_the_file(desktop, panel, scene, tmp_path):
    ui = panel.ui
    ui.sampleButton.click()
    volume = ui.inputSelector.currentNode()
    assert volume.GetName() == "Colin27"
    ui.qualityCombo.currentText = "fast"
    ui.reviewerEdit.setText("AB")
    ui.reviewerEdit.editingFinished()
    ui.detectButton.click()
    assert ui.detectButton.text == "Cancel"
    until(desktop, lambda: panel.panel.run is None)
    assert "88" in ui.statusLabel.text, ui.messageLabel.text
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") >= 7
    items = rows(ui)
    assert list(items) == list(PROTOCOL.labels)

    # Look: a click on a row goes there, and the point can be dragged.
    ui.landmarkTree.setCurrentItem(items["CC_G"])
    session = panel.panel.session
    assert session.active == "CC_G"
    red = slicer.app.layoutManager().sliceWidget("Red")
    place = session.review.current.point("CC_G")
    origin = [red.mrmlSliceNode().GetSliceToRAS().GetElement(i, 3) for i in range(3)]
    assert abs(origin[2] - place[2]) < 1.0

    # Drag it with the mouse in a slice view.
    desktop.app.processEvents()
    start = np.array(red.pixel_of(place))
    red.sliceView().drag(start, start + (12, 9))
    moved = session.review.current.point("CC_G")
    assert np.linalg.norm(moved - place) > 2.0
    assert items["CC_G"].text(2) == "edited"
    ui.undoButton.click()
    np.testing.assert_allclose(session.review.current.point("CC_G"), place, atol=1e-3)
    ui.redoButton.click()
    np.testing.assert_allclose(session.review.current.point("CC_G"), moved, atol=1e-3)

    # Let the others follow, as a preview first.
    ui.resolveButton.click()
    assert "would move" in ui.previewLabel.text
    ui.discardButton.click()
    assert not ui.previewBar.visible
    ui.resolveButton.click()
    ui.acceptButton.click()
    assert any(e.kind == "resolved" for e in session.review.edits)

    # The doubtful ones, worst first.
    ui.nextButton.click()
    first = session.active
    ui.confirmButton.click()
    assert session.review.current.status[PROTOCOL.by_label(first).index - 1] == "confirmed"
    assert session.active != first
    desktop.photograph(tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 20000

    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    ui.saveButton.click()
    assert ui.messageLabel.text == ""
    review, source = read_review(tmp_path / "head.mrk.json", PROTOCOL)
    assert review.edits == session.review.edits
    assert {e.who for e in review.edits} == {"AB"}
    assert source["model"] == "brain88"
    assert (tmp_path / "head.csv").exists()

    # Close the scene and load the landmarks back onto the head.
    points = session.review.current.points.copy()
    scene.Clear(False)
    assert panel.panel.session is None
    ui.sampleButton.click()
    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    ui.loadButton.click()
    again = panel.panel.session
    np.testing.assert_allclose(again.review.current.points, points, atol=1e-3)
    assert again.review.edits == review.edits
    assert rows(ui)["CC_G"].text(2) == "edited"


def test_what_is_wrong_is_said_in_the_panel(desktop, panel):
    ui = panel.ui
    ui.detectButton.click()
    assert "choose the MRI" in ui.messageLabel.text.replace("Choose", "choose")
    assert ui.messageBar.isVisibleTo(ui.messageBar.parent()) or ui.messageBar.visible
    assert not ui.saveButton.enabled
    assert desktop.dialogs.texts("error") == []
