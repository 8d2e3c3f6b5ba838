"""The desktop as a test meets it: start it once a process, load a module, click, drag, screenshot.

desktop = Desktop(Core())
panel = desktop.open("BrainLandmarks/BrainLandmarks.py")
panel.self().ui.applyButton.click()
desktop.screenshot("desktop.png")
desktop.close_modules()
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import types
from pathlib import Path

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from . import errors, modules, pythonqt, widgets
from .app import LogicModule, qSlicerApplication
from .dialogs import Dialogs
from .screenshot import screenshot
from .ui_files import UiLoader
from .views import LayoutManager

HERE = Path(__file__).resolve().parent


def _lets_go(wrapper: Path) -> bool:
    """Whether Slicer's wrapper takes its observers away when a panel is left, as since 5.12.

    Before, they stay at the node. Python's collector finds them to be garbage with the wrapper and
    empties them, and the node's next event ends the process; so without the collector.
    """
    return "_guiVtkObserverTags" in wrapper.read_text(encoding="utf-8")


class Desktop:
    """Slicer's desktop around one scene; there is one for the whole process."""

    def __init__(self, core, view_size=(330, 330)):
        self.core, self.dialogs, self.slotErrors = core, Dialogs(), errors.slotErrors
        self._qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        self._qt.setOrganizationName("NA-MIC")
        self._qt.setApplicationName("Slicer")
        settings, kind = QtCore.QSettings, QtCore.QSettings.IniFormat
        settings.setDefaultFormat(kind)
        settings.setPath(kind, settings.UserScope, core.folder.name)
        self._make_modules()
        self.layout = LayoutManager(core, view_size)
        slicer.app = self.app = qSlicerApplication(core, self.layout)
        for name, logic in core.logics.items():
            self.app.moduleManager()._add(LogicModule(name, logic))
        self.dialogs.install()
        errors.collect()
        self._python_of_slicer()
        self.window = slicer.util.mainWindow()
        self.window.show()

    def _make_modules(self) -> None:
        """`qt`, `ctk`, `slicer.modules` and the widget classes in `slicer`."""
        names = {n: getattr(m, n) for m in reversed(pythonqt.MODULES) for n in dir(m)}
        made = {
            "qt": {n: value for n, value in names.items() if not n.startswith("_")},
            "ctk": widgets.names_of("ctk"),
            "slicer.modules": {},
            "slicer.moduleNames": {},
        }
        made["qt"]["QUiLoader"] = UiLoader
        for name, content in made.items():
            module = sys.modules[name] = types.ModuleType(name)
            vars(module).update(content)
        slicer.modules, slicer.moduleNames = (
            sys.modules[f"slicer.{name}"] for name in ("modules", "moduleNames")
        )
        vars(slicer).update(widgets.names_of("slicer"))

    def _python_of_slicer(self) -> None:
        """Slicer's own Python and the toolbox where checkouts are named, ours where not."""
        sys.path.append(os.environ.get("HARNESS_TOOLBOX") or str(HERE / "toolbox"))
        checkout = os.environ.get("HARNESS_SLICER_PYTHON")
        slicer.__path__.append(checkout or str(HERE / "slicer_python"))
        names = ["i18n", "ScriptedLoadableModule", "parameterNodeWrapper"]
        if checkout:
            sys.path.append(str(Path(checkout).parent))  # sitkUtils and vtkAddon, beside it
            if (Path(checkout) / "packaging.py").is_file():  # since Slicer 5.12
                names.append("packaging")
        for name in names:
            importlib.import_module(f"slicer.{name}")
        wrapper = sys.modules["slicer.parameterNodeWrapper"]
        if checkout and not _lets_go(Path(wrapper.__file__).with_name("wrapper.py")):
            gc.disable()
        sys.modules["SampleData"] = importlib.import_module(f"{__package__}.sampledata")
        self.sample_data = sys.modules["SampleData"].SampleDataLogic

    # what a user does

    def start_up(self) -> None:
        """Tell the modules that the application has started."""
        self.app.startupCompleted.emit()
        self.app.processEvents()

    def load(self, path):
        """Load a module's file; its panel is made when it is first shown."""
        return modules.load(path)

    def open(self, path):
        """Load a module's file and show its panel; `panel.self()` is the Python widget."""
        module = self.load(path)
        slicer.util.selectModule(module.name)
        self.app.processEvents()
        return module.widgetRepresentation()

    def close_modules(self) -> None:
        """Leave all scripted modules, as Slicer does when it closes."""
        manager = self.app.moduleManager()
        for name in manager.modulesNames():
            if isinstance(manager.module(name), modules.qSlicerScriptedLoadableModule):
                modules.unload(manager.module(name))
        self.sample_data.sources.clear()

    def screenshot(self, path) -> Path:
        """Save a picture of the module panel and the four views."""
        self.app.processEvents()
        name = slicer.util.selectedModule()
        panel = slicer.util.getModule(name).widgetRepresentation() if name else None
        return screenshot(panel, self.layout.views(), path)

    @contextlib.contextmanager
    def headless(self):
        """As under --no-main-window: no layout manager and no main window."""
        self.app._headless = True
        try:
            yield
        finally:
            self.app._headless = False
