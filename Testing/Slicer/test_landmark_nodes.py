"""The landmarks of a volume in the scene: seven lists, one folder, one record."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
import vtk

from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.views import ActiveMarker, jump_to
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review

PROTOCOL = load_protocol("brain88")
DEFINED, MISSING = 2, 3


@pytest.fixture
def landmarks():
    rng = np.random.default_rng(3)
    points = rng.uniform(-80, 80, (88, 3))
    points[[9, 70]] = np.nan
    return LandmarkSet.from_points(PROTOCOL, points, "model", rng.uniform(0, 1, 88))


@pytest.fixture
def nodes(volume, landmarks):
    made = LandmarkNodes.create(volume, PROTOCOL)
    made.show(landmarks)
    return made


def children(tree, item):
    ids = vtk.vtkIdList()
    tree.GetItemChildren(item, ids)
    return [ids.GetId(n) for n in range(ids.GetNumberOfIds())]


def test_seven_lists_in_a_folder_in_the_groups_colours(scene, nodes, landmarks):
    tree = scene.GetSubjectHierarchyNode()
    folder = tree.GetItemByName("Head of Ms X landmarks")
    assert folder
    assert [tree.GetItemName(item) for item in children(tree, folder)] == [
        group.name for group in PROTOCOL.groups
    ]
    for node, group in zip(nodes.lists, PROTOCOL.groups, strict=True):
        assert node.GetFixedNumberOfControlPoints()
        assert node.GetLocked()
        np.testing.assert_allclose(node.GetDisplayNode().GetSelectedColor(), group.rgb, atol=1e-6)
        values = node.GetMeasurement("confidence").GetControlPointValues()
        for index, landmark in enumerate(PROTOCOL.members(group)):
            row = landmark.index - 1
            assert node.GetNthControlPointLabel(index) == landmark.label
            assert landmark.name in node.GetNthControlPointDescription(index)
            assert node.GetNthControlPointLocked(index)
            status = node.GetNthControlPointPositionStatus(index)
            assert status == (MISSING if landmarks.missing[row] else DEFINED)
            if status == DEFINED:
                np.testing.assert_allclose(
                    node.GetNthControlPointPositionWorld(index), landmarks.points[row], atol=1e-9
                )
                assert values.GetValue(index) == pytest.approx(landmarks.confidence[row])
                assert "model" in node.GetNthControlPointDescription(index)


def test_what_is_shown_is_read_back(nodes, landmarks):
    again = nodes.read()
    np.testing.assert_allclose(again.points, landmarks.points)
    assert again.status == landmarks.status


def test_it_is_found_by_its_volume_alone(scene, volume, nodes):
    found = LandmarkNodes.of_volume(volume)
    assert found.anchor is nodes.anchor
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert LandmarkNodes.of_volume(other) is None
    scene.RemoveNode(nodes.lists[3])
    assert LandmarkNodes.of_volume(volume) is None


def test_only_what_changed_is_touched(nodes, landmarks):
    seen = []
    for node in nodes.lists:
        node.AddObserver(node.PointModifiedEvent, lambda caller, _event: seen.append(caller))
    landmarks.points[30] += 1.0
    nodes.show(landmarks, [PROTOCOL.labels[30]])
    assert {node.GetName() for node in seen} == {"Corpus Callosum"}
    np.testing.assert_allclose(nodes.point(PROTOCOL.labels[30]), landmarks.points[30])


def test_points_come_and_go(nodes, landmarks):
    """Missing and back again, in place, whatever the point was before."""
    review = Review.of(landmarks)
    for label in (PROTOCOL.labels[9], "CC_G"):
        nodes.show(review.current, review.move(label, [1.0, 2.0, 3.0]))
        np.testing.assert_allclose(nodes.point(label), [1, 2, 3])
        nodes.show(review.current, review.mark_missing(label))
        assert np.isnan(nodes.point(label)).all()
        nodes.show(review.current, review.undo())
        np.testing.assert_allclose(nodes.point(label), [1, 2, 3])
    assert nodes.complete
    assert nodes.read().status == review.current.status


def test_the_lists_follow_the_volume_s_transform(volume, turned, nodes, landmarks):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    nodes.follow_volume()
    expected = landmarks.points @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]) + [10, -20, 5]
    np.testing.assert_allclose(nodes.read().points, expected, atol=1e-9)
    # What is shown later is in the world, too.
    nodes.show(landmarks)
    np.testing.assert_allclose(nodes.read().points, landmarks.points, atol=1e-9)
    volume.SetAndObserveTransformNodeID(None)
    nodes.follow_volume()
    assert all(node.GetTransformNodeID() is None for node in nodes.lists)


def test_exactly_one_point_is_unlocked(nodes):
    def unlocked():
        return [
            PROTOCOL.members(group)[k].label
            for node, group in zip(nodes.lists, PROTOCOL.groups)
            for k in range(node.GetNumberOfControlPoints())
            if not node.GetNthControlPointLocked(k) and not node.GetLocked()
        ]

    for label in ("CC_G", "CC_S", "EYE_A_L"):
        nodes.unlock(label)
        assert unlocked() == [label]
    nodes.unlock(None)
    assert unlocked() == []


def test_labels_and_places(nodes):
    node, index = nodes.place_of("PONS_A")
    assert node.GetNthControlPointLabel(index) == "PONS_A"
    assert nodes.label_of(node, index) == "PONS_A"
    assert nodes.label_of(node, 99) is None
    assert nodes.label_of(None, 0) is None


def test_groups_are_shown_and_hidden(nodes):
    eyes = {landmark.label for landmark in PROTOCOL.members(PROTOCOL.groups[4])}
    nodes.show_only(eyes)
    assert nodes.shown() == eyes
    shown = [bool(node.GetDisplayNode().GetVisibility()) for node in nodes.lists]
    assert shown == [group.name == "Eye" for group in PROTOCOL.groups]


def test_a_scene_file_keeps_everything(core, scene, volume, nodes, landmarks, tmp_path):
    """Save to .mrb, close, load: lists, folder, statuses and the record of the review."""
    review = Review.of(landmarks, "AB")
    nodes.show(review.current, review.move("CC_G", [1.0, 2.0, 3.0]))
    nodes.show(review.current, review.confirm("CC_S"))
    nodes.store(review, {"model": "brain88"})
    marker = ActiveMarker()
    marker.show([1, 2, 3], "CC_G")
    path = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(path), None)
    scene.Clear(False)
    assert not LandmarkNodes.all_in_scene()
    assert marker.node is None
    assert scene.ReadFromMRB(str(path), False)
    (loaded,) = LandmarkNodes.all_in_scene()
    assert loaded.volume.GetName() == "Head of Ms X"
    again, source = loaded.restore()
    assert source == {"model": "brain88"}
    assert again.edits == review.edits
    assert again.current.status == review.current.status
    np.testing.assert_allclose(again.current.points, review.current.points, atol=1e-3)
    np.testing.assert_allclose(again.found.points, landmarks.points, atol=1e-3)
    tree = scene.GetSubjectHierarchyNode()
    folder = tree.GetItemByName("Head of Ms X landmarks")
    assert len(children(tree, folder)) == 7
    again.undo()
    loaded.show(again.current, ["CC_S"])
    assert loaded.read().status[PROTOCOL.by_label("CC_S").index - 1] == "model"


def test_a_list_saved_by_slicer_itself_is_read_by_the_library(nodes, landmarks, tmp_path):
    parts = []
    for number, node in enumerate(nodes.lists):
        storage = slicer.vtkMRMLMarkupsJsonStorageNode()
        storage.SetFileName(str(tmp_path / f"{number}.mrk.json"))
        assert storage.WriteData(node)
        parts += json.loads((tmp_path / f"{number}.mrk.json").read_text(encoding="utf-8"))[
            "markups"
        ]
    whole = tmp_path / "all.mrk.json"
    whole.write_text(json.dumps({"markups": parts}))
    again = read_landmarks(whole, PROTOCOL)
    assert again.status == landmarks.status
    np.testing.assert_allclose(again.points, landmarks.points, atol=1e-3)
    np.testing.assert_allclose(again.confidence, landmarks.confidence, atol=1e-3)


def test_removing_leaves_nothing_behind(scene, volume, landmarks):
    tree = scene.GetSubjectHierarchyNode()
    kept = {tree.GetItemName(item) for item in children(tree, tree.GetSceneItemID())}
    nodes = LandmarkNodes.create(volume, PROTOCOL)
    nodes.show(landmarks)
    nodes.remove()
    for kind in ("vtkMRMLMarkupsFiducialNode", "vtkMRMLMarkupsDisplayNode"):
        assert scene.GetNumberOfNodesByClass(kind) == 0
    assert not LandmarkNodes.all_in_scene()
    assert {tree.GetItemName(i) for i in children(tree, tree.GetSceneItemID())} == kept


def test_views_and_camera_jump_together(scene):
    camera = scene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetPosition(0, 500, 0)
    camera.SetFocalPoint(0, 0, 0)
    slices = [scene.AddNewNodeByClass("vtkMRMLSliceNode", name) for name in ("Red", "Green")]
    jump_to([10, -20, 30])
    np.testing.assert_allclose(camera.GetFocalPoint(), [10, -20, 30])
    np.testing.assert_allclose(camera.GetPosition(), [10, 480, 30])
    for node in slices:
        origin = [node.GetSliceToRAS().GetElement(i, 3) for i in range(3)]
        np.testing.assert_allclose(origin, [10, -20, 30])


def test_the_marker_names_one_place(scene):
    marker = ActiveMarker()
    marker.show([1, 2, 3], "CC_G")
    marker.show([4, 5, 6], "CC_S")
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 1
    assert marker.node.GetNthControlPointLabel(0) == "CC_S"
    np.testing.assert_allclose(marker.node.GetNthControlPointPositionWorld(0), [4, 5, 6])
    marker.hide()
    assert not marker.node.GetDisplayNode().GetVisibility()
    marker.remove()
    assert marker.node is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0
