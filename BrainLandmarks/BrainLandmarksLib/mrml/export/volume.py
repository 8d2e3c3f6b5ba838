"""From a volume node to a file that the worker reads, or to the library's own volume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_write

_NRRD_TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "float32": "float",
    "float64": "double",
}


def export_volume(node: Any, path: str | os.PathLike[str]) -> None:
    """Write a scalar volume node as an uncompressed NRRD file, where it is in the world.

    The voxels are those in memory, not the user's file, and parent transforms are applied: linear
    ones to the header, others by resampling a copy.

    Args:
        node: vtkMRMLScalarVolumeNode.
        path: ``.nrrd`` file.

    Raises:
        UserError: no volume, an empty one, one with several components, or the file cannot be
            written.
    """
    if node is None or node.GetImageData() is None:
        raise UserError("there is no volume; load an MRI of a head and select it.")
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        raise UserError(
            "the volume has several values per voxel (colour or 4-D); select a T1 volume."
        )
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        _export_warped(node, path)
        return
    _write_nrrd(path, slicer.util.arrayFromVolume(node), world_affine(node))


def world_affine(node: Any) -> FloatArray:
    """4x4 affine from a volume node's voxels to world RAS mm; its transforms must be linear."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    transform = node.GetParentTransformNode()
    if transform is not None:
        to_world = vtk.vtkMatrix4x4()
        transform.GetMatrixTransformToWorld(to_world)
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def world_volume(node: Any) -> Volume:
    """A volume node as the library's volume: a view of its voxels, where they are in the world.

    Raises:
        UserError: it was deleted, is empty, or its transform is not linear.
    """
    if node is None or node.GetImageData() is None:
        raise UserError("the volume of these landmarks is no longer there; load it again.")
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise UserError("the volume has a warping transform; harden it first.")
    kji = slicer.util.arrayFromVolume(node)
    return Volume(kji.transpose(2, 1, 0), Grid(kji.shape[::-1], world_affine(node)))


def _export_warped(node: Any, path: str | os.PathLike[str]) -> None:
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    try:
        copy.CopyContent(node)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        if not copy.HardenTransform():
            raise UserError("the volume's transform cannot be applied; harden it first.")
        export_volume(copy, path)
    finally:
        slicer.mrmlScene.RemoveNode(copy)


def _write_nrrd(path: str | os.PathLike[str], kji: np.ndarray, affine: np.ndarray) -> None:
    if kji.size == 0 or min(kji.shape) < 1:
        raise UserError("the volume is empty; load it again.")
    if kji.dtype.name not in _NRRD_TYPES:
        kji = kji.astype(np.float32)
    data = np.ascontiguousarray(kji)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    # NRRD counts the fastest axis first, as IJK does; the array's order is K, J, I.
    directions = " ".join(
        "(" + ",".join(f"{v:.17g}" for v in affine[:3, k]) + ")" for k in range(3)
    )
    header = "\n".join(
        [
            "NRRD0004",
            f"type: {_NRRD_TYPES[data.dtype.name]}",
            "dimension: 3",
            "space: right-anterior-superior",
            "sizes: " + " ".join(str(n) for n in data.shape[::-1]),
            f"space directions: {directions}",
            "kinds: domain domain domain",
            "endian: little",
            "encoding: raw",
            "space origin: (" + ",".join(f"{v:.17g}" for v in affine[:3, 3]) + ")",
            "",
            "",
        ]
    )
    with atomic_write(Path(path)) as unfinished, unfinished.open("wb") as file:
        file.write(header.encode("ascii"))
        data.tofile(file)
