"""The section Planes: the list, the views, plane nodes that follow, the clipboard, volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

from BrainLandmarksLib import resources
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.mrml.landmarks.planes import PLANE, PlaneNodes, align_views
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes import prescribe
from BrainLandmarksLib.planes.prescription import by_name
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, write_review

MODULE = Path(__file__).parents[2] / "BrainLandmarks" / "BrainLandmarks.py"
PROTOCOL = load_protocol("brain88")
SHOW, NAME, ANGLE = 0, 1, 2
SUBCALLOSAL = "axial subcallosal"


@pytest.fixture(scope="module")
def found():
    placed = read_landmarks(resources.sample_landmarks("brain88"), PROTOCOL)
    confidence = np.full(len(PROTOCOL), 0.95)
    return LandmarkSet.from_points(PROTOCOL, placed.points, "model", confidence)


@pytest.fixture
def session(volume, found):
    session = Session.begin(volume, found, {"model": "brain88", "plausibility": 0.99})
    yield session
    session.end()


def planes(session, name=SUBCALLOSAL):
    return by_name(prescribe(session.review.current), name)


def axes_of(node):
    x, y, z = [0.0] * 3, [0.0] * 3, [0.0] * 3
    node.GetAxesWorld(x, y, z)
    return np.array([x, y, z]).T


def same_plane(node, each):
    """The node lies in the plane, seen from the same side and not turned in it."""
    away = (np.array(node.GetCenterWorld()) - each.frame.origin) @ each.frame.normal
    return abs(away) < 1e-3 and np.allclose(axes_of(node), each.frame.axes, atol=1e-6)


# Without a panel ----------------------------------------------------------------------------------


def test_a_plane_node_lies_where_the_plane_is(session):
    nodes = PlaneNodes(session)
    for each in prescribe(session.review.current):
        nodes.show(each)
        node = nodes.nodes[each.plane.name]
        assert same_plane(node, each)
        np.testing.assert_allclose(node.GetCenterWorld(), each.stack.center, atol=1e-4)
        np.testing.assert_allclose(node.GetSize()[:2], each.stack.field_mm)
        assert node.GetLocked()
    assert nodes.shown() == {plane.name for plane in PROTOCOL.scan_planes}
    nodes.hide(SUBCALLOSAL)
    assert SUBCALLOSAL not in nodes.shown()
    nodes.stop()


def test_a_plane_node_follows_corrections_undo_and_dragging(session):
    nodes = PlaneNodes(session)
    session.listeners.append(lambda labels: nodes.update())
    nodes.show(planes(session))
    node = nodes.nodes[SUBCALLOSAL]
    before = axes_of(node)
    session.corrections.move("CC_ST", session.review.current.point("CC_ST") + [0, 0, 8])
    assert not np.allclose(axes_of(node), before, atol=1e-3)
    assert same_plane(node, planes(session))
    session.corrections.undo()
    np.testing.assert_allclose(axes_of(node), before, atol=1e-6)
    # While it is dragged nothing is on record yet.
    points, index = session.nodes.place_of("CC_R")
    points.InvokeEvent(points.PointStartInteractionEvent)
    place = session.review.current.point("CC_R") + [0, 0, -6]
    points.SetNthControlPointPositionWorld(index, *map(float, place))
    assert not np.allclose(axes_of(node), before, atol=1e-3)
    points.InvokeEvent(points.PointEndInteractionEvent)
    assert same_plane(node, planes(session))
    nodes.stop()


def test_a_missing_landmark_hides_the_plane_until_it_is_back(session):
    nodes = PlaneNodes(session)
    session.listeners.append(lambda labels: nodes.update())
    nodes.show(planes(session))
    session.corrections.mark_missing("CC_ST")
    assert nodes.shown() == set()
    session.corrections.undo()
    assert nodes.shown() == {SUBCALLOSAL}
    # What a person has hidden stays hidden.
    nodes.nodes[SUBCALLOSAL].GetDisplayNode().SetVisibility(False)
    session.corrections.move("CC_R", session.review.current.point("CC_R") + [0, 0, 2])
    session.corrections.mark_missing("CC_ST")
    session.corrections.undo()
    assert nodes.shown() == set()
    assert same_plane(nodes.nodes[SUBCALLOSAL], planes(session))
    nodes.stop()


def test_planes_follow_the_transform_of_the_volume(session, turned):
    nodes = PlaneNodes(session)
    session.listeners.append(lambda labels: nodes.update())
    nodes.show(planes(session))
    session.volume.SetAndObserveTransformNodeID(turned.GetID())
    assert nodes.nodes[SUBCALLOSAL].GetTransformNodeID() == turned.GetID()
    assert same_plane(nodes.nodes[SUBCALLOSAL], planes(session))
    nodes.stop()


@pytest.mark.parametrize("kind", ["turned", "bent"])
def test_planes_stay_where_a_transform_is_hardened(request, session, kind):
    transform = request.getfixturevalue(kind)
    nodes = PlaneNodes(session)
    session.listeners.append(lambda labels: nodes.update())
    session.volume.SetAndObserveTransformNodeID(transform.GetID())
    nodes.show(planes(session))
    node = nodes.nodes[SUBCALLOSAL]
    before = np.array(node.GetCenterWorld())
    session.volume.HardenTransform()
    assert node.GetTransformNodeID() is None
    np.testing.assert_allclose(node.GetCenterWorld(), before, atol=1e-3)
    session.corrections.confirm("CC_G")
    assert same_plane(node, planes(session))
    np.testing.assert_allclose(node.GetCenterWorld(), before, atol=1e-3)
    nodes.stop()


# In the panel -------------------------------------------------------------------------------------


@pytest.fixture
def detected(desktop, found, tmp_path, monkeypatch):
    """The panel with the sample head, its landmarks, and the section Planes open."""
    section = "BrainLandmarksLib.ui.landmarks.detecting.DetectSection"
    monkeypatch.setattr(f"{section}.prepare", lambda *_: None)
    panel = desktop.open(MODULE).self()
    answer = tmp_path / "answer.mrk.json"
    write_review(answer, Review.of(found), {"model": "brain88", "plausibility": 0.99})
    panel.ui.sampleButton.click()
    desktop.dialogs.choose(answer)
    panel.ui.loadButton.click()
    assert panel.panel.session is not None, panel.ui.messageLabel.text
    panel.ui.planesSection.collapsed = False
    return panel


def rows(ui):
    tree = ui.planesTree
    items = [tree.topLevelItem(n) for n in range(tree.topLevelItemCount)]
    return {item.text(NAME): item for item in items}


def click(ui, name):
    ui.planesTree.setCurrentItem(rows(ui)[name])
    ui.planesTree.itemClicked(rows(ui)[name], NAME)


def test_the_list_says_how_sure_planes_are_and_that_they_are_proposals(detected):
    ui = detected.ui
    assert "proposals of research software" in ui.planesNoteLabel.text
    items = rows(ui)
    assert list(items) == [plane.name for plane in PROTOCOL.scan_planes]
    assert all(0 < float(item.text(ANGLE)) < 10 for item in items.values())
    assert "90 %" in items[SUBCALLOSAL].toolTip(NAME)
    assert not ui.copyPlaneButton.isEnabled()
    detected.panel.session.corrections.mark_missing("CC_ST")
    assert items[SUBCALLOSAL].text(ANGLE) == "missing"
    assert "CC_ST" in items[SUBCALLOSAL].toolTip(NAME)
    detected.panel.session.corrections.undo()
    assert float(items[SUBCALLOSAL].text(ANGLE)) > 0


def test_a_detection_with_another_model_brings_that_model_s_intervals(detected, found, monkeypatch):
    from BrainLandmarksLib.ui.landmarks import planning

    def errors(source, protocol):
        return LandmarkErrors(np.full(len(protocol), SIGMA[source["model"]]))

    monkeypatch.setattr(planning, "errors_of", errors)
    ui, session = detected.ui, detected.panel.session
    shown = {}
    for model in SIGMA:
        session.renew(found, {"model": model}, None, keep=False)
        shown[model] = float(rows(ui)[SUBCALLOSAL].text(ANGLE))
    assert shown["coarse"] == pytest.approx(3 * shown["fine"], rel=0.2)
    # Corrections ask for nothing anew.
    monkeypatch.setattr(planning, "errors_of", None)
    session.corrections.confirm("CC_ST")
    assert ui.messageLabel.text == ""


SIGMA = {"fine": 1.0, "coarse": 3.0}
"""Of a model's landmarks, mm."""


