"""A session that a user would recognise: load a head, detect, review, correct, save."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest
import slicer
import slicer.util
from polling import until

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.mrml.landmarks.detection_run import Found
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review, write_review
from BrainLandmarksLib.review.edits import is_implausible

MODULE = Path(__file__).parents[2] / "BrainLandmarks" / "BrainLandmarks.py"
PROTOCOL = load_protocol("brain88")
NAME, STATUS = 0, 2


@pytest.fixture
def asking_panel(desktop):
    """It asks the worker how long a detection takes, which takes long itself."""
    return desktop.open(MODULE).self()


@pytest.fixture
def panel(desktop, monkeypatch):
    """It does not ask."""
    section = "BrainLandmarksLib.ui.landmarks.detecting.DetectSection"
    monkeypatch.setattr(f"{section}.prepare", lambda *_: None)
    return desktop.open(MODULE).self()


SOURCE = {"model": "brain88", "device": "cpu", "plausibility": 0.99}


@pytest.fixture(scope="module")
def found():
    """Landmarks of the sample head as a model's answer would be; some are surer than others."""
    placed = read_landmarks(resources.sample_landmarks("brain88"), PROTOCOL)
    confidence = np.random.default_rng(3).uniform(0.5, 1.0, len(PROTOCOL))
    return LandmarkSet.from_points(PROTOCOL, placed.points, "model", confidence)


@pytest.fixture(scope="module")
def answer(tmp_path_factory, found):
    """The same as a file."""
    path = tmp_path_factory.mktemp("answer") / "answer.mrk.json"
    write_review(path, Review.of(found), SOURCE)
    return path


@pytest.fixture
def detected(desktop, panel, answer):
    """The panel with the sample head and the model's answer."""
    panel.ui.sampleButton.click()
    panel.ui.qualityCombo.currentText = "fast"
    desktop.dialogs.choose(answer)
    panel.ui.loadButton.click()
    assert panel.panel.session is not None, panel.ui.messageLabel.text
    return panel


def detect(desktop, panel):
    panel.ui.detectButton.click()
    until(desktop, lambda: panel.panel.detecting.run is None)


def begin_to_detect(desktop, panel):
    """A detection that the worker works on; what it brings is of other tests."""
    panel.ui.detectButton.click()
    until(desktop, lambda: panel.ui.progressBar.value > 0 or panel.ui.messageLabel.text)
    assert panel.ui.messageLabel.text == ""
    assert panel.panel.detecting.run is not None
    panel.ui.detectButton.click()
    until(desktop, lambda: panel.panel.detecting.run is None)


def rows(ui):
    """Label of each landmark's row to its item."""
    import qt

    found = {}
    for n in range(ui.landmarkTree.topLevelItemCount):
        group = ui.landmarkTree.topLevelItem(n)
        for k in range(group.childCount()):
            found[group.child(k).data(NAME, qt.Qt.UserRole)] = group.child(k)
    return found


def choose(ui, label):
    ui.landmarkTree.setCurrentItem(rows(ui)[label])


def test_an_update_that_waits_for_an_answer_does_not_pass_for_the_review(detected, scene):
    """Left in the lists, the points would be taken for the model's, or for dragged ones."""
    ui, panel = detected.ui, detected.panel
    panel.reviewing.activate("CC_G")
    panel.session.corrections.move("CC_G", panel.session.review.current.point("CC_G") + [0, 9, 9])
    before = panel.session.review.current

    def preview():
        panel.reviewing.activate("CC_G")
        ui.resolveButton.click()
        assert ui.previewBar.visible
        assert np.abs(panel.session.nodes.read().points - before.points).max() > 0.5

    def over(changed=()):
        assert not ui.previewBar.visible
        review, nodes = panel.session.review, panel.session.nodes
        np.testing.assert_allclose(nodes.read().points, review.current.points, atol=1e-3)
        moved = np.linalg.norm(review.current.points - before.points, axis=1) > 1e-3
        assert {PROTOCOL.labels[row] for row in np.flatnonzero(moved)} == set(changed)

    preview()
    panel.leave()
    panel.set_volume(panel.volume())
    over()
    preview()
    scene.InvokeEvent(scene.StartSaveEvent)
    over()
    preview()
    node, index = panel.session.nodes.place_of(
        "CC_G"
    )  # a drag of the point that is being corrected
    node.SetNthControlPointPositionWorld(index, *(before.point("CC_G") + [0.0, 3.0, 0.0]))
    over(["CC_G"])
    assert [edit.label for edit in panel.session.review.edits] == ["CC_G", "CC_G"]


