"""A volume and its landmarks brought onto another head's, by a transform node of the scene.

>>> aligned = align(volume, other, "rigid")
>>> aligned.node                    # a vtkMRMLTransformNode; the volume lies under it
>>> undo_alignment(volume)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.mrml.folder import ROLE, VOLUME, folder_of, put_into
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.placing import local_matrix, put_under
from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration.register import Registration, field_grid, register

ALIGNMENT = "alignment"
"""`folder.ROLE` of the transform node."""

TARGET = "BrainLandmarks.target"
"""Reference of the transform node to the volume that it aligns with."""

_INVERSE_MM = 1e-5


@dataclass(frozen=True)
class Aligned:
    """A volume aligned with another: the transform node, and how exact it is."""

    node: Any
    registration: Registration


def alignment_of(volume: Any) -> Any:
    """The transform node that `align` has made for a volume, and that it lies under, or None.

    One that was hardened, or that the volume was taken from, is a transform as any other.
    """
    node = volume.GetParentTransformNode()
    if node is None or node.GetAttribute(ROLE) != ALIGNMENT:
        return None
    return node if node.GetNodeReference(VOLUME) is volume else None


def align(
    volume: Any,
    other: Any,
    kind: str = "rigid",
    errors: LandmarkErrors | None = None,
    other_errors: LandmarkErrors | None = None,
) -> Aligned:
    """Bring a volume and its landmarks onto another volume's; an earlier alignment is replaced.

    The new transform comes between the volume and the transform it had.

    Args:
        volume, other: vtkMRMLScalarVolumeNode with landmarks.
        kind: One of `register.KINDS`.
        errors, other_errors: Of the models that found the landmarks of each; None if unknown.

    Raises:
        UserError: one of them has no landmarks, they do not fit, or the volume is warped already.
    """
    if volume is other:
        raise UserError("this is the volume itself; choose another one to align it with.")
    moving, fixed = landmarks_of(volume), landmarks_of(other)
    found = register(moving, fixed, kind, errors, other_errors)
    earlier, outer = alignment_of(volume), volume.GetParentTransformNode()
    if earlier is not None:
        outer = earlier.GetParentTransformNode()
    if outer is not None and not outer.IsTransformToWorldLinear():
        raise UserError("the volume has a warping transform; harden it first.")
    if earlier is not None:
        # Only now, when it is known that they fit; the head lies elsewhere without it.
        _put(volume, outer)
        try:
            found = register(landmarks_of(volume), fixed, kind, errors, other_errors)
        except UserError:
            _put(volume, earlier)
            raise
        remove(earlier)
    node = _linear_node(found, outer) if found.plate is None else _grid_node(found, outer)
    node.SetName(f"{volume.GetName()} to {other.GetName()}")
    node.SetAttribute(ROLE, ALIGNMENT)
    node.SetNodeReferenceID(VOLUME, volume.GetID())
    node.SetNodeReferenceID(TARGET, other.GetID())
    put_under(outer, node)
    put_into(folder_of(volume), node)
    _put(volume, node)
    return Aligned(node, found)


def undo_alignment(volume: Any) -> None:
    """Take an alignment away; the volume and its landmarks lie where they lay before.

    Raises:
        UserError: there is none, or the volume lies under it no more.
    """
    node = alignment_of(volume)
    if node is None:
        raise UserError(
            "this volume does not lie under an alignment; one that was hardened, or that it was "
            "taken from, cannot be undone here."
        )
    _put(volume, node.GetParentTransformNode())
    remove(node)


def landmarks_of(volume: Any) -> LandmarkSet:
    """The landmarks of a volume as they are in its lists, world RAS mm, with their confidences.

    Raises:
        UserError: it has none.
    """
    nodes = LandmarkNodes.of_volume(volume) if volume is not None else None
    if nodes is None:
        name = "no volume is chosen" if volume is None else f"{volume.GetName()} has no landmarks"
        raise UserError(f"{name}; detect or load some first.")
    review, _ = nodes.restore()
    return review.current


def _put(volume: Any, transform: Any) -> None:
    """Put a volume under a transform, and its landmarks, if nobody else does it."""
    nodes = LandmarkNodes.of_volume(volume)
    if nodes is not None:
        nodes.settle()
    put_under(transform, volume)
    if nodes is not None:
        nodes.follow_volume()


def _linear_node(found: Registration, outer: Any) -> Any:
    """A linear transform node: the same motion, seen from under the transform outside of it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    into = _matrix(local_matrix(outer, np.eye(4)))
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((into @ found.affine @ np.linalg.inv(into)).ravel())
    node.SetMatrixTransformToParent(matrix)
    return node


def _grid_node(found: Registration, outer: Any) -> Any:
    """A grid transform node; a grid carries from the fixed space back into the moving one."""
    into = _matrix(local_matrix(outer, np.eye(4)))
    grid = field_grid(found.fixed)
    at = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    shift = (found.back(at) - at) @ into[:3, :3].T
    image = vtk.vtkImageData()
    image.SetDimensions(*grid.shape)
    vectors = numpy_to_vtk(np.ascontiguousarray(shift.transpose(2, 1, 0, 3).reshape(-1, 3)), 1)
    vectors.SetName("displacement")
    image.GetPointData().SetScalars(vectors)
    place = into @ grid.affine
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    image.SetSpacing(*map(float, spacing))
    image.SetOrigin(*map(float, place[:3, 3]))
    directions = np.eye(4)
    directions[:3, :3] = place[:3, :3] / spacing
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(directions.ravel())
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetGridDirectionMatrix(matrix)
    transform.SetInterpolationModeToCubic()
    transform.SetInverseTolerance(_INVERSE_MM)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    node.SetAndObserveTransformFromParent(transform)
    return node


def _matrix(matrix: Any) -> FloatArray:
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
