"""Taking nodes out of the scene."""

from __future__ import annotations

from typing import Any


def remove(node: Any) -> None:
    """Take a node out of its scene, with its display nodes and the node of its file.

    Slicer's views go on drawing the points of a list whose display node is left behind.
    """
    scene = node.GetScene()
    displays = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    for other in (*displays, node.GetStorageNode()):
        if other is not None:
            scene.RemoveNode(other)
    scene.RemoveNode(node)