def test_another_module_detects_without_the_panel(desktop, scene):
    """As a script does: no panel was made, and there is no window."""
    desktop.load(MODULE)
    logic = slicer.util.getModuleLogic("BrainLandmarks")
    with desktop.headless():
        volume = logic.loadSampleHead()
        lists = logic.detect(volume, quality="fast")
        assert [node.GetName() for node in lists] == [group.name for group in PROTOCOL.groups]
        assert sum(node.GetNumberOfDefinedControlPoints() for node in lists) == len(PROTOCOL)
        review, source = LandmarkNodes.of_volume(volume).restore()
        assert source["model"] == "brain88"
        assert not review.edits
        scene.RemoveNode(volume)
        empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        with pytest.raises(UserError, match="there is no volume"):
            logic.detect(empty)
        with pytest.raises(UserError, match="no model 'brain99'"):
            logic.detect(empty, model="brain99")


def test_a_review_from_the_scan_to_the_file(desktop, asking_panel, scene, tmp_path):
    panel, ui = asking_panel, asking_panel.ui
    ui.sampleButton.click()
    volume = ui.inputSelector.currentNode()
    assert volume.GetName() == "Colin27"

    # Before: where it will run, and how long it takes or has taken, which Slicer remembers.
    until(desktop, lambda: re.search("about|the last time", ui.deviceInfoLabel.text))
    assert "CPU" in ui.deviceInfoLabel.text
    ui.qualityCombo.currentText = "fast"
    ui.reviewerEdit.setText("AB")
    ui.reviewerEdit.editingFinished()
    ui.detectButton.click()
    assert ui.detectButton.text == "Cancel"
    until(desktop, lambda: panel.panel.detecting.run is None)
    assert "88" in ui.statusLabel.text, ui.messageLabel.text
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") >= 7
    items = rows(ui)
    assert list(items) == list(PROTOCOL.labels)
    assert "<img" in items["CC_G"].toolTip(NAME)

    # Look: a click on a row goes there, and the point can be dragged.
    choose(ui, "CC_G")
    session = panel.panel.session
    assert session.selection.active == "CC_G"
    assert PROTOCOL.by_label("CC_G").rule in ui.definitionLabel.text
    assert not ui.pictureLabel.pixmap.isNull()
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
    assert items["CC_G"].text(STATUS) == "edited"
    ui.undoButton.click()
    np.testing.assert_allclose(session.review.current.point("CC_G"), place, atol=1e-3)
    ui.redoButton.click()
    np.testing.assert_allclose(session.review.current.point("CC_G"), moved, atol=1e-3)

    # Let the others follow, as a preview first.
    ui.resolveButton.click()
    assert "would move" in ui.previewLabel.text
    assert not ui.confirmButton.enabled
    ui.discardButton.click()
    assert not ui.previewBar.visible
    ui.resolveButton.click()
    ui.acceptButton.click()
    assert any(e.kind == "resolved" for e in session.review.edits)

    # The uncertain ones, worst first.
    ui.nextButton.click()
    first = session.selection.active
    ui.confirmButton.click()
    assert session.review.current.status[PROTOCOL.by_label(first).index - 1] == "confirmed"
    assert session.selection.active != first
    desktop.screenshot(tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 20000

    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    ui.fcsvCheck.checked = True
    ui.saveButton.click()
    assert ui.messageLabel.text == ""
    review, source = read_review(tmp_path / "head.mrk.json", PROTOCOL)
    assert review.edits == session.review.edits
    assert {e.who for e in review.edits} == {"AB"}
    assert source["model"] == "brain88"
    points = session.review.current.points.copy()
    for name in ("head.csv", "head.fcsv"):
        np.testing.assert_allclose(
            read_landmarks(tmp_path / name, PROTOCOL).points, points, atol=1e-3
        )

    # Close the scene and load the landmarks back onto the head.
    scene.Clear(False)
    assert panel.panel.session is None
    ui.sampleButton.click()
    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    ui.loadButton.click()
    again = panel.panel.session
    np.testing.assert_allclose(again.review.current.points, points, atol=1e-3)
    assert again.review.edits == review.edits
    assert rows(ui)["CC_G"].text(STATUS) == "edited"


def test_what_is_no_head_is_shown_only_to_who_wants_it(desktop, panel, found, monkeypatch):
    """What the worker says of noise is test_detection_run's; here it is only asked and shown."""
    from BrainLandmarksLib.ui.landmarks import detecting

    runs = []

    class Run:
        over = False

        def __init__(self, _worker, _volume, _protocol, _progress, on_end, *, force, **_options):
            runs.append((force, on_end))

        def cancel(self):
            raise AssertionError("nobody cancelled")

    monkeypatch.setattr(detecting, "DetectionRun", Run)
    ui = panel.ui
    ui.sampleButton.click()
    refused = Failure("no head was recognised in the image.", "", implausible=True)
    desktop.dialogs.answer(False)
    ui.detectButton.click()
    runs[-1][1](refused)
    assert panel.panel.session is None
    assert "No head was recognised" in ui.messageLabel.text
    assert ui.detectButton.text == "Detect landmarks"

    desktop.dialogs.answer(True)
    ui.detectButton.click()
    runs[-1][1](refused)
    assert [force for force, _ in runs] == [False, False, True]
    assert ui.detectButton.text == "Cancel"
    runs[-1][1](Found(found, {**SOURCE, "plausibility": 0.01}, (), 1.0))
    session = panel.panel.session
    assert is_implausible(session.source)
    assert all(node.GetName().endswith(" (implausible)") for node in session.nodes.lists)
    assert "implausible" in ui.messageLabel.text
    assert ui.detectButton.text == "Detect landmarks"

    ui.detectButton.click()  # a plausible answer takes the mark away
    runs[-1][1](Found(found, SOURCE, (), 1.0))
    names = [node.GetName() for node in session.nodes.lists]
    assert names == [group.name for group in PROTOCOL.groups]


def test_detecting_again_asks_once_and_keeps_the_corrections(
    desktop, detected, scene, found, monkeypatch
):
    from BrainLandmarksLib.ui.landmarks import detecting

    class Run:
        """A detection that is over at once."""

        over = True

        def __init__(self, _worker, _volume, _protocol, _progress, on_end, **_options):
            on_end(Found(found, SOURCE, (), 1.0))

    monkeypatch.setattr(detecting, "DetectionRun", Run)
    ui, session = detected.ui, detected.panel.session
    shape = replace(session.shape, residual_mm=9.0)
    monkeypatch.setattr(detecting, "load_shape", lambda *_: shape)
    lists = session.nodes.lists
    choose(ui, "CC_G")
    place = session.review.current.point("CC_G") + 5.0
    session.corrections.move("CC_G", place)
    choose(ui, "PONS_A")
    ui.missingButton.click()

    asked = len(desktop.dialogs.shown)
    detect(desktop, detected)
    assert len(desktop.dialogs.shown) == asked + 1
    assert detected.panel.session is session
    assert session.shape is shape
    np.testing.assert_allclose(session.review.current.point("CC_G"), place, atol=1e-6)
    assert rows(ui)["PONS_A"].text(STATUS) == "missing"
    assert session.nodes.lists == lists
    assert len(LandmarkNodes.all_in_scene()) == 1

    desktop.dialogs.answer(False)
    detect(desktop, detected)
    assert np.linalg.norm(session.review.current.point("CC_G") - place) > 2.0
    assert rows(ui)["PONS_A"].text(STATUS) == "model"


@pytest.mark.parametrize("by", ["a new detection", "a drag", "a transform"])
def test_an_update_that_was_offered_is_over_when_the_landmarks_change(
    desktop, detected, scene, found, monkeypatch, by
):
    from BrainLandmarksLib.ui.landmarks import detecting

    class Run:
        """A detection that is over at once, with landmarks a little aside."""

        over = True

        def __init__(self, _worker, _volume, _protocol, _progress, on_end, **_options):
            on_end(Found(replace(found, points=found.points + 2.0), SOURCE, (), 1.0))

    monkeypatch.setattr(detecting, "DetectionRun", Run)
    ui, session = detected.ui, detected.panel.session
    choose(ui, "CC_G")
    place = session.review.current.point("CC_G") + 5.0
    session.corrections.move("CC_G", place)
    points = session.review.current.points.copy()
    ui.resolveButton.click()
    assert ui.previewBar.visible
    assert np.abs(session.nodes.read().points - points).max() > 0.1
    row = PROTOCOL.labels.index("CC_G")
    if by == "a new detection":
        desktop.dialogs.answer(True)
        detect(desktop, detected)
        points = found.points + 2.0
        points[row] = place
    elif by == "a drag":
        node, index = session.nodes.place_of("CC_G")
        points[row] = place + 1.0
        node.SetNthControlPointPositionWorld(index, *map(float, points[row]))
    else:
        moved = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = moved.GetMatrixTransformToParent()
        matrix.SetElement(0, 3, 9.0)
        moved.SetMatrixTransformToParent(matrix)
        session.volume.SetAndObserveTransformNodeID(moved.GetID())
        points += [9, 0, 0]
    assert ui.messageLabel.text == ""
    assert not ui.previewBar.visible
    assert ui.confirmButton.enabled
    np.testing.assert_allclose(session.review.current.points, points, atol=1e-3)
    np.testing.assert_allclose(session.nodes.read().points, points, atol=1e-3)
    assert {edit.label for edit in session.review.edits} == {"CC_G"}


def test_a_model_of_other_landmarks_replaces_them_and_asks_where_there_are_corrections(
    desktop, detected, scene, monkeypatch
):
    from BrainLandmarksLib.ui.landmarks import detecting

    others = load_protocol("afids32")
    points = np.random.default_rng(5).uniform(-50, 50, (len(others), 3))
    found = LandmarkSet.from_points(others, points, "model", np.full(len(others), 0.9))

    class Run:
        over = True

        def __init__(self, _worker, _volume, _protocol, _progress, on_end, **_options):
            on_end(Found(found, {**SOURCE, "model": "afids"}, (), 1.0))

    monkeypatch.setattr(detecting, "DetectionRun", Run)
    monkeypatch.setattr(detecting, "load_shape", lambda *_: None)
    ui, before = detected.ui, detected.panel.session
    place = before.review.current.point("CC_G") + 5.0
    before.corrections.move("CC_G", place)

    asked = len(desktop.dialogs.shown)
    desktop.dialogs.answer(False)
    detect(desktop, detected)
    assert ui.messageLabel.text == ""
    assert len(desktop.dialogs.shown) == asked + 1
    assert "corrections" in desktop.dialogs.shown[-1].text
    assert detected.panel.session is before
    np.testing.assert_allclose(before.review.current.point("CC_G"), place, atol=1e-6)
    assert "not shown" in ui.statusLabel.text

    desktop.dialogs.answer(True)
    detect(desktop, detected)
    assert ui.messageLabel.text == ""
    session = detected.panel.session
    assert list(rows(ui)) == list(others.labels)
    np.testing.assert_allclose(session.nodes.read().points, points, atol=1e-6)
    assert [nodes.protocol.name for nodes in LandmarkNodes.all_in_scene()] == ["afids32"]

    asked = len(desktop.dialogs.shown)
    detect(desktop, detected)  # nothing was corrected: nothing to ask
    assert len(desktop.dialogs.shown) == asked
    assert detected.panel.session is session


def test_a_group_is_confirmed_in_one_step(detected):
    ui, session = detected.ui, detected.panel.session
    choose(ui, "CC_G")
    session.corrections.move("CC_S", session.review.current.point("CC_S") + 3.0)
    ui.confirmGroupButton.click()
    group = PROTOCOL.group_of("CC_G")
    status = dict(zip(PROTOCOL.labels, session.review.current.status))
    expected = {landmark.label: "confirmed" for landmark in PROTOCOL.members(group)}
    assert {label: status[label] for label in expected} == {**expected, "CC_S": "edited"}
    assert PROTOCOL.group_of(session.selection.active) != group
    ui.undoButton.click()
    assert session.review.current.status.count("confirmed") == 0


def test_a_full_review_takes_few_keys(desktop, detected):
    """N to begin and Shift+C for each group; what docs/review.md says."""
    ui, session = detected.ui, detected.panel.session
    keys = 1
    ui.nextButton.click()
    while not session.review.corrected.all():
        ui.confirmGroupButton.click()
        keys += 1
    assert keys == 1 + len(PROTOCOL.groups)
    ui.nextButton.click()
    assert ui.statusLabel.text == "Every landmark has been reviewed."


def test_keys_press_buttons(desktop, detected):
    from PySide6 import QtCore, QtTest

    ui, session = detected.ui, detected.panel.session
    root = detected.parent

    def press(key, modifier=QtCore.Qt.NoModifier):
        QtTest.QTest.keyClick(root, key, modifier)
        desktop.app.processEvents()

    root.setFocus()
    press(QtCore.Qt.Key_N)
    first = session.selection.active
    assert first == session.selection.uncertain()[0]
    press(QtCore.Qt.Key_C)
    assert session.selection.active != first
    press(QtCore.Qt.Key_M)
    assert rows(ui)[session.selection.active].text(STATUS) == "missing"
    press(QtCore.Qt.Key_Z, QtCore.Qt.ControlModifier)
    assert rows(ui)[session.selection.active].text(STATUS) == "model"


def test_boxes_solo_and_search_choose_what_is_shown(desktop, detected):
    import qt

    ui, session = detected.ui, detected.panel.session
    everything = set(PROTOCOL.labels)
    assert session.nodes.shown() == everything
    item = rows(ui)["CC_G"]
    item.setCheckState(NAME, qt.Qt.Unchecked)
    assert session.nodes.shown() == everything - {"CC_G"}
    item.parent().setCheckState(NAME, qt.Qt.Unchecked)
    callosum = {landmark.label for landmark in PROTOCOL.members(PROTOCOL.group_of("CC_G"))}
    assert session.nodes.shown() == everything - callosum
    item.parent().setCheckState(NAME, qt.Qt.Checked)
    assert session.nodes.shown() == everything

    choose(ui, "CC_G")
    ui.soloButton.click()
    assert session.nodes.shown() == callosum
    ui.soloButton.click()
    assert session.nodes.shown() == everything

    ui.searchEdit.setText("genu")
    visible = [label for label, row in rows(ui).items() if not row.isHidden()]
    assert "CC_G" in visible
    assert "PONS_A" not in visible
    ui.searchEdit.setText("7")
    assert [label for label, row in rows(ui).items() if not row.isHidden()] == ["PONS_A"]
    ui.searchEdit.setText("")
    ui.filterCombo.currentText = "confirmed"
    assert all(row.isHidden() for row in rows(ui).values())


@pytest.mark.parametrize("toolbox", [True, False])
def test_closer_and_in_space(detected, monkeypatch, toolbox):
    """Zoom and slices in 3D change the views, and back, also where the toolbox cannot be used."""
    ui = detected.ui
    if not toolbox:
        monkeypatch.setitem(sys.modules, "SlicerDevelopmentToolboxUtils.mixins", None)
    from BrainLandmarksLib.ui.common import zoom

    assert (zoom._toolbox() is not None) == toolbox
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    choose(ui, "CC_G")
    before = red.GetFieldOfView()[0]
    ui.zoomButton.click()
    assert red.GetFieldOfView()[0] == pytest.approx(90.0)
    ui.zoomButton.click()
    assert red.GetFieldOfView()[0] == pytest.approx(before, rel=0.2)
    ui.slicesButton.click()
    assert red.GetSliceVisible()
    ui.slicesButton.click()
    assert not red.GetSliceVisible()


def test_distances_and_asymmetry(detected):
    ui = detected.ui
    assert ui.measureTable.rowCount == 0
    ui.measureSection.collapsed = False
    assert ui.measureTable.rowCount == len(PROTOCOL.distances)
    assert 50 < float(ui.measureTable.item(0, 1).text()) < 250
    ui.measureCombo.currentText = "left-right asymmetry"
    assert ui.measureTable.rowCount == sum(mark.side == "L" for mark in PROTOCOL)


def test_adding_to_a_dataset(desktop, detected, tmp_path):
    ui, folder = detected.ui, tmp_path / "dataset"
    folder.mkdir()
    desktop.dialogs.choose(folder)
    ui.datasetButton.click()
    until(desktop, lambda: "Added" in ui.statusLabel.text or ui.messageLabel.text)
    assert "1 head" in ui.statusLabel.text, ui.messageLabel.text
    assert len(json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["entries"]) == 1


def test_cancelling_and_detecting_again(desktop, panel, scene):
    ui = panel.ui
    ui.sampleButton.click()
    ui.qualityCombo.currentText = "fast"
    ui.detectButton.click()
    folder = panel.panel.detecting.run.folder
    assert folder.exists()
    ui.detectButton.click()
    until(desktop, lambda: panel.panel.detecting.run is None, 10)
    assert ui.statusLabel.text == "Cancelled."
    assert not folder.exists()
    begin_to_detect(desktop, panel)


def test_every_sample_has_a_checksum(desktop, panel):
    """Without one Slicer would take what an earlier version left in its cache."""
    desktop.start_up()
    entries = desktop.sample_data.sources["Brain Landmarks"]
    assert entries
    for source in entries:
        assert len(source.checksums) == len(source.uris)
        for checksum, uri in zip(source.checksums, source.uris, strict=True):
            digest = hashlib.sha256(Path(url2pathname(urlparse(uri).path)).read_bytes()).hexdigest()
            assert checksum == f"SHA256:{digest}"


def test_the_sample_head_is_among_slicers_sample_data(desktop, panel, scene):
    desktop.start_up()
    node = desktop.sample_data().downloadSample("BrainLandmarks Colin27")
    assert node.GetImageData().GetDimensions()[0] > 100


def test_a_saved_scene_goes_on_where_it_was(desktop, detected, scene, tmp_path):
    ui, session = detected.ui, detected.panel.session
    place = session.review.current.point("CC_G") + (1.0, 2.0, 3.0)
    session.corrections.move("CC_G", place)
    assert slicer.util.saveScene(str(tmp_path / "head.mrb"))
    scene.Clear(False)
    assert detected.panel.session is None
    slicer.util.loadScene(str(tmp_path / "head.mrb"))
    if ui.inputSelector.currentNode() is None:
        ui.inputSelector.setCurrentNode(slicer.util.getNode("Colin27"))
    again = detected.panel.session
    assert again is not None
    np.testing.assert_allclose(again.review.current.point("CC_G"), place, atol=1e-3)
    assert rows(ui)["CC_G"].text(STATUS) == "edited"
    ui.undoButton.click()
    assert rows(ui)["CC_G"].text(STATUS) == "model"


def test_the_panel_is_made_without_a_main_window(desktop, scene):
    """As Slicer's generic test does it, with --no-main-window."""
    with desktop.headless():
        widget = desktop.load(MODULE).createNewWidgetRepresentation()
        assert widget.self().ui.detectButton.text == "Detect landmarks"
        widget.self().cleanup()


# What is wrong is said in the panel ---------------------------------------------------------------


def test_no_volume(desktop, panel):
    ui = panel.ui
    ui.detectButton.click()
    assert "Choose the MRI" in ui.messageLabel.text
    assert ui.messageBar.isVisibleTo(ui.messageBar.parent())
    assert not ui.saveButton.enabled
    assert desktop.dialogs.texts("error") == []


def test_a_colour_volume(desktop, panel, scene):
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "colour")
    image = vtk.vtkImageData()
    image.SetDimensions(8, 8, 8)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    panel.ui.inputSelector.setCurrentNode(node)
    panel.ui.detectButton.click()
    assert "several values per voxel" in panel.ui.messageLabel.text
    assert panel.panel.detecting.run is None
    assert panel.ui.detectButton.text == "Detect landmarks"


