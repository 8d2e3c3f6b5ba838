"""`slicer.app.coreIOManager()`: reads and writes files with the real logics and storage nodes."""

from __future__ import annotations

import os

import slicer
import vtk
from PySide6 import QtCore

from .pythonqt import cpp

TYPES = {
    ".mrk.json": "MarkupsFile",
    ".fcsv": "MarkupsFile",
    ".mrb": "SceneFile",
    ".mrml": "SceneFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
}
LABEL_MAP, SINGLE_FILE = 1, 8  # vtkSlicerVolumesLogic::LoadingOptions


@cpp
class qSlicerCoreIOManager(QtCore.QObject):
    """Volumes, markups and scenes; whatever else has a storage node can be written."""

    def __init__(self, logics):
        super().__init__()
        self._logics = logics

    def fileType(self, name):
        return next((t for ending, t in TYPES.items() if str(name).lower().endswith(ending)), "")

    def loadNodes(self, kind, properties, loaded=None, messages=None):
        path = properties["fileName"]
        name = properties.get("name") or os.path.basename(path).split(".")[0]
        if not os.path.exists(path):
            return False
        if kind == "SceneFile":
            return self._load_scene(path, properties.get("clear", False))
        node = None
        if kind == "VolumeFile":
            options = LABEL_MAP * bool(properties.get("labelmap"))
            options += SINGLE_FILE * bool(properties.get("singleFile"))
            logic = self._logics["Volumes"]
            node = logic.AddArchetypeVolume(path, name, options, vtk.vtkStringArray())
            if node and properties.get("show", True):
                application = logic.GetMRMLApplicationLogic()
                application.GetSelectionNode().SetActiveVolumeID(node.GetID())
                application.PropagateVolumeSelection(1)
        elif kind == "MarkupsFile":
            ids = self._logics["Markups"].LoadMarkups(path, name)
            node = slicer.mrmlScene.GetNodeByID(ids.split(",")[0]) if ids else None
        if node is not None and loaded is not None:
            loaded.AddItem(node)
        return node is not None

    @staticmethod
    def _load_scene(path, clear):
        scene = slicer.mrmlScene
        if clear:
            scene.Clear(False)
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, False))
        scene.SetURL(path)
        return bool(scene.Import())

    def saveNodes(self, kind, properties, messages=None):
        path, scene = properties["fileName"], slicer.mrmlScene
        if kind != "SceneFile":
            return self.exportNodes([properties["nodeID"]], [path], properties, keep=True)
        if path.endswith(".mrb"):
            return bool(scene.WriteToMRB(path, None))
        scene.SetURL(path)
        scene.SetRootDirectory(os.path.dirname(path))
        return bool(scene.Commit())

    def exportNodes(self, ids, paths, properties, harden=False, messages=None, keep=False):
        for node_id, path in zip(ids, paths):
            node = slicer.mrmlScene.GetNodeByID(node_id)
            if keep and node.GetStorageNode() is None:
                node.AddDefaultStorageNode(path)
            storage = node.GetStorageNode() if keep else node.CreateDefaultStorageNode()
            storage.SetScene(slicer.mrmlScene)
            storage.SetFileName(path)
            if not storage.WriteData(node):
                return False
        return True

    def fileWriterFileType(self, node):
        return "NodeFile"

    def fileWriterExtensions(self, node):
        storage = node.CreateDefaultStorageNode()
        storage.SetScene(slicer.mrmlScene)
        formats = storage.GetSupportedWriteFileTypes()
        return tuple(formats.GetValue(i) for i in range(formats.GetNumberOfValues()))

    def extractKnownExtension(self, name, node):
        find = slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString
        endings = [find(entry) for entry in self.fileWriterExtensions(node)]
        return max((e for e in endings if str(name).lower().endswith(e)), key=len, default="")
