"""The parcellation of a volume as a segmentation node of a Slicer scene.

One segment for each structure, with its name and colour, in the folder of the volume's landmarks.
The node carries the volume's transform, so it follows it; there is one for each volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.edges import on_label_boundary
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.mrml.folder import ROLE, VOLUME, folder_of, put_into
from BrainLandmarksLib.mrml.landmarks.parcellation_run import Parcelled
from BrainLandmarksLib.mrml.placing import (
    follow,
    linear_transform_of,
    local_matrix,
    on_moved,
    was_hardened,
)

PARCELLATION = "parcellation"
"""`folder.ROLE` of the node."""

FILL_OPACITY = 0.35
"""Of the segments in slices: what lies below stays to be seen."""


def segmentation_of(volume: Any) -> Any:
    """The vtkMRMLSegmentationNode with the parcellation of a volume, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(ROLE) == PARCELLATION and node.GetNodeReference(VOLUME) is volume:
            return node
    return None


def show_parcellation(volume: Any, parcelled: Parcelled) -> Any:
    """Put a parcellation into the scene; returns its node.

    A former parcellation of the volume is replaced; how its node is shown stays.

    Raises:
        UserError: there is no structure in it.
    """
    if not parcelled.structures:
        raise UserError("no structure was found in this volume.")
    node = segmentation_of(volume) or _new(volume)
    transform = linear_transform_of(volume)
    image = _oriented_image(parcelled.labels, local_matrix(transform, parcelled.grid.affine))
    before = node.StartModify()
    try:
        node.GetSegmentation().RemoveAllSegments()
        follow(volume, node, transform)
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(image, node, "")
        _dress(node.GetSegmentation(), parcelled)
    finally:
        node.EndModify(before)
    return node


class FollowingSegmentation:
    """Keeps the parcellation of a volume, if it has one, under the volume's transform.

    Args:
        volume: vtkMRMLScalarVolumeNode.
    """

    def __init__(self, volume: Any) -> None:
        self._volume = volume
        self._tags = on_moved(volume, self._moved)
        node = segmentation_of(volume)
        if node is not None and was_hardened(volume, node):
            self._moved(volume, "")

    def close(self) -> None:
        """Stop listening to the volume."""
        for tag in self._tags:
            self._volume.RemoveObserver(tag)
        self._tags.clear()

    def _moved(self, volume: Any, _event: str) -> None:
        node = segmentation_of(volume)
        if node is not None:
            follow(volume, node, linear_transform_of(volume))


def on_structure_boundary(volume: Any, point: npt.ArrayLike) -> FloatArray:
    """The nearest place, (3,) world RAS mm, where two structures of the parcellation meet.

    Raises:
        UserError: the volume has no parcellation, or no two structures meet near the point.
    """
    node = segmentation_of(volume) if volume is not None else None
    layers = [] if node is None else list(_layers(node))
    if not layers:
        raise UserError("there is no parcellation of this volume; click Parcellate first.")
    found, why = [], None
    for labels in layers:
        try:
            found.append(on_label_boundary(labels, point))
        except UserError as error:
            why = error
    if not found and why is not None:
        raise why
    return min(found, key=lambda place: float(np.linalg.norm(place - np.asarray(point))))


def _new(volume: Any) -> Any:
    scene = slicer.mrmlScene
    node = scene.CreateNodeByClass("vtkMRMLSegmentationNode")
    node.UnRegister(None)
    node.SetName(f"{volume.GetName()} parcellation")
    node.SetAttribute(ROLE, PARCELLATION)
    scene.AddNode(node)
    put_into(folder_of(volume), node)
    node.SetNodeReferenceID(VOLUME, volume.GetID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(FILL_OPACITY)
    # Surfaces of all structures take seconds to make; Slicer makes them when they are asked for.
    display.SetVisibility3D(False)
    return node


def _oriented_image(labels: npt.NDArray[Any], matrix: Any) -> Any:
    """Labels (I, J, K) as a vtkOrientedImageData."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*labels.shape)
    kji = np.ascontiguousarray(labels.transpose(2, 1, 0))
    image.GetPointData().SetScalars(numpy_to_vtk(kji.ravel(), deep=True))
    image.SetImageToWorldMatrix(matrix)
    return image


def _dress(segmentation: Any, parcelled: Parcelled) -> None:
    """Give every segment the name and colour of its structure."""
    known = {one["number"]: one for one in parcelled.structures}
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        one = known[segment.GetLabelValue()]
        segment.SetName(one["name"])
        segment.SetColor(*(part / 255 for part in bytes.fromhex(one["color"][1:])))


def _layers(node: Any) -> Iterator[Volume]:
    """Label maps of a segmentation in the world; segments that overlap lie in several.

    Raises:
        UserError: its transform is not linear.
    """
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise UserError("the parcellation has a warping transform; harden it first.")
    to_world = vtk.vtkMatrix4x4()
    if transform is not None:
        transform.GetMatrixTransformToWorld(to_world)
    segmentation = node.GetSegmentation()
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    for number in range(segmentation.GetNumberOfLayers(name)):
        image = segmentation.GetLayerDataObject(number, name)
        scalars = None if image is None else image.GetPointData().GetScalars()
        if scalars is None:
            continue
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
        affine = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
        # Only the part of the image where there are segments is kept.
        low = np.array(image.GetExtent()[::2], float)
        affine[:3, 3] += affine[:3, :3] @ low
        kji = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
        yield Volume(kji.transpose(2, 1, 0), Grid(kji.shape[::-1], affine))