def test_no_model(desktop, panel, monkeypatch):
    panel.ui.sampleButton.click()
    panel.ui.modelCombo.clear()
    panel.ui.detectButton.click()
    assert "No model is installed" in panel.ui.messageLabel.text


def test_a_broken_installation(desktop, panel, monkeypatch):
    panel.ui.sampleButton.click()
    host = panel.panel.host
    host.stop()
    works = host.worker._command
    monkeypatch.setattr(
        host.worker, "_command", [sys.executable, "-c", "import no_such_library_here"]
    )
    detect(desktop, panel)
    assert panel.ui.messageLabel.text.endswith(".")
    panel.ui.diagnosticsButton.click()
    assert "no_such_library_here" in slicer.app.clipboard().text()
    # The next click just works.
    host.stop()
    monkeypatch.setattr(host.worker, "_command", works)
    begin_to_detect(desktop, panel)


def test_landmarks_that_lie_the_other_way_round_are_asked_about(desktop, panel, tmp_path):
    placed = read_landmarks(resources.sample_landmarks("brain88"), PROTOCOL)
    turned = LandmarkSet.from_points(PROTOCOL, placed.points * [-1, -1, 1], "edited")
    write_landmarks(tmp_path / "head.mrk.json", turned)
    panel.ui.sampleButton.click()
    for answer in (False, True):
        desktop.dialogs.choose(tmp_path / "head.mrk.json")
        desktop.dialogs.answer(answer)
        panel.ui.loadButton.click()
        assert "all left landmarks are on the patient's right" in desktop.dialogs.shown[-1].text
        assert (panel.panel.session is not None) is answer


