"""Slicer's real core without the application: a scene, its logics, and what the application adds.

`slicer-core` is the C++ of Slicer with its Python wrapping and no Qt. The application does three
things with it in Qt code, which are done here in the same way: it registers the logics in a certain
order, gives the scene its file access, and puts every new node into the subject hierarchy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import slicer
import slicer.util
import vtk

LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Plots": "vtkSlicerPlotsLogic",
}
"""Module to logic class; a node class is known once the logic that registers it has the scene."""

OWNERS = {
    "vtkMRMLMarkupsNode": "Markups",
    "vtkMRMLSegmentationNode": "Segmentations",
    "vtkMRMLVolumeNode": "Volumes",
    "vtkMRMLTransformNode": "Transforms",
}
"""Node class to the subject hierarchy plug-in that owns its item."""


class Core:
    """One scene with its logics; there is one for the whole process."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="slicer-core-")
        cache = Path(self.folder.name) / "cache"
        cache.mkdir()
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetTemporaryPath(self.folder.name)
        self.remote_io = slicer.vtkMRMLRemoteIOLogic()
        self.remote_io.GetCacheManager().SetRemoteCacheDirectory(str(cache))
        self.data_io = slicer.vtkDataIOManagerLogic()
        self.data_io.SetMRMLApplicationLogic(self.application)
        self.data_io.SetAndObserveDataIOManager(self.remote_io.GetDataIOManager())

        self.scene = slicer.vtkMRMLScene()
        self.scene.SetRootDirectory(self.folder.name)
        slicer.mrmlScene = self.scene
        self.application.SetMRMLScene(self.scene)
        self.application.SetMRMLSceneDataIO(self.scene, self.remote_io, self.data_io)
        self.logics = {}
        for name, kind in LOGICS.items():
            logic = getattr(slicer, kind)()
            logic.SetMRMLApplicationLogic(self.application)
            self.application.SetModuleLogic(name, logic)
            logic.SetMRMLScene(self.scene)
            self.logics[name] = logic
        self.application.SetColorLogic(self.logics["Colors"])
        self.logics["Colors"].AddDefaultColorNodes()
        self.scene.AddObserver(self.scene.NodeAddedEvent, self._node_added)
        self.scene.AddObserver(self.scene.NodeAboutToBeRemovedEvent, self._node_removed)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_added(self, scene, event, node) -> None:
        if scene.IsImporting() or node is None or node.GetHideFromEditors():
            return
        owner = next((o for kind, o in OWNERS.items() if node.IsA(kind)), None)
        tree = scene.GetSubjectHierarchyNode()
        if owner and tree and not tree.GetItemByDataNode(node):
            item = tree.CreateItem(tree.GetSceneItemID(), node)
            tree.SetItemOwnerPluginName(item, owner)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, scene, event, node) -> None:
        tree = None if scene.IsClosing() else scene.GetSubjectHierarchyNode()
        item = tree.GetItemByDataNode(node) if tree and node is not tree else 0
        if item:
            tree.RemoveItem(item, False, False)