def test_a_click_turns_the_slice_views(desktop, detected):
    ui, session = detected.ui, detected.panel.session
    for name, own in ((SUBCALLOSAL, "Red"), ("coronal across the hippocampi", "Green"),
                      ("sagittal along the brain stem", "Yellow")):  # fmt: skip
        click(ui, name)
        each = planes(session, name)
        normals = {}
        for view in ("Red", "Yellow", "Green"):
            node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
            matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
            np.testing.assert_allclose(matrix[:3, :3].T @ matrix[:3, :3], np.eye(3), atol=1e-9)
            np.testing.assert_allclose(matrix[:3, 3], each.stack.center, atol=1e-6)
            # The right of the screen is the patient's left, or back; slices count R, A, S.
            assert matrix[:3, 0] @ ([0, -1, 0] if view == "Yellow" else [-1, 0, 0]) > 0.5
            assert matrix[:3, 2] @ np.eye(3)[{"Red": 2, "Yellow": 0, "Green": 1}[view]] > 0.5
            normals[view] = matrix[:3, 2]
        assert abs(normals[own] @ each.frame.normal) == pytest.approx(1)
        across = [normals[view] @ each.frame.normal for view in normals if view != own]
        np.testing.assert_allclose(across, 0, atol=1e-9)
    ui.uprightButton.click()
    for view, word in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
        assert node.GetOrientation() == word


