"""The folder beside a volume in the subject hierarchy: landmarks, parcellation and maps."""

from __future__ import annotations

from typing import Any

import slicer
import slicer.util

ROLE = "BrainLandmarks.role"
"""Attribute that says what a node of ours is: "landmarks" (the node that holds a volume's lists
together), "parcellation" or "map"."""

VOLUME = "BrainLandmarks.volume"
"""Reference of our nodes to the volume that they belong to."""


def folder_of(volume: Any) -> int:
    """Item of the volume's folder; a new one, beside the volume, if none of our nodes is in one."""
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    for kind in (
        "vtkMRMLMarkupsFiducialNode",
        "vtkMRMLSegmentationNode",
        "vtkMRMLScalarVolumeNode",
    ):
        for node in slicer.util.getNodesByClass(kind):
            if node.GetNodeReference(VOLUME) is volume:
                parent = tree.GetItemParent(tree.GetItemByDataNode(node))
                if parent and parent != tree.GetSceneItemID():
                    return int(parent)
    item = tree.GetItemByDataNode(volume)
    parent = tree.GetItemParent(item) if item else tree.GetSceneItemID()
    return int(tree.CreateFolderItem(parent, f"{volume.GetName()} landmarks"))


def put_into(folder: int, node: Any) -> None:
    """Put a node of the scene into a folder."""
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = tree.GetItemByDataNode(node)
    # In the application a plug-in has made the item; without it nobody has.
    if item:
        tree.SetItemParent(item, folder)
    else:
        tree.CreateItem(folder, node)
