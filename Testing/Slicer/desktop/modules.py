"""Scripted modules: from a .py file to its entry in `slicer.modules` and its panel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer
from PySide6 import QtCore, QtWidgets

from . import errors
from .pythonqt import PythonQtError, stored
from .widgets import qSlicerWidget, widget

Property = QtCore.Property


@widget
class qSlicerScriptedLoadableModule(QtCore.QObject):
    """The module as the application sees it: what its Python class gets as `parent`."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._name, self._path, self._panel = "", "", None

    name = Property(str, lambda s: s._name)
    path = Property(str, lambda s: s._path)
    title, helpText = stored("title", str, ""), stored("helpText", str, "")
    acknowledgementText = stored("acknowledgementText", str, "")
    categories = stored("categories", "QStringList", ())
    contributors = stored("contributors", "QStringList", ())
    dependencies = stored("dependencies", "QStringList", ())
    associatedNodeTypes = stored("associatedNodeTypes", "QStringList", ())
    hidden, index = stored("hidden", bool, False), stored("index", int, -1)
    icon = stored("icon", "QVariant", None)
    widgetRepresentationCreationEnabled = stored("widgetRepresentationCreationEnabled", bool, True)

    def logic(self):
        return None

    def widgetRepresentation(self):
        if self._panel is None and self.widgetRepresentationCreationEnabled:
            self._panel = self.createNewWidgetRepresentation()
        return self._panel

    def createNewWidgetRepresentation(self):
        panel = qSlicerScriptedLoadableModuleWidget()
        panel._module = self
        panel.reload()
        return panel


@widget
class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """The panel: what the Python widget class of a module gets as `parent`."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._self, self._entered, self._module = None, False, None
        QtWidgets.QVBoxLayout(self)
        self.setMRMLScene(slicer.mrmlScene)

    isEntered = Property(bool, lambda s: s._entered)

    def self(self):
        return self._self

    def reload(self):
        name = self._module.name
        self._self = getattr(sys.modules[name], name + "Widget")(self)
        setattr(slicer.modules, name + "Widget", self._self)
        try:
            self._self.setup()
        except Exception as error:  # printed, and the panel is entered and left all the same
            errors.report(error)

    def enter(self):
        self._entered = True
        getattr(self._self, "enter", lambda: None)()

    def exit(self):
        self._entered = False
        getattr(self._self, "exit", lambda: None)()


def load(path: str | Path) -> qSlicerScriptedLoadableModule:
    """Import a module's file and enter it as Slicer does at its start; no panel is made yet."""
    path = Path(path).resolve()
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    if not hasattr(source, name):
        raise PythonQtError(f"{path} does not define a class named {name}")
    module = qSlicerScriptedLoadableModule()
    module._name, module._path = name, str(path)
    setattr(slicer.modules, name + "Instance", getattr(source, name)(module))
    module.widgetRepresentationCreationEnabled = hasattr(source, name + "Widget")
    slicer.app.moduleManager()._add(module)
    return module


def unload(module: qSlicerScriptedLoadableModule) -> None:
    """Leave a module as Slicer does when it closes: exit, cleanup, and nothing remains."""
    name = module.name
    selector = slicer.util.mainWindow().moduleSelector()
    if selector.selectedModule == name:
        selector.selectModule("")
    slicer.app.moduleManager()._remove(name)
    if module._panel is not None:
        module._panel.deleteLater()
        delattr(slicer.modules, name + "Widget")
    delattr(slicer.modules, name + "Instance")
    sys.modules.pop(name, None)
    slicer.app.processEvents()
