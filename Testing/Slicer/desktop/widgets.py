"""The widgets of CTK and Slicer that the modules use, under their true C++ names.

WIDGETS is the whole table: a class, property, signal or slot that is not written here does not
exist. Names of ours begin with an underscore. ABSENT names classes that the real
parameterNodeWrapper asks for; they exist and cannot be made.
"""

from __future__ import annotations

import os
import re

import shiboken6
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .pythonqt import cpp, stored

Property, Signal, QWidget = QtCore.Property, QtCore.Signal, QtWidgets.QWidget
HEADER = 24

WIDGETS: dict[str, type] = {}
ABSENT = {
    "ctk": "ctkCheckablePushButton ctkDoubleSlider ctkDoubleSpinBox ctkRangeWidget"
    " ctkDoubleRangeSlider ctkColorPickerButton",
    "slicer": "qMRMLSliderWidget qMRMLSpinBox qMRMLRangeWidget qSlicerSimpleMarkupsWidget"
    " qMRMLSubjectHierarchyTreeView qMRMLSubjectHierarchyComboBox",
}


def widget(cls):
    """Enter a class into the table."""
    WIDGETS[cls.__name__] = cpp(cls)
    return cls


# ---- CTK ----------------------------------------------------------------------------------------


@widget
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A box whose header hides and shows what is in it."""

    contentsCollapsed = Signal(bool)
    CPP_SIGNALS = ("contentsCollapsed(bool)",)

    def __init__(self, *values):
        text = values[0] if values and isinstance(values[0], str) else ""
        parent = values[-1] if values and not isinstance(values[-1], str) else None
        super().__init__(parent)
        self._folded = []
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._toggle)
        self.setContentsMargins(4, HEADER, 4, 4)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)

    def _fold(self, shown):
        parts = [child for child in self.children() if isinstance(child, QWidget)]
        if not shown:
            self._folded += [part for part in parts if not part.isHidden()]
        for part in self._folded:
            part.setVisible(shown)
        if shown:
            self._folded = []
        self.updateGeometry()

    def _toggle(self, shown):
        self._fold(shown)
        self.contentsCollapsed.emit(not shown)

    def showEvent(self, event):
        if not self.checked:  # what was put into it while it was collapsed
            self._fold(False)

    collapsed = Property(bool, lambda s: not s.checked, lambda s, value: s.setChecked(not value))

    def hitButton(self, place):
        return place.y() < HEADER

    def sizeHint(self):
        layout = self.layout()
        inner = layout.totalSizeHint() if layout else QtCore.QSize(120, HEADER)
        return QtCore.QSize(max(inner.width(), 120), inner.height() if self.checked else HEADER)

    minimumSizeHint = sizeHint

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        painter.fillRect(0, 0, self.width, HEADER - 2, self.palette.color(QtGui.QPalette.Midlight))
        arrow = "\u25be" if self.checked else "\u25b8"
        painter.drawText(8, HEADER - 8, f"{arrow}  {self.text.replace('&&', '&')}")
        if self.checked:
            painter.setPen(self.palette.color(QtGui.QPalette.Mid))
            painter.drawRect(0, HEADER - 2, self.width - 1, self.height - HEADER + 1)
        painter.end()


@widget
class ctkPathLineEdit(QWidget):
    """A file or folder, typed or chosen.

    As in CTK the text decides: writing it again moves the cursor to the end, a text that the
    validator refuses (without name filters, the empty one) is no path and nobody hears of it but by
    validInputChanged, and what the button asks for is a matter of `filters`: files, unless they are
    left out.
    """

    validInputChanged, currentPathChanged = Signal(bool), Signal(str)
    CPP_SIGNALS = ("validInputChanged(bool)", "currentPathChanged(QString)")
    Dirs, Files, Drives, NoSymLinks, AllEntries = 1, 2, 4, 8, 7
    Readable, Writable, Executable, Hidden = 0x10, 0x20, 0x40, 0x100
    NoDotAndDotDot = 0x1000
    DEFAULT = AllEntries | Readable | Executable | 0x6000  # QDir's NoDotAndDotDot is another one

    def __init__(self, parent=None):
        super().__init__(parent)
        self._valid = False
        self._line, self._button = QtWidgets.QLineEdit(self), QtWidgets.QToolButton(self)
        self._validate()
        self._line.textChanged.connect(self._changed)
        self._button.setText("...")
        self._button.clicked.connect(self.browse)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line, 1)
        row.addWidget(self._button)
        self.setFocusProxy(self._line)

    def _validate(self):
        words = " ".join(re.findall(r"\(([^)]*)\)", " ".join(self.nameFilters))).split()
        endings = [match[1] for word in words if (match := re.search(r"\*\.(\w+)", word))]
        # The question mark is CTK's.
        pattern = "|".join(rf".*\.{ending}?$" for ending in endings)
        self._pattern = QtCore.QRegularExpression(f"({pattern})" if endings else ".+")
        self._line.setValidator(QtGui.QRegularExpressionValidator(self._pattern, self))

    def _changed(self, text):
        before, self._valid = self._valid, self._line.hasAcceptableInput()
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)

    def setCurrentPath(self, path):
        self._line.setText(path)

    def browse(self):
        dialog, filters = QtWidgets.QFileDialog, self.filters
        if not filters & self.Files:
            path = dialog.getExistingDirectory(self)
        elif filters & self.Writable:
            path = dialog.getSaveFileName(self)
        else:
            path = dialog.getOpenFileName(self)
        if path:
            self.setCurrentPath(path)

    def addCurrentPathToHistory(self):
        pass

    def retrieveHistory(self):
        pass

    currentPath = Property(str, lambda s: s._line.text, setCurrentPath)
    filters = stored("filters", int, DEFAULT)
    nameFilters = stored("nameFilters", "QStringList", (), _validate)
    settingKey, label = stored("settingKey", str, ""), stored("label", str, "")
    showHistoryButton = stored("showHistoryButton", bool, True)
    showBrowseButton = stored(
        "showBrowseButton", bool, True, lambda s: s._button.setVisible(s.showBrowseButton)
    )


@widget
class ctkDirectoryButton(QWidget):
    """A folder, on a button that asks for another; there is always one, and it cannot be typed."""

    directoryChanged, directorySelected = Signal(str), Signal(str)
    CPP_SIGNALS = ("directoryChanged(QString)", "directorySelected(QString)")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._directory, self._button = ".", QtWidgets.QPushButton(self)
        self._button.clicked.connect(self.browse)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._button)
        self._label()

    def _label(self):
        self._button.setText(self.text or os.path.abspath(self._directory))

    def _choose(self, path):
        path = os.path.abspath(path or ".")
        if path != os.path.abspath(self._directory):
            self._directory = path
            self._label()
            self.directorySelected.emit(path)
            self.directoryChanged.emit(path)
        else:
            self.directorySelected.emit(path)

    def browse(self):
        caption = self.caption or self.toolTip
        path = QtWidgets.QFileDialog.getExistingDirectory(self, caption, self._directory)
        if path:
            self._choose(path)
        return path

    directory = Property(str, lambda s: s._directory, _choose)
    caption, text = stored("caption", str, ""), stored("text", str, "", lambda s: s._label())


@widget
class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box."""


