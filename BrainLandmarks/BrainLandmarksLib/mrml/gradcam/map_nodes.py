"""Grad-CAM maps of a volume as volume nodes of a Slicer scene.

They lie in the folder of the volume's landmarks and carry the volume's transform, so they follow
it. Each says whose map it is, of which model and layer.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import slicer
import slicer.util

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import ImageArray
from BrainLandmarksLib.mrml.folder import ROLE, VOLUME, folder_of, put_into
from BrainLandmarksLib.mrml.gradcam.color import map_colors
from BrainLandmarksLib.mrml.placing import (
    follow,
    linear_transform_of,
    local_matrix,
    on_moved,
    was_hardened,
)

MAP = "map"
KEY = "BrainLandmarks.map"
"""Attribute of a map's node: labels, model and layer, as JSON."""

SLOT = "BrainLandmarks.slot"
"""Attribute of a node that takes the next map that is shown; nodes without it stay as they are."""


def is_map(node: Any) -> bool:
    """Whether a volume node is a map, and no scan."""
    return node is not None and node.GetAttribute(ROLE) == MAP


def first_scan() -> Any:
    """The first scalar volume of the scene that is no map, or None."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    scans = (n for n in nodes if n.GetClassName() == "vtkMRMLScalarVolumeNode" and not is_map(n))
    return next(scans, None)


class MapNodes:
    """The map nodes of one volume.

    >>> nodes = MapNodes(volume)
    >>> node = nodes.put(data, grid, labels=("CC_G",), model="brain88", layer="stages.2.2.conv2")

    Args:
        volume: The vtkMRMLScalarVolumeNode that was explained.
    """

    def __init__(self, volume: Any) -> None:
        self.volume = volume
        self._observed = on_moved(volume, self._moved)
        if any(was_hardened(volume, node) for node in self.all):
            self._moved(volume, "")

    def close(self) -> None:
        """Stop listening to the volume; the nodes stay."""
        for tag in self._observed:
            self.volume.RemoveObserver(tag)
        self._observed.clear()

    @property
    def all(self) -> list[Any]:
        """The nodes, in the order in which they were made."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return [n for n in nodes if is_map(n) and n.GetNodeReference(VOLUME) is self.volume]

    def put(
        self,
        data: ImageArray,
        grid: Grid,
        *,
        name: str,
        labels: tuple[str, ...],
        model: str,
        layer: str,
        slot: str = "",
    ) -> Any:
        """Put a map into the scene; returns its vtkMRMLScalarVolumeNode.

        A node that holds this map already gets the new values; else the node of the slot does.

        Args:
            data: (N, N, N), 0 to 1.
            grid: Where its voxels lie, world RAS mm.
            name: For the node.
            slot: Name of a place for one map after another; empty for a node of its own.
        """
        key = json.dumps({"labels": list(labels), "model": model, "layer": layer})
        nodes = self.all
        node = next((n for n in nodes if n.GetAttribute(KEY) == key), None)
        if node is None and slot:
            node = next((n for n in nodes if n.GetAttribute(SLOT) == slot), None)
        if node is None:
            node = self._new(name)
            if slot:
                node.SetAttribute(SLOT, slot)
        elif not slot:
            node.RemoveAttribute(SLOT)
        before = node.StartModify()
        try:
            node.SetName(name)
            node.SetAttribute(KEY, key)
            slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(data.transpose(2, 1, 0)))
            self._place(node, grid.affine)
        finally:
            node.EndModify(before)
        return node

    def _new(self, name: str) -> Any:
        scene = slicer.mrmlScene
        node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        node.SetName(name)
        node.SetAttribute(ROLE, MAP)
        scene.AddNode(node)
        put_into(folder_of(self.volume), node)
        node.SetNodeReferenceID(VOLUME, self.volume.GetID())
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(map_colors().GetID())
        display.SetAutoWindowLevel(0)
        display.SetWindowLevelMinMax(0.0, 1.0)
        display.SetAutoThreshold(0)
        display.SetInterpolate(1)
        return node

    def _place(self, node: Any, affine: FloatArray) -> None:
        """Put a node's voxels where they are in the world, under the volume's transform."""
        transform = linear_transform_of(self.volume)
        follow(self.volume, node, transform)
        node.SetIJKToRASMatrix(local_matrix(transform, affine))

    def _moved(self, _volume: Any, _event: str) -> None:
        """The volume got another transform: the maps follow."""
        for node in self.all:
            follow(self.volume, node, linear_transform_of(self.volume))
