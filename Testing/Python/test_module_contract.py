"""What Slicer asks of a scripted module, read from the sources: traps that a mock does not show.

Each test names the trap; all of them were met in other extensions.
"""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(p for folder in ("BrainLandmarks", "BrainLandmarksTrain")
                 for p in (ROOT / folder).glob("*.py"))  # fmt: skip
GLUE = sorted(
    p
    for part in ("ui", "mrml")
    for p in ROOT.glob(f"BrainLandmarks*/BrainLandmarks*Lib/{part}/**/*.py")
)
SOURCES = MODULES + GLUE
UI_FILES = sorted(ROOT.glob("*/Resources/UI/*.ui"))

PROPERTIES = {
    "text", "value", "currentIndex", "currentText", "count", "toolTip", "windowTitle", "rowCount",
    "columnCount", "size", "width", "height", "checked", "enabled", "visible", "collapsed",
    "currentPath", "maximum", "minimum", "wasCanceled", "currentNodeID", "placeholderText",
}  # fmt: skip
"""Names that are values in PythonQt; calling them is a TypeError there."""

BUNDLED = {"slicer", "vtk", "qt", "ctk", "numpy", "scipy", "SimpleITK", "pydicom", "requests",
           "PIL", "packaging", "pip", "SampleData"}  # fmt: skip
OWN = {"BrainLandmarksLib", "BrainLandmarksTrainLib"}
KNOWN_WIDGETS = {"qMRMLWidget", "qMRMLNodeComboBox", "ctkCollapsibleButton", "ctkSliderWidget",
                 "ctkPathLineEdit"}  # fmt: skip
PANELS = {
    "BrainLandmarks": "BrainLandmarksLib/ui/landmarks",
    "BrainLandmarksGradCAM": "BrainLandmarksLib/ui/gradcam",
    "BrainLandmarksTrain": "BrainLandmarksTrainLib/ui",
}
"""Module to the folder of its panel, beside the module."""

SHARED = "BrainLandmarksLib/ui/common"
"""Folder of what every panel uses, beside the module Brain Landmarks."""

QT6_GONE = {"QTextCodec", "QRegExp", "QDesktopWidget", "setMargin", "QSignalMapper"}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path):
    return str(path.relative_to(ROOT))


def top_level_imports(node):
    for statement in node.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            yield statement.module


def ui_names(path):
    found = [w.get("name") for w in ET.parse(path).iter("widget")]
    assert len(found) == len(set(found)), "object names must be unique"
    return found