def test_a_plane_is_not_drawn_over_the_view_that_lies_in_it(detected):
    import qt

    ui = detected.ui
    rows(ui)[SUBCALLOSAL].setCheckState(SHOW, qt.Qt.Checked)
    display = slicer.util.getNodesByClass("vtkMRMLMarkupsPlaneNode")[0].GetDisplayNode()
    views = {
        view: slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode().GetID()
        for view in ("Red", "Yellow", "Green")
    }
    click(ui, SUBCALLOSAL)
    seen = [view for view, identity in views.items() if display.IsDisplayableInView(identity)]
    assert seen == ["Yellow", "Green"]
    for other in (lambda: click(ui, "axial AC-PC"), ui.uprightButton.click):
        click(ui, SUBCALLOSAL)
        other()
        assert all(display.IsDisplayableInView(identity) for identity in views.values())


def test_a_tick_shows_a_node_that_follows_and_is_saved(detected, scene):
    import qt

    ui, session = detected.ui, detected.panel.session
    rows(ui)[SUBCALLOSAL].setCheckState(SHOW, qt.Qt.Checked)
    node = slicer.util.getNodesByClass("vtkMRMLMarkupsPlaneNode")[0]
    assert node.GetAttribute(PLANE) == SUBCALLOSAL
    session.corrections.move("CC_ST", session.review.current.point("CC_ST") + [0, 0, 8])
    assert same_plane(node, planes(session))
    # Another session of the same volume goes on with it.
    volume = session.volume
    detected.panel.leave()
    detected.panel.set_volume(volume)
    assert rows(ui)[SUBCALLOSAL].checkState(SHOW) == qt.Qt.Checked
    rows(ui)[SUBCALLOSAL].setCheckState(SHOW, qt.Qt.Unchecked)
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsPlaneNode")


def test_the_geometry_goes_to_the_clipboard_and_the_image_into_a_volume(detected):
    ui, session = detected.ui, detected.panel.session
    click(ui, SUBCALLOSAL)
    ui.copyPlaneButton.click()
    text = slicer.app.clipboard().text()
    each = planes(session)
    numbers = next(line for line in text.splitlines() if "ImageOrientationPatient" in line)
    vectors = np.array(numbers.split(": ")[1].split("\\"), float).reshape(2, 3)
    np.testing.assert_allclose(
        vectors * [-1, -1, 1], [each.frame.row, each.frame.column], atol=1e-5
    )
    assert "not a medical device" in text
    ui.reformatButton.click()
    assert ui.messageLabel.text == ""
    node = slicer.util.getNode(f"{session.volume.GetName()} {SUBCALLOSAL}")
    assert node.GetImageData().GetDimensions() == each.stack.grid.shape
    array = slicer.util.arrayFromVolume(node)
    middle = [n // 2 for n in array.shape]
    ijk = middle[::-1]
    at = each.stack.grid.ijk_to_ras(ijk)
    to_ijk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(ijk_to_ras(session.volume)))
    i, j, k = np.rint(to_ijk @ [*at, 1])[:3].astype(int)
    near = slicer.util.arrayFromVolume(session.volume)[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3]
    assert near.min() <= array[tuple(middle)] <= near.max()


def ijk_to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_without_landmarks_the_list_is_empty_and_a_missing_plane_turns_nothing(detected):
    detected.panel.leave()
    assert rows(detected.ui) == {}
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    before = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    nowhere = LandmarkSet.from_points(PROTOCOL, np.full((len(PROTOCOL), 3), np.nan))
    align_views(prescribe(nowhere)[0])
    np.testing.assert_array_equal(slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()), before)
