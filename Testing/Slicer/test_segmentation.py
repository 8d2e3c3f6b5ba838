"""The parcellation of a volume as a segmentation: names, colours, place, file, and snapping."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from BrainLandmarksLib.annotation.structures import structure_of
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.edges import on_label_boundary
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.mrml.export.volume import world_volume
from BrainLandmarksLib.mrml.folder import VOLUME, folder_of
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.parcellation_run import Parcelled
from BrainLandmarksLib.mrml.landmarks.segmentation import (
    FollowingSegmentation,
    on_structure_boundary,
    segmentation_of,
    show_parcellation,
)
from BrainLandmarksLib.protocol import load_protocol

PROTOCOL = load_protocol("brain88")


def told(volume, labels):
    """What a worker would bring of labels (I, J, K) on the volume's voxels."""
    numbers = [int(n) for n in np.unique(labels) if n]
    structures = tuple(
        {"number": n, "name": structure_of(n).name, "color": structure_of(n).color} for n in numbers
    )
    return Parcelled(labels.astype(np.int16), world_volume(volume).grid, structures, (), 1.0)


@pytest.fixture
def labels(volume):
    """Two slabs that touch, and a block that touches none."""
    labels = np.zeros(world_volume(volume).grid.shape, int)
    labels[5:15, 5:20, 4:20], labels[15:28, 5:20, 4:20] = 2, 41
    labels[8:12, 24:28, 22:26] = 512
    return labels


@pytest.fixture
def node(volume, labels):
    return show_parcellation(volume, told(volume, labels))


def segments(node):
    segmentation = node.GetSegmentation()
    every = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    return {segment.GetName(): segment for segment in every}


def mask_of(node, name, volume):
    """A segment's voxels among those of the volume, (I, J, K), by where they are in the world."""
    image = slicer.vtkOrientedImageData()
    identity = node.GetSegmentation().GetSegmentIdBySegmentName(name)
    assert node.GetBinaryLabelmapRepresentation(identity, image)
    kji = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    ijk = np.argwhere(kji)[:, ::-1] + image.GetExtent()[::2]
    matrix, to_world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(to_world)
    vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    world = [matrix.MultiplyPoint((*place, 1.0))[:3] for place in ijk.astype(float)]
    grid = world_volume(volume).grid
    mask = np.zeros(grid.shape, bool)
    mask[tuple(np.round(grid.ras_to_ijk(world)).astype(int).T)] = True
    return mask


def test_every_structure_is_a_segment_in_its_place(scene, volume, node, labels):
    found = segments(node)
    assert sorted(found) == sorted(structure_of(n).name for n in (2, 41, 512))
    for number in (2, 41, 512):
        one = structure_of(number)
        assert found[one.name].GetColor() == pytest.approx(one.rgb)
        np.testing.assert_array_equal(mask_of(node, one.name, volume), labels == number)
    assert node.GetNodeReference(VOLUME) is volume
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is volume
    tree = scene.GetSubjectHierarchyNode()
    assert tree.GetItemParent(tree.GetItemByDataNode(node)) == folder_of(volume)
    assert not node.GetDisplayNode().GetVisibility3D()


def test_it_lies_in_the_folder_of_the_landmarks(scene, volume, labels):
    lists = LandmarkNodes.create(volume, PROTOCOL)
    node = show_parcellation(volume, told(volume, labels))
    tree = scene.GetSubjectHierarchyNode()
    folders = {tree.GetItemParent(tree.GetItemByDataNode(each)) for each in (node, lists.lists[0])}
    assert len(folders) == 1
    assert tree.GetItemName(folders.pop()) == "Head of Ms X landmarks"


def test_a_second_one_takes_the_place_of_the_first(scene, volume, node, labels):
    node.GetDisplayNode().SetVisibility(False)
    again = show_parcellation(volume, told(volume, np.where(labels == 512, 16, labels)))
    assert again is node
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert sorted(segments(node)) == sorted(structure_of(n).name for n in (2, 16, 41))
    assert not node.GetDisplayNode().GetVisibility()
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    assert segmentation_of(other) is None
    scene.RemoveNode(node)
    assert segmentation_of(volume) is None


def test_a_parcellation_without_structures_is_refused(scene, volume, labels):
    with pytest.raises(UserError, match="no structure"):
        show_parcellation(volume, told(volume, 0 * labels))
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_it_follows_the_volume(volume, turned, labels):
    """Put under a transform, before it is made and afterwards, and taken out again."""
    volume.SetAndObserveTransformNodeID(turned.GetID())
    node = show_parcellation(volume, told(volume, labels))
    assert node.GetParentTransformNode() is turned
    np.testing.assert_array_equal(mask_of(node, structure_of(41).name, volume), labels == 41)
    following = FollowingSegmentation(volume)
    volume.SetAndObserveTransformNodeID(None)
    assert node.GetParentTransformNode() is None
    volume.SetAndObserveTransformNodeID(turned.GetID())
    assert node.GetParentTransformNode() is turned
    following.close()
    volume.SetAndObserveTransformNodeID(None)
    assert node.GetParentTransformNode() is turned