@pytest.mark.parametrize(
    ("source", "known"),
    [(SOURCE, True), ({}, True), ({**SOURCE, "model": "one that was taken away"}, False)],
)
def test_landmarks_that_are_loaded_have_the_shape_of_the_model_that_found_them(
    desktop, panel, tmp_path, found, source, known
):
    """Of a file that does not say it, the model that is chosen."""
    assert panel.panel.model() == "brain88"
    write_review(tmp_path / "head.mrk.json", Review.of(found), source)
    panel.ui.sampleButton.click()
    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    panel.ui.loadButton.click()
    assert panel.ui.messageLabel.text == ""
    assert (panel.panel.session.shape is not None) is known


def test_a_folder_that_cannot_be_written_to(desktop, detected, tmp_path):
    desktop.dialogs.choose(tmp_path / "no such folder" / "head.mrk.json")
    detected.ui.saveButton.click()
    assert "Cannot write" in detected.ui.messageLabel.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits the size of files")
def test_a_disk_that_fills_up(desktop, detected, tmp_path):
    import resource

    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        detected.ui.saveButton.click()
        saved = detected.ui.messageLabel.text
        detected.ui.detectButton.click()
        exported = detected.ui.messageLabel.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in saved.lower()
    assert "cannot write" in exported.lower()
    assert list(tmp_path.iterdir()) == []
    assert detected.panel.session is not None


def test_a_mistake_of_ours_is_said_and_kept_for_the_diagnostics(desktop, detected, monkeypatch):
    def broken(*_arguments):
        raise ZeroDivisionError("as a test")

    monkeypatch.setattr("BrainLandmarksLib.ui.landmarks.saving.write_review", broken)
    desktop.dialogs.choose("anywhere.mrk.json")
    detected.ui.saveButton.click()
    assert "unexpected" in detected.ui.messageLabel.text
    detected.ui.diagnosticsButton.click()
    assert "ZeroDivisionError" in slicer.app.clipboard().text()
    assert len(desktop.slotErrors) == 1
    desktop.slotErrors.clear()