@widget
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that can show a text while nothing is chosen."""

    defaultText = stored("defaultText", str, "", lambda s: s.setPlaceholderText(s.defaultText))


@widget
class ctkSliderWidget(QWidget):
    """A slider and a box with its number."""

    valueChanged, valueIsChanging = Signal(float), Signal(float)
    CPP_SIGNALS = ("valueChanged(double)", "valueIsChanging(double)")
    STEPS = 1000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._line = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._line.setRange(0, self.STEPS)
        self._box = QtWidgets.QDoubleSpinBox(self)
        self._box.setRange(0.0, 99.99)
        self._line.sliderMoved.connect(self._dragged)
        self._box.valueChanged.connect(self._changed)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line, 1)
        row.addWidget(self._box)

    def _dragged(self, step):
        self._box.setValue(self.minimum + step / self.STEPS * (self.maximum - self.minimum))

    def _changed(self, value):
        span = self.maximum - self.minimum
        self._line.setValue(round(self.STEPS * (value - self.minimum) / span) if span else 0)
        self.valueChanged.emit(value)

    def setValue(self, value):
        self._box.setValue(value)

    def setRange(self, low, high):
        self._box.setRange(low, high)

    value = Property(float, lambda s: s._box.value, setValue)
    minimum = Property(float, lambda s: s._box.minimum, lambda s, v: s._box.setMinimum(v))
    maximum = Property(float, lambda s: s._box.maximum, lambda s, v: s._box.setMaximum(v))
    singleStep = Property(float, lambda s: s._box.singleStep, lambda s, v: s._box.setSingleStep(v))
    decimals = Property(int, lambda s: s._box.decimals, lambda s, v: s._box.setDecimals(v))


# ---- Slicer -------------------------------------------------------------------------------------


class _SceneWidget:
    """What qMRMLWidget and qSlicerWidget have in common."""

    _scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@widget
class qMRMLWidget(_SceneWidget, QWidget):
    """A widget that passes the scene on to those in it."""

    mrmlSceneChanged = Signal(object)
    CPP_SIGNALS = ("mrmlSceneChanged(vtkMRMLScene*)",)


@widget
class qSlicerWidget(_SceneWidget, QWidget):
    """The same in Slicer's own library."""

    mrmlSceneChanged = Signal(object)
    CPP_SIGNALS = ("mrmlSceneChanged(vtkMRMLScene*)",)