@pytest.mark.parametrize("watched", [True, False])
def test_it_stays_where_the_volume_s_transform_is_hardened(volume, turned, labels, watched):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    node = show_parcellation(volume, told(volume, labels))
    following = FollowingSegmentation(volume)
    if not watched:
        following.close()
    volume.HardenTransform()
    if not watched:
        following = FollowingSegmentation(volume)
    assert node.GetParentTransformNode() is None
    np.testing.assert_array_equal(mask_of(node, structure_of(41).name, volume), labels == 41)
    volume.SetAndObserveTransformNodeID(turned.GetID())
    np.testing.assert_array_equal(mask_of(node, structure_of(41).name, volume), labels == 41)
    following.close()


def test_a_scene_keeps_it(scene, volume, node, labels, tmp_path):
    place = world_volume(volume).grid.ijk_to_ras([14.0, 12.0, 12.0])
    before = on_structure_boundary(volume, place)
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(False)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    (volume,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    node = segmentation_of(volume)
    assert sorted(segments(node)) == sorted(structure_of(n).name for n in (2, 41, 512))
    assert segments(node)["spinal cord"].GetColor() == pytest.approx(
        structure_of(512).rgb, abs=0.01
    )
    np.testing.assert_allclose(on_structure_boundary(volume, place), before, atol=1e-3)


# Boundaries ---------------------------------------------------------------------------------------


def test_the_nearest_boundary_has_no_steps():
    """Of a ball in a turned grid: a voxel's face would be up to half a voxel off."""
    from scipy.spatial.transform import Rotation

    from BrainLandmarksLib.geometry.grid import cube

    turn = Rotation.from_euler("xyz", [20, 10, 30], degrees=True).as_matrix()
    grid, middle = cube((3.0, -4.0, 5.0), 60.0, 40, turn), np.array([3.0, -4.0, 5.0])
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    ball = np.where(np.linalg.norm(ras - middle, axis=-1) < 20, 17, 0)
    rng, off = np.random.default_rng(2), []
    for _ in range(30):
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        point = middle + way * rng.uniform(15, 25)
        found = on_label_boundary(Volume(ball, grid), point) - middle
        off.append(abs(np.linalg.norm(found) - 20))
        assert np.linalg.norm(found / np.linalg.norm(found) - way) * 20 < 0.9
    assert np.mean(off) < 0.2
    assert max(off) < 0.55  # where the ball is as flat as the voxels
    with pytest.raises(UserError, match="within 8 mm"):
        on_label_boundary(Volume(ball, grid), middle)
    with pytest.raises(UserError, match="within 3 mm"):
        on_label_boundary(Volume(ball, grid), middle + [0, 24.5, 0], 3.0)
    with pytest.raises(UserError, match="within 8 mm"):
        on_label_boundary(Volume(ball, grid), middle + [0, 400.0, 0])


def test_a_boundary_at_the_map_s_border_is_one():
    from BrainLandmarksLib.geometry.grid import cube

    grid = cube((0.0, 0.0, 0.0), 20.0, 10)
    found = on_label_boundary(Volume(np.full(grid.shape, 2), grid), [7.0, 0.3, 0.2])
    np.testing.assert_allclose(found, [10.0, 0.3, 0.2], atol=0.2)


def test_a_place_goes_to_where_two_structures_meet(volume, node, turned):
    grid = world_volume(volume).grid
    meeting = grid.ijk_to_ras([14.5, 12.0, 12.0])
    point = grid.ijk_to_ras([14.5, 12.0, 12.0]) + [5.0, 0.0, 0.0]
    np.testing.assert_allclose(on_structure_boundary(volume, point), meeting, atol=0.05)
    # The same in a volume that was turned.
    volume.SetAndObserveTransformNodeID(turned.GetID())
    node.SetAndObserveTransformNodeID(turned.GetID())
    grid = world_volume(volume).grid
    meeting = grid.ijk_to_ras([14.5, 12.0, 12.0])
    np.testing.assert_allclose(
        on_structure_boundary(volume, meeting + [0.0, 5.0, 0.0]), meeting, atol=0.05
    )


def test_segments_that_overlap_have_boundaries_each(volume, node):
    """One that a person has added lies in a layer of its own."""
    grid = world_volume(volume).grid
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.SetExtent(8, 11, 10, 13, 10, 13)  # within the first slab
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(1)
    volume.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    assert node.AddSegmentFromBinaryLabelmapRepresentation(image, "mine", [1, 0, 0])
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    edge = grid.ijk_to_ras([11.5, 11.5, 11.5])
    found = on_structure_boundary(volume, edge + [-1.0, 0.0, 0.0])
    np.testing.assert_allclose(found, edge, atol=0.5)


def test_without_a_parcellation_there_is_nothing_to_snap_to(volume):
    with pytest.raises(UserError, match="click Parcellate first"):
        on_structure_boundary(volume, [0.0, 0.0, 0.0])


def test_a_warped_parcellation_is_refused(scene, volume, node):
    warp = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    points = vtk.vtkPoints()
    for place in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50)):
        points.InsertNextPoint(place)
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(points)
    warp.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(UserError, match="warping transform"):
        on_structure_boundary(volume, [0.0, 0.0, 0.0])
