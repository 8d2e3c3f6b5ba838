"""A volume node becomes a file that the library reads: same voxels, same place in the world."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.mrml.export.volume import export_volume


def places(node, volume):
    """World RAS of some voxels, by Slicer and by the file."""
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        node.GetParentTransformNode(), None, to_world
    )
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    for ijk in ((0, 0, 0), (33, 0, 0), (0, 31, 0), (0, 0, 29), (3, 2, 1)):
        local = matrix.MultiplyPoint((*ijk, 1.0))[:3]
        yield ijk, to_world.TransformPoint(local)


def check(node, path):
    export_volume(node, path)
    volume = read_image(path)
    kji = slicer.util.arrayFromVolume(node)
    for ijk, world in places(node, volume):
        at = np.rint(volume.grid.ras_to_ijk(world)).astype(int)
        np.testing.assert_allclose(volume.grid.ijk_to_ras(at), world, atol=1e-3)
        assert volume.data[tuple(at)] == kji[ijk[::-1]]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
def test_every_type_arrives(volume, tmp_path, dtype):
    kji = slicer.util.arrayFromVolume(volume).astype(dtype)
    slicer.util.updateVolumeFromArray(volume, kji)
    check(volume, tmp_path / "v.nrrd")


def test_a_parent_transform_is_applied(volume, turned, tmp_path):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    check(volume, tmp_path / "v.nrrd")
    assert volume.GetTransformNodeID() == turned.GetID()


def test_a_warp_is_applied_to_a_copy(volume, scene, tmp_path):
    grid = vtk.vtkImageData()
    grid.SetDimensions(4, 4, 4)
    grid.SetOrigin(-60, -60, -60)
    grid.SetSpacing(40, 40, 40)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    for n in range(64):
        for axis, value in enumerate((4.0, -3.0, 2.0)):
            grid.GetPointData().GetScalars().SetComponent(n, axis, value)
    warp = slicer.vtkOrientedGridTransform()
    warp.SetDisplacementGridData(grid)
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    node.SetAndObserveTransformFromParent(warp)
    volume.SetAndObserveTransformNodeID(node.GetID())
    count = scene.GetNumberOfNodes()
    before = np.zeros((30, 32, 34), np.int16)
    before[14, 15, 16] = 1000
    slicer.util.updateVolumeFromArray(volume, before)
    export_volume(volume, tmp_path / "v.nrrd")
    assert scene.GetNumberOfNodes() == count
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), before)
    # A constant displacement: the bright voxel has moved by it.
    moved = read_image(tmp_path / "v.nrrd")
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    k, j, i = np.unravel_index(np.argmax(before), before.shape)
    local = np.array(matrix.MultiplyPoint((float(i), float(j), float(k), 1.0))[:3])
    world = np.array(node.GetTransformToParent().TransformPoint(local))
    assert 4 < np.linalg.norm(world - local) < 7
    peak = moved.grid.ijk_to_ras(np.unravel_index(np.argmax(moved.data), moved.data.shape))
    assert np.linalg.norm(peak - world) < 3.0


def test_what_is_no_volume_is_said_in_one_sentence(scene, volume, tmp_path):
    path = tmp_path / "v.nrrd"
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    for node in (None, empty):
        with pytest.raises(UserError, match="no volume"):
            export_volume(node, path)
    colour = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
    slicer.util.updateVolumeFromArray(colour, np.zeros((4, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="several values"):
        export_volume(colour, path)
    with pytest.raises(UserError, match="cannot write"):
        export_volume(volume, tmp_path / "nowhere" / "v.nrrd")
    assert not list(tmp_path.iterdir())