@widget
class qMRMLNodeComboBox(QWidget):
    """The nodes of some classes, to choose one from; it keeps itself in step with the scene.

    As in Slicer a node that is added is not chosen by itself; when the chosen one is removed, its
    neighbour is, unless "None" can be.
    """

    currentNodeChanged, _currentNodeChanged = Signal(object), Signal(bool)
    currentNodeIDChanged, currentNodeRenamed = Signal(str), Signal(str)
    nodeActivated, nodeAdded = Signal(object), Signal(object)
    nodeAddedByUser, nodeAboutToBeRemoved = Signal(object), Signal(object)
    CPP_SIGNALS = (
        "currentNodeChanged(vtkMRMLNode*)",
        "currentNodeChanged(bool)",
        "currentNodeIDChanged(QString)",
        "currentNodeRenamed(QString)",
        "nodeActivated(vtkMRMLNode*)",
        "nodeAdded(vtkMRMLNode*)",
        "nodeAddedByUser(vtkMRMLNode*)",
        "nodeAboutToBeRemoved(vtkMRMLNode*)",
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._observers, self._nodes, self._node = None, [], [], None
        self._requested, self._attributes = None, {}
        self._combo = QtWidgets.QComboBox(self)
        self._combo.activated.connect(self._activated)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self.setEnabled(False)

    # the scene

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is self._scene:
            return
        self._observe(None)
        self._scene = scene
        self._observe(scene)
        self._refresh()
        self.setEnabled(scene is not None)
        if scene is not None and self._requested:
            self.setCurrentNodeID(self._requested)
            self._requested = None

    def _observe(self, scene):
        for subject, tag in self._observers:
            subject.RemoveObserver(tag)
        self._observers = []
        if scene is not None:
            events = {
                scene.NodeAddedEvent: self._added,
                scene.NodeAboutToBeRemovedEvent: self._removed,
                scene.EndCloseEvent: self._changed,
                scene.EndImportEvent: self._changed,
                scene.EndBatchProcessEvent: self._changed,
            }
            self._observers = [(scene, scene.AddObserver(e, f)) for e, f in events.items()]

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _added(self, scene, event, node=None):
        if shiboken6.isValid(self) and not scene.IsBatchProcessing() and self._accepts(node):
            self._refresh()
            self.nodeAdded.emit(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _removed(self, scene, event, node=None):
        if shiboken6.isValid(self) and not scene.IsBatchProcessing() and node in self._nodes:
            self.nodeAboutToBeRemoved.emit(node)
            self._refresh(node)

    def _changed(self, caller, event):
        if shiboken6.isValid(self):
            self._refresh()

    def _renamed(self, node, event):
        if shiboken6.isValid(self) and node in self._nodes:
            row = self._nodes.index(node) + self.noneEnabled
            if self._combo.itemText(row) != node.GetName():
                self._combo.setItemText(row, node.GetName())
                if node is self._node:
                    self.currentNodeRenamed.emit(node.GetName())

    def _accepts(self, node) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        # Not through the property: of a widget that is going, PySide6 may give the property itself.
        for kind in self.__dict__.get("_nodeTypes", ()):
            if node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind:
                return all(
                    node.GetAttribute(name) is not None
                    and (value is None or node.GetAttribute(name) == str(value))
                    for name, value in self._attributes.get(kind, {}).items()
                )
        return False

    def _refresh(self, leaving=None):
        before, scene = self._nodes, self._scene
        every = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene else []
        self._nodes = [n for n in every if n is not leaving and self._accepts(n)]
        for node in self._nodes:
            if node not in before:
                tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._renamed)
                self._observers.append((node, tag))
        self._combo.clear()
        self._combo.addItems([self.noneDisplay] if self.noneEnabled else [])
        self._combo.addItems([node.GetName() or "" for node in self._nodes])
        gone = self._node is not None and self._node not in self._nodes
        if gone and self._nodes and not self.noneEnabled and self._node in before:
            self._select(self._nodes[max(before.index(self._node) - 1, 0)])
        elif gone:
            self._select(None)
        self._show()

    # the choice

    def _show(self):
        known = self._node in self._nodes
        row = self._nodes.index(self._node) + self.noneEnabled if known else self.noneEnabled - 1
        self._combo.setCurrentIndex(row)

    def _select(self, node):
        if node is self._node:
            return
        self._node = node
        self._show()
        self.currentNodeChanged.emit(node)
        self._currentNodeChanged.emit(node is not None)
        self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def _activated(self, row):
        row -= self.noneEnabled
        self._select(self._nodes[row] if row >= 0 else None)
        self.nodeActivated.emit(self._node)

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node):
        if isinstance(node, str):
            self.setCurrentNodeID(node)
        elif self._scene is None:
            self._requested = node.GetID() if node else None
        else:
            self._select(node if node in self._nodes else None)

    def setCurrentNodeID(self, node_id):
        if self._scene is None:
            self._requested = node_id
        else:
            self.setCurrentNode(self._scene.GetNodeByID(node_id) if node_id else None)

    def setCurrentNodeIndex(self, index):
        self._select(self._nodes[index] if 0 <= index < len(self._nodes) else None)

    def nodeCount(self):
        return len(self._nodes)

    def nodeFromIndex(self, index):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    # the nodes

    def addAttribute(self, kind, name, value=None):
        self._attributes.setdefault(kind, {})[name] = value
        self._refresh()

    def removeAttribute(self, kind, name):
        self._attributes.get(kind, {}).pop(name, None)
        self._refresh()

    def addNode(self, kind=None):
        kind = kind or self.nodeTypes[0]
        name = self._scene.GenerateUniqueName(self.baseName or kind[len("vtkMRML") : -len("Node")])
        node = self._scene.AddNewNodeByClass(kind, name)
        for key, value in self._attributes.get(kind, {}).items():
            node.SetAttribute(key, str(value or ""))
        self._refresh()
        if self.selectNodeUponCreation:
            self._select(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self):
        if self._node is not None:
            self._scene.RemoveNode(self._node)

    currentNodeID = Property(str, lambda s: s._node.GetID() if s._node else "", setCurrentNodeID)
    nodeTypes = stored("nodeTypes", "QStringList", (), _refresh)
    noneEnabled = stored("noneEnabled", bool, False, _refresh)
    noneDisplay = stored("noneDisplay", str, "None", _refresh)
    showHidden = stored("showHidden", bool, False, _refresh)
    showChildNodeTypes = stored("showChildNodeTypes", bool, True, _refresh)
    selectNodeUponCreation = stored("selectNodeUponCreation", bool, True)
    addEnabled, removeEnabled = (
        stored("addEnabled", bool, True),
        stored("removeEnabled", bool, True),
    )
    editEnabled = stored("editEnabled", bool, False)
    renameEnabled = stored("renameEnabled", bool, False)
    baseName = stored("baseName", str, "")


class Absent:
    """A class of Slicer that has no stand-in."""

    def __init__(self, *values):
        raise NotImplementedError(f"{type(self).__name__} has no stand-in in {__name__}")


def names_of(library: str) -> dict[str, type]:
    """All classes of `ctk` or of `slicer`: those in the table and those that cannot be made."""
    mine = {n: c for n, c in WIDGETS.items() if n.startswith("ctk") == (library == "ctk")}
    return {**{n: type(n, (Absent,), {}) for n in ABSENT[library].split()}, **mine}
