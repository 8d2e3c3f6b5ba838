"""Grad-CAM maps in the scene: where they lie, what they carry, how they are shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.mrml.export.volume import world_affine
from BrainLandmarksLib.mrml.export.volume_export import ScanFile
from BrainLandmarksLib.mrml.gradcam import map_views
from BrainLandmarksLib.mrml.gradcam.color import INFERNO, map_colors
from BrainLandmarksLib.mrml.gradcam.map_nodes import MapNodes, first_scan, is_map
from BrainLandmarksLib.mrml.landmarks.active_landmark import Follower
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

PROTOCOL = load_protocol("brain88")


@pytest.fixture
def grid():
    """A cube that is turned, as the network's is."""
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = 3.25 * turn
    affine[:3, 3] = (-12.0, 7.0, 30.0)
    return Grid((6, 7, 8), affine)


@pytest.fixture
def data(grid):
    return np.random.default_rng(0).random(grid.shape).astype(np.float32)


@pytest.fixture
def maps(volume):
    made = MapNodes(volume)
    yield made
    made.close()


def put(maps, data, grid, *labels, **changes):
    fields = {"name": f"Grad-CAM {labels[0]}", "model": "brain88", "layer": "first", **changes}
    return maps.put(data, grid, labels=labels, **fields)


def parent_of(scene, node):
    tree = scene.GetSubjectHierarchyNode()
    return tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(node)))


def test_a_map_lies_where_the_cube_of_the_network_lies(maps, data, grid):
    node = put(maps, data, grid, "CC_G")
    np.testing.assert_allclose(world_affine(node), grid.affine, atol=1e-9)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), data.transpose(2, 1, 0))
    assert is_map(node)
    assert maps.all == [node]
    assert json.loads(node.GetAttribute("BrainLandmarks.map"))["labels"] == ["CC_G"]


def test_a_map_carries_the_volumes_transform_and_follows_it(maps, volume, turned, data, grid):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    node = put(maps, data, grid, "CC_G")
    assert node.GetTransformNodeID() == turned.GetID()
    np.testing.assert_allclose(world_affine(node), grid.affine, atol=1e-9)
    before = slicer.util.arrayFromTransformMatrix(turned)
    turned.ApplyTransformMatrix(turned.GetMatrixTransformToParent())
    moved = slicer.util.arrayFromTransformMatrix(turned) @ np.linalg.inv(before)
    np.testing.assert_allclose(world_affine(node), moved @ grid.affine, atol=1e-9)
    volume.SetAndObserveTransformNodeID(None)
    assert node.GetTransformNodeID() is None


@pytest.mark.parametrize("watched", [True, False])
def test_a_map_stays_where_the_volume_s_transform_is_hardened(volume, turned, data, grid, watched):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    maps = MapNodes(volume)
    node = put(maps, data, grid, "CC_G")
    if not watched:
        maps.close()
    volume.HardenTransform()
    if not watched:
        maps = MapNodes(volume)
    assert node.GetTransformNodeID() is None
    np.testing.assert_allclose(world_affine(node), grid.affine, atol=1e-6)
    maps.close()


def test_under_a_warp_a_map_stays_straight(maps, volume, scene, data, grid):
    warp = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in np.eye(4, 3) * 50:
        source.InsertNextPoint(*point)
        target.InsertNextPoint(*(point + point**2 / 100))
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    warp.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(warp.GetID())
    node = put(maps, data, grid, "CC_G")
    assert node.GetTransformNodeID() is None
    np.testing.assert_allclose(world_affine(node), grid.affine, atol=1e-9)


@pytest.mark.parametrize("landmarks_first", [True, False])
def test_maps_and_landmarks_share_a_folder(scene, maps, volume, data, grid, landmarks_first):
    if landmarks_first:
        lists = LandmarkNodes.create(volume, PROTOCOL).lists
        node = put(maps, data, grid, "CC_G")
    else:
        node = put(maps, data, grid, "CC_G")
        lists = LandmarkNodes.create(volume, PROTOCOL).lists
    assert {parent_of(scene, n) for n in (node, *lists)} == {"Head of Ms X landmarks"}
    tree = scene.GetSubjectHierarchyNode()
    folders = {tree.GetItemParent(tree.GetItemByDataNode(n)) for n in (node, *lists)}
    assert len(folders) == 1


def test_what_is_shown_takes_one_node_and_what_is_kept_one_each(maps, data, grid):
    node = put(maps, data, grid, "CC_G", slot="left")
    assert put(maps, data, grid, "CC_S", slot="left") is node
    assert node.GetName() == "Grad-CAM CC_S"
    other = put(maps, data, grid, "CC_S", slot="right", model="other")
    assert other is not node
    kept = [put(maps, data / 2, grid, label) for label in ("CC_G", "CC_S", "EYE_A_L")]
    assert kept[1] is node  # it holds this map already, and is kept from now on
    assert slicer.util.arrayFromVolume(node).max() == pytest.approx(data.max() / 2)
    assert put(maps, data, grid, "CC_T", slot="left") not in kept
    assert put(maps, data, grid, "EYE_A_L", slot="left") is kept[2]
    assert len(maps.all) == 5


