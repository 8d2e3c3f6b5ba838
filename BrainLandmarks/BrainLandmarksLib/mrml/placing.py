"""Nodes that lie where a volume lies: its transform, and places under it."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

from BrainLandmarksLib.geometry.affine import FloatArray


def linear_transform_of(volume: Any) -> Any:
    """The volume's parent transform, or None.

    A warping one cannot carry what is straight in space.
    """
    transform = volume.GetParentTransformNode()
    linear = transform is not None and transform.IsTransformToWorldLinear()
    return transform if linear else None


def put_under(transform: Any, node: Any) -> None:
    """Give a node this transform, or none; nothing happens if it has it."""
    identity = None if transform is None else transform.GetID()
    if node.GetTransformNodeID() != identity:
        node.SetAndObserveTransformNodeID(identity)


def local_matrix(transform: Any, affine: FloatArray) -> Any:
    """Where voxels lie under a linear transform, or none, a vtkMatrix4x4.

    Args:
        affine: 4x4, from the voxels to world RAS mm.
    """
    to_local, matrix = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    if transform is not None:
        transform.GetMatrixTransformToWorld(to_local)
        to_local.Invert()
    matrix.DeepCopy(affine.ravel())
    vtk.vtkMatrix4x4.Multiply4x4(to_local, matrix, matrix)
    return matrix


def on_moved(volume: Any, callback: Any) -> list[int]:
    """Hear when a volume gets another transform, or its transform changes; returns the tags."""
    return [
        volume.AddObserver(event, callback)
        for event in (
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            slicer.vtkMRMLNode.ReferenceModifiedEvent,
        )
    ]
