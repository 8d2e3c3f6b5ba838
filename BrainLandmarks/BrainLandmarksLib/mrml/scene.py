"""Taking nodes out of the scene."""

from __future__ import annotations

from typing import Any


def remove(node: Any) -> None:
    """Take a node out of its scene, with its display nodes and the node of its file.

    Slicer's views go on drawing the points of a list whose display node is left behind.
    """
    scene = node.GetScene()
    shown = node.IsA("vtkMRMLDisplayableNode")  # a table is not
    count = node.GetNumberOfDisplayNodes() if shown else 0
    displays = [node.GetNthDisplayNode(n) for n in range(count)]
    for other in (*displays, node.GetStorageNode()):
        if other is not None:
            scene.RemoveNode(other)
    scene.RemoveNode(node)