def test_another_volume_has_maps_of_its_own(scene, maps, volume, data, grid):
    put(maps, data, grid, "CC_G", slot="left")
    second = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "second")
    slicer.util.updateVolumeFromArray(second, np.zeros((9, 9, 9), np.int16))
    others = MapNodes(second)
    node = put(others, data, grid, "CC_G", slot="left")
    assert others.all == [node]
    assert node not in maps.all
    others.close()


def test_the_first_scan_is_no_map(scene, maps, volume, data, grid):
    put(maps, data, grid, "CC_G")
    assert first_scan() is volume
    scene.RemoveNode(volume)
    assert first_scan() is None


def test_the_colours_are_inferno_with_slicers_table_or_without(scene, maps, data, grid):
    matplotlib = pytest.importorskip("matplotlib")
    made = map_colors()
    assert map_colors() is made
    inferno = matplotlib.colormaps["inferno"]
    for index in (0, 1, 40, 99, 128, 200, 254, 255):
        color = [0.0] * 4
        made.GetColor(index, color)
        np.testing.assert_allclose(color, inferno(index), atol=0.03)
    node = put(maps, data, grid, "CC_G")
    assert node.GetDisplayNode().GetColorNode() is made
    own = slicer.vtkMRMLColorTableNode()
    own.SetSingletonTag("FileInferno.txt")  # as Slicer names a table that it reads from a file
    own = scene.AddNode(own)
    assert own.GetID() == INFERNO
    try:
        assert map_colors() is own
    finally:
        scene.RemoveNode(own)


def test_a_map_is_seen_from_the_threshold_on(maps, data, grid):
    node = put(maps, data, grid, "CC_G")
    map_views.set_threshold(node, 0.3)
    display = node.GetDisplayNode()
    assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == (0.3, 1.0)
    assert display.GetApplyThreshold()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0.0, 1.0)
    map_views.set_threshold(node, 0.6)
    assert display.GetLowerThreshold() == 0.6


# The slice views ----------------------------------------------------------------------------------


@pytest.fixture
def views(desktop):
    """The composite node of each slice view, by the view's name."""
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    return {c.GetLayoutName(): c for c in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}


def slices():
    return {n.GetLayoutName(): n for n in slicer.util.getNodesByClass("vtkMRMLSliceNode")}


def test_a_map_is_laid_over_its_scan_and_taken_off(scene, views, maps, volume, data, grid):
    node = put(maps, data, grid, "CC_G")
    map_views.lay_over(node, 0.4, over=volume)
    for composite in views.values():
        assert composite.GetBackgroundVolumeID() == volume.GetID()
        assert composite.GetForegroundVolumeID() == node.GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(0.4)
    own = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "somebody else's")
    views["Green"].SetForegroundVolumeID(own.GetID())
    views["Green"].SetForegroundOpacity(0.9)
    map_views.set_opacity(0.7)
    assert views["Red"].GetForegroundOpacity() == pytest.approx(0.7)
    assert views["Green"].GetForegroundOpacity() == pytest.approx(0.9)
    map_views.lay_over(None, 0.0)
    assert views["Red"].GetForegroundVolumeID() is None
    assert views["Green"].GetForegroundVolumeID() == own.GetID()


def test_two_maps_stand_side_by_side_and_everything_is_put_back(
    scene, views, maps, volume, data, grid
):
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    left, right = (put(maps, data, grid, "CC_G", model=m) for m in "ab")
    before = {n: slicer.util.arrayFromVTKMatrix(s.GetSliceToRAS()) for n, s in slices().items()}
    both = map_views.SideBySide()
    both.start("Coronal")
    both.show(left, right, 0.5, over=volume)
    assert layout.GetViewArrangement() == layout.SlicerLayoutSideBySideView
    assert {s.GetOrientation() for n, s in slices().items() if n != "Green"} == {"Coronal"}
    assert views["Red"].GetForegroundVolumeID() == left.GetID()
    assert views["Yellow"].GetForegroundVolumeID() == right.GetID()
    assert views["Red"].GetLinkedControl()
    both.start("Axial")
    assert slices()["Yellow"].GetOrientation() == "Axial"
    both.stop()
    assert not both.on
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    for name, node in slices().items():
        np.testing.assert_allclose(
            slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()), before[name]
        )
    assert not views["Red"].GetLinkedControl()
    both.stop()  # a second time there is nothing to do
    with pytest.raises(UserError, match="no plane"):
        both.start("oblique")


def test_without_views_there_is_nothing_to_compare_in(monkeypatch):
    monkeypatch.setattr(map_views, "_slices", list)
    with pytest.raises(UserError, match="no slice views"):
        map_views.SideBySide().start("Axial")


