"""The application: `slicer.app`, its module manager, and the main window with the module panel."""

from __future__ import annotations

from types import SimpleNamespace

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .input_output import qSlicerCoreIOManager
from .pythonqt import cpp

Signal = QtCore.Signal


@cpp
class qSlicerModuleManager(QtCore.QObject):
    """The modules by name."""

    moduleAboutToBeUnloaded, moduleLoaded = Signal(str), Signal(str)
    CPP_SIGNALS = ("moduleAboutToBeUnloaded(QString)", "moduleLoaded(QString)")

    def __init__(self):
        super().__init__()
        self._modules = {}

    def _add(self, module):
        self._modules[module.name] = module
        setattr(slicer.modules, module.name.lower(), module)
        setattr(slicer.moduleNames, module.name, module.name)
        self.moduleLoaded.emit(module.name)

    def _remove(self, name):
        self.moduleAboutToBeUnloaded.emit(name)
        del self._modules[name]
        delattr(slicer.modules, name.lower())
        delattr(slicer.moduleNames, name)

    def module(self, name):
        return self._modules.get(name)

    def modulesNames(self):
        return tuple(self._modules)

    def isLoaded(self, name):
        return name in self._modules

    def factoryManager(self):
        return self

    loadedModuleNames = modulesNames


@cpp
class LogicModule(QtCore.QObject):
    """A C++ module, of which there is only the logic."""

    def __init__(self, name, logic):
        super().__init__()
        self._name, self._logic = name, logic

    name = property(lambda self: self._name)
    title, path = name, ""

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None


@cpp
class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    """Chooses the module whose panel is shown."""

    moduleSelected = Signal(str)
    CPP_SIGNALS = ("moduleSelected(QString)",)

    def __init__(self, area):
        super().__init__()
        self._area, self._current = area, None

    selectedModule = property(lambda self: self._current.name if self._current else "")

    def selectModule(self, name):
        module = slicer.app.moduleManager().module(name) if name else None
        if module is self._current:
            return
        if self._current is not None:
            self._current.widgetRepresentation().exit()
            self._area.takeWidget()
        self._current = module
        if module is not None:
            self._area.setWidget(module.widgetRepresentation())
            module.widgetRepresentation().show()
            module.widgetRepresentation().enter()
        self.moduleSelected.emit(name)


@cpp
class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The window; only the module panel is in it, the views are drawn off screen."""

    def __init__(self):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._area = QtWidgets.QScrollArea()
        self._area.setWidgetResizable(True)
        self._selector = qSlicerModuleSelectorToolBar(self._area)
        self.setCentralWidget(self._area)
        self.resize(460, 760)
        self.statusBar()

    def moduleSelector(self):
        return self._selector


@cpp
class qSlicerApplication(QtCore.QObject):
    """`slicer.app`."""

    startupCompleted, aboutToQuit, mrmlSceneChanged = Signal(), Signal(), Signal(object)
    CPP_SIGNALS = ("startupCompleted()", "aboutToQuit()", "mrmlSceneChanged(vtkMRMLScene*)")
    applicationName = mainApplicationName = "Slicer"
    applicationVersion, majorVersion, minorVersion, revision = "5.12.4-stand-in", 5, 12, "0"
    platform, arch, os = "linux-amd64", "amd64", "linux"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"

    def __init__(self, core, layout):
        super().__init__()
        self._core, self._layout, self._window = core, layout, qSlicerMainWindow()
        self._modules, self._files = qSlicerModuleManager(), qSlicerCoreIOManager(core.logics)
        self._paused, self._headless = 0, False
        self._options, self._on_exit = SimpleNamespace(runPythonAndExit=False), None
        self._settings = QtCore.QSettings()

    temporaryPath = slicerHome = property(lambda self: self._core.folder.name)

    def mrmlScene(self):
        return self._core.scene

    def applicationLogic(self):
        return self._core.application

    def moduleLogic(self, name):
        return self._core.logics.get(name)

    def layoutManager(self):
        return None if self._headless else self._layout

    def topLevelWidgets(self):
        every = QtWidgets.QApplication.topLevelWidgets()
        return tuple(w for w in every if not (self._headless and w is self._window))

    def moduleManager(self):
        return self._modules

    def coreIOManager(self):
        return self._files

    ioManager = coreIOManager

    def settings(self):
        return self._settings

    userSettings = revisionUserSettings = settings

    def testingEnabled(self):
        return False  # so that messages reach `dialogs`

    def translate(self, context, text):
        return text

    def moduleDocumentationUrl(self, name):
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def processEvents(self, *unused):
        QtWidgets.QApplication.processEvents()
        QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)
        if not self._paused:
            for view in self._layout.views().values():
                view.render_if_asked()

    def pauseRender(self):
        self._paused += 1

    def resumeRender(self):
        self._paused -= 1

    def setOverrideCursor(self, cursor):
        QtWidgets.QApplication.setOverrideCursor(QtGui.QCursor(cursor))

    def restoreOverrideCursor(self):
        QtWidgets.QApplication.restoreOverrideCursor()

    def palette(self):
        return QtWidgets.QApplication.palette()

    def clipboard(self):
        return QtWidgets.QApplication.clipboard()

    def startupEnvironment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    def restart(self):
        raise RuntimeError("Slicer would start anew")

    def commandOptions(self):
        return self._options

    def exit(self, status=0):
        if self._on_exit is None:
            raise RuntimeError(f"Slicer would exit with {status}")
        self._on_exit(status)