def test_there_are_sources_to_read():
    """What is asked of each file below is asked of some."""
    assert {path.stem for path in MODULES} == {path.stem for path in UI_FILES} == set(PANELS)
    for part in ("ui", "mrml"):
        assert sum(part in path.parts for path in GLUE) > 15


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_property_is_not_called(path):
    """widget.text() is a TypeError in PythonQt (items of trees and tables are no widgets)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            assert not (node.func.attr in PROPERTIES and not node.args and "ui." in owner), (
                f"line {node.lineno}: {owner}.{node.func.attr}()"
            )


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_dialog_gives_one_text(path):
    """path, _ = QFileDialog.getOpenFileName(...) is PyQt; PythonQt returns the path alone."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assign) and "QFileDialog." in ast.unparse(node.value):
            assert all(isinstance(target, ast.Name) for target in node.targets), node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_qt_class_is_tested_for_or_extended(path):
    """isinstance of a wrapped C++ class, subclasses and signals of our own are unreliable."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            assert not any("qt." in ast.unparse(base) for base in node.bases), node.name
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert not (call == "isinstance" and "qt." in ast.unparse(node)), node.lineno
            assert call not in ("qt.Signal", "qt.pyqtSignal", "qt.Slot"), node.lineno


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "self_test.py"], ids=name)
def test_only_clicks_reach_for_layout_and_window(path):
    """Both are None without a main window, where panels are still made.

    (Of the modules' own tests, those that look for a view are skipped without one.)
    """
    text = path.read_text(encoding="utf-8")
    assert "layoutManager()" not in text
    assert "mainWindow()" not in text


@pytest.mark.parametrize("path", UI_FILES, ids=name)
def test_the_panel_and_its_ui_file_agree(path):
    names = ui_names(path)
    assert all(n.isidentifier() for n in names)
    folder = path.parents[2] / PANELS[path.stem]
    own = [*folder.glob("*.py"), *(ROOT / "BrainLandmarks" / SHARED).glob("*.py")]
    used = set()
    for source in (path.parents[2] / f"{path.stem}.py", *(p for p in own if p.exists())):
        used |= set(re.findall(r"\bui\.([A-Za-z]\w*)", source.read_text(encoding="utf-8")))
    used -= {"connect"}
    absent = {n for n in used if n.islower() is False and n not in names}
    assert not absent, absent
    custom = {c.findtext("class") for c in ET.parse(path).iter("customwidget")}
    classes = {w.get("class") for w in ET.parse(path).iter("widget")}
    assert custom <= KNOWN_WIDGETS
    assert {c for c in classes if not c.startswith("Q")} == custom


@pytest.mark.parametrize("path", UI_FILES, ids=name)
def test_no_two_things_are_in_one_place(path):
    """Of two in a cell of a form, Qt shows one."""
    for layout in ET.parse(path).iter("layout"):
        cells = []
        for item in layout.findall("item"):
            if item.get("row") is not None:
                first, span = int(item.get("column")), int(item.get("colspan", 1))
                cells += [(item.get("row"), first + k) for k in range(span)]
        assert len(cells) == len(set(cells)), layout.get("name")


@pytest.mark.parametrize("path", UI_FILES, ids=name)
def test_bound_widgets_name_fields_of_the_parameter_node(path):
    module = ROOT / path.parts[len(ROOT.parts)] / f"{path.stem}.py"
    fields = {
        statement.target.id
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef) and node.name.endswith("ParameterNode")
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    bound = {
        p.findtext("string")
        for p in ET.parse(path).iter("property")
        if p.get("name") == "SlicerParameterName"
    }
    assert bound
    assert bound <= fields


@pytest.mark.parametrize("path", UI_FILES, ids=name)
def test_every_node_selector_gets_the_scene(path):
    root = ET.parse(path)
    selectors = {w.get("name") for w in root.iter("widget") if w.get("class").startswith("qMRML")}
    receivers = {c.findtext("receiver") for c in root.iter("connection")}
    assert selectors - {root.findtext("class")} <= receivers


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_file_is_one_that_slicer_takes_for_a_module(path):
    text = path.read_text(encoding="utf-8")
    assert not text.startswith("#!")
    classes = {n.name for n in tree(path).body if isinstance(n, ast.ClassDef)}
    for suffix in ("", "Widget", "Logic", "Test"):
        assert path.stem + suffix in classes
    assert not path.stem.endswith(("Test", "Tests"))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_file_imports_nothing_heavy(path):
    """Every user pays for it when Slicer starts."""
    for module in top_level_imports(tree(path)):
        first = module.split(".")[0]
        assert first in sys.stdlib_module_names | {"slicer", "vtk", "qt", "ctk"}, module


@pytest.mark.parametrize("path", GLUE, ids=name)
def test_glue_imports_what_slicer_has_and_our_own(path):
    for module in top_level_imports(tree(path)):
        first = module.split(".")[0]
        assert first in sys.stdlib_module_names | BUNDLED | OWN, module


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_that_qt6_or_python_312_took_away(path):
    text = path.read_text(encoding="utf-8")
    assert not [word for word in QT6_GONE if re.search(rf"\b{word}\b", text)]
    assert not {"imp", "distutils"} & set(top_level_imports(tree(path)))
    assert "currentIndexChanged(QString)" not in text
    assert "buttonClicked(int)" not in text


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_lambdas_do_not_lose_their_defaults_to_the_signal(path):
    """A clicked(bool) fills the first parameter, a default as well as any other."""
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "connect"
        ):
            for argument in node.args:
                if isinstance(argument, ast.Lambda) and argument.args.defaults:
                    plain = len(argument.args.args) - len(argument.args.defaults)
                    assert plain >= 1, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_translated_texts_are_not_f_strings(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            assert not any(isinstance(a, ast.JoinedStr) for a in node.args), f"line {node.lineno}"
        if isinstance(node, ast.For | ast.comprehension):
            loop = ast.unparse(node.target)
            assert "tr as _" not in path.read_text(encoding="utf-8") or loop != "_", (
                "for _ hides tr"
            )


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_both_base_classes_are_initialised_and_observers_removed(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Widget"):
            text = ast.unparse(node)
            for base in node.bases:
                assert f"{ast.unparse(base)}.__init__(self" in text
            assert "removeObservers()" in text


def _handed_over(cls):
    """Methods of a class that are given to somebody to call: self.f, or self.f(...) in a lambda."""
    called = {id(n.func) for n in ast.walk(cls) if isinstance(n, ast.Call)}
    in_lambdas = {
        id(n) for f in ast.walk(cls) if isinstance(f, ast.Lambda) for n in ast.walk(f.body)
    }
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            given = id(node) not in called or id(node) in in_lambdas
            if given and isinstance(node.ctx, ast.Load):
                yield node.attr


def test_what_a_callback_raises_is_reported():
    """Qt, a timer, the worker's answers and VTK only print what their callbacks raise."""
    classes = [
        cls
        for path in GLUE
        if "ui" in path.parts
        for cls in ast.walk(tree(path))
        if isinstance(cls, ast.ClassDef)
        # Others call back a class that is one of these.
        if {ast.unparse(b) for b in cls.bases} & {"Section", "SessionSection", "Messages"}
    ]
    assert len(classes) > 15
    checked = 0
    for cls in classes:
        methods = {m.name: m for m in cls.body if isinstance(m, ast.FunctionDef)}
        for handed in _handed_over(cls):
            if handed in methods:
                how = {ast.unparse(d) for d in methods[handed].decorator_list}
                assert how & {"reports_errors", "heard", "property"}, handed
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("path", UI_FILES, ids=name)
def test_numbers_in_a_ui_file_are_numbers(path):
    root = ET.parse(path)
    for number in (*root.iter("number"), *root.iter("double")):
        float(number.text)
    assert {flag.text for flag in root.iter("bool")} <= {"true", "false"}


def test_a_path_field_says_whether_it_is_a_file_or_a_folder():
    """Without filters its button asks for a file, whatever it is for."""
    widgets = [w for path in UI_FILES for w in ET.parse(path).iter("widget")]
    fields = [w for w in widgets if w.get("class") == "ctkPathLineEdit"]
    assert fields
    for field in fields:
        given = {p.get("name"): p for p in field.findall("property")}
        flags = given["filters"].findtext("set")
        assert ("::Dirs" in flags) != ("::Files" in flags), field.get("name")
        # Slicer's connector would write back what is being typed, and CTK keeps to itself what
        # does not fit a name filter.
        assert not {"SlicerParameterName", "nameFilters"} & set(given), field.get("name")
