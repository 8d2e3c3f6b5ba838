"""Nodes that lie where a volume lies: its transform, and places under it."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from BrainLandmarksLib.geometry.affine import FloatArray

GEOMETRY = "BrainLandmarks.geometry"
"""Attribute of a node that follows a volume: the volume's IJK to RAS when it was last looked at."""

UNDER = "BrainLandmarks.under"
"""Attribute of a node that follows a volume: "yes" if it got a transform when it last followed."""

SAME_GEOMETRY = 1e-4
"""Entries of two such matrices that differ by less are the same."""


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


def follow(volume: Any, node: Any, transform: Any) -> None:
    """Put a node that follows a volume under a transform of the volume, or none.

    It keeps its local place. Where the volume's transform was hardened, which moves its voxels and
    takes the transform away, the node's is hardened too: it keeps its place in the world.
    """
    if was_hardened(volume, node):
        node.HardenTransform()
    put_under(transform, node)
    node.SetAttribute(GEOMETRY, " ".join(f"{x:.9g}" for x in _ijk_to_ras(volume).ravel()))
    node.SetAttribute(UNDER, "no" if transform is None else "yes")


def has_lost_transform(volume: Any, node: Any) -> bool:
    """Whether a node that follows a volume lies under no transform any more, but the volume does.

    It was hardened, or taken from the transform, without the volume.
    """
    both = node.GetParentTransformNode(), volume.GetParentTransformNode()
    return both[0] is None and both[1] is not None and node.GetAttribute(UNDER) == "yes"


def follow_parent(volume: Any, node: Any) -> None:
    """`follow` a volume under its transform, whatever that is; without a volume there is none."""
    if volume is None:
        put_under(None, node)
    else:
        follow(volume, node, volume.GetParentTransformNode())


def was_hardened(volume: Any, node: Any) -> bool:
    """Whether a volume's transform, which a node that follows it still has, was hardened."""
    if node.GetTransformNodeID() in (None, volume.GetTransformNodeID()):
        return False
    return geometry_changed(volume, node)


def geometry_changed(volume: Any, node: Any) -> bool:
    """Whether a volume's voxels lie elsewhere than when a node that follows it last followed."""
    known = node.GetAttribute(GEOMETRY)
    if not known:
        return False
    before = np.array(known.split(), float).reshape(4, 4)
    return not np.allclose(before, _ijk_to_ras(volume), rtol=0, atol=SAME_GEOMETRY)


def _ijk_to_ras(volume: Any) -> FloatArray:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


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