def test_the_legend_says_whose_map_it_is(maps, data, grid):
    node = put(maps, data, grid, "CC_G")
    map_views.set_legend(node, "CC_G", on=False)
    logic = slicer.vtkSlicerColorLogic
    assert logic.GetColorLegendDisplayNode(node) is None
    map_views.set_legend(node, "CC_G", on=True)
    legend = logic.GetColorLegendDisplayNode(node)
    assert (legend.GetTitleText(), legend.GetVisibility()) == ("CC_G", 1)
    map_views.set_legend(node, "CC_S", on=False)
    assert logic.GetColorLegendDisplayNode(node) is legend
    assert (legend.GetTitleText(), legend.GetVisibility()) == ("CC_S", 0)


# The file for the worker --------------------------------------------------------------------------


def test_a_volume_is_written_again_only_when_it_has_changed(volume, turned):
    scan = ScanFile()
    path = scan.of(volume)
    folder = path.parent
    assert "Ms X" not in str(path)
    volume.SetName("renamed")
    volume.CreateDefaultDisplayNodes()
    assert scan.of(volume) == path
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    second = scan.of(volume)
    assert second != path
    assert [p.name for p in folder.iterdir()] == [second.name]
    volume.SetAndObserveTransformNodeID(turned.GetID())
    third = scan.of(volume)
    assert third not in (path, second)
    third.unlink()
    assert scan.of(volume).exists()
    scan.close()
    assert not folder.exists()
    assert scan.of(volume).exists()
    scan.close()
    with pytest.raises(UserError, match="no volume"):
        scan.of(None)


# Following ----------------------------------------------------------------------------------------


@pytest.fixture
def heard():
    return []


@pytest.fixture
def follower(scene, heard):
    made = Follower(heard.append)
    yield made
    made.stop()


@pytest.fixture
def landmarks():
    points = np.random.default_rng(3).uniform(-40, 40, (88, 3))
    return LandmarkSet.from_points(PROTOCOL, points, "model", np.ones(88))


def click(node, index):
    """What a click on a point in a view does."""
    display = node.GetDisplayNode()
    display.SetActiveControlPoint(index)
    display.InvokeEvent(display.JumpToPointEvent)


def test_choosing_in_the_other_module_is_heard(follower, heard, volume, landmarks):
    session = Session.begin(volume, landmarks, {})
    session.selection.activate("CC_G")
    follower.start(volume)
    assert (follower.label, heard) == ("CC_G", [])
    session.selection.activate("CC_S")
    session.corrections.confirm("CC_S")
    session.corrections.move("CC_T", [1, 2, 3])
    assert heard == ["CC_S"]
    session.selection.activate(None)
    assert heard == ["CC_S"]
    session.selection.activate("CC_S")
    assert heard == ["CC_S", "CC_S"]
    session.end()


def test_landmarks_that_come_later_are_followed_too(follower, heard, volume, landmarks):
    follower.start(volume)
    session = Session.begin(volume, landmarks, {})
    session.selection.activate("EYE_A_L")
    assert heard == ["EYE_A_L"]
    session.end()


def test_a_click_on_a_point_is_heard_by_all_and_moves_nothing(follower, heard, volume, landmarks):
    session = Session.begin(volume, landmarks, {})
    active = []
    session.selection.on_active = active.append
    follower.start(volume)
    node, index = session.nodes.place_of("HIP_H_L")
    assert not node.GetLocked()
    assert node.GetNthControlPointLocked(index)
    click(node, index)
    assert heard == active == ["HIP_H_L"]
    session.selection.activate("CC_G")  # locks the other lists; they take clicks all the same
    assert not node.GetLocked()
    follower.stop()
    assert node.GetLocked()
    assert not session.nodes.place_of("CC_G")[0].GetLocked()
    click(node, index)
    assert heard == ["HIP_H_L", "CC_G"]
    assert not session.review.edits
    session.end()


def test_what_is_deleted_is_followed_no_more(follower, heard, scene, volume, landmarks):
    session = Session.begin(volume, landmarks, {})
    follower.start(volume)
    session.end()
    scene.RemoveNode(session.nodes.lists[0])
    session.nodes.active = "CC_G"
    scene.RemoveNode(session.nodes.anchor)
    again = Session.begin(volume, landmarks, {})
    again.selection.activate("CC_S")
    assert heard[-1] == "CC_S"
    follower.start(None)
    again.selection.activate("CC_T")
    assert heard[-1] == "CC_S"
    again.end()


def test_a_stale_mark_in_a_scene_does_not_move_a_session(volume, landmarks):
    nodes = LandmarkNodes.create(volume, PROTOCOL)
    nodes.show(landmarks)
    nodes.active = "CC_G"
    session = Session.resume(nodes)
    active = []
    session.selection.on_active = active.append
    session.corrections.confirm("CC_S")
    assert not active
    nodes.active = "EYE_A_L"
    assert active == ["EYE_A_L"]
    session.end()
