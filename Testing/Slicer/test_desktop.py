"""The stand-in for Slicer's desktop, shown on a small module, and the mistakes it must find."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer

EXAMPLE = Path(__file__).parent / "example_module" / "Example.py"


@pytest.fixture
def panel(desktop):
    return desktop.open(EXAMPLE)


@pytest.fixture
def widget(panel):
    return panel.self()


@pytest.fixture
def loading(desktop, tmp_path):
    """Loads a .ui file made of the given lines inside a qMRMLWidget."""

    def load(inside, connections=""):
        path = tmp_path / "Form.ui"
        path.write_text(
            f'<ui version="4.0"><class>Form</class><widget class="qMRMLWidget" name="Form">'
            f'<layout class="QVBoxLayout" name="rows"><item>{inside}</item></layout></widget>'
            f"<connections>{connections}</connections></ui>"
        )
        return slicer.util.loadUI(str(path))

    return load


# ---- modules and panels -------------------------------------------------------------------------


def test_a_module_is_loaded_and_left(desktop):
    module = desktop.load(EXAMPLE)
    assert slicer.modules.example is module
    assert (module.title, module.categories) == ("Example", ("Testing",))
    assert not hasattr(slicer.modules, "ExampleWidget")
    slicer.util.selectModule("Example")
    widget = slicer.util.getModuleWidget("Example")
    assert slicer.modules.ExampleWidget is widget
    assert widget.parent.isEntered
    assert slicer.util.getModuleLogic("Example") is widget.logic
    slicer.modules.ExampleInstance.runTest()
    desktop.close_modules()
    assert widget.left == 1
    assert not hasattr(slicer.modules, "example")


def test_the_panel_comes_from_its_ui_file(widget):
    ui = widget.ui
    assert ui.applyButton.text == "Apply"
    assert ui.inputSelector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    assert ui.outputPath.filters == ui.outputPath.Dirs | ui.outputPath.Writable
    assert ui.inputsButton.collapsed is False
    assert ui.advancedButton.collapsed is True
    assert not ui.sideBox.isVisible()
    ui.advancedButton.collapsed = False
    assert ui.sideBox.isVisible()
    with pytest.raises(AttributeError):
        ui.applyButon.click()


def test_the_selector_follows_the_scene(scene, widget):
    selector, seen = widget.ui.inputSelector, []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    assert selector.nodeCount() == 0
    first, second = (scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", n) for n in "AB")
    scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "C")
    assert selector.nodeCount() == 2
    assert selector.currentNode() is None
    selector.setCurrentNode(second)
    assert (selector.currentNode(), selector.currentNodeID) == (second, second.GetID())
    second.SetName("renamed")
    assert selector.children()[0].currentText == "renamed"
    scene.RemoveNode(second)
    assert selector.currentNode() is None
    assert seen == [second, None]
    assert selector.nodeFromIndex(0) is first


def test_parameters_and_panel_agree(scene, widget, volume):
    ui, parameters = widget.ui, widget.parameters
    assert (ui.countBox.value, ui.scaleBox.value, ui.labelEdit.text) == (3, 1.5, "point")
    assert (ui.countBox.minimum, ui.countBox.maximum) == (1, 9)
    assert (ui.sideBox.currentText, ui.methodBox.currentText) == ("LEFT", "good")
    ui.countBox.value = 5
    ui.scaleBox.setValue(0.5)
    ui.labelEdit.text = "x"
    ui.enabledBox.click()
    ui.sideBox.currentIndex = 1
    ui.methodBox.currentIndex = 0
    ui.inputSelector.setCurrentNode(volume)
    assert (parameters.count, parameters.scale, parameters.label) == (5, 0.5, "x")
    assert (parameters.enabled, parameters.method) == (False, "fast")
    assert parameters.side is type(parameters.side).RIGHT
    assert parameters.inputVolume is volume
    parameters.count = 7
    parameters.enabled = True
    assert (ui.countBox.value, ui.enabledBox.checked) == (7, True)
    for wrong in (0, 10):
        with pytest.raises(ValueError, match=r"count|range"):
            parameters.count = wrong
    with pytest.raises(ValueError, match=r"method|following"):
        parameters.method = "best"
    for name, value in (("count", np.int64(3)), ("scale", np.float32(1)), ("label", 5)):
        with pytest.raises(TypeError):
            setattr(parameters, name, value)


def test_a_button_does_its_work(desktop, scene, widget, volume):
    assert not widget.ui.applyButton.enabled
    widget.parameters.inputVolume = volume
    assert widget.ui.applyButton.enabled
    widget.ui.applyButton.click()
    assert slicer.util.getNode("Head of Ms X points").GetNumberOfControlPoints() == 3
    assert desktop.window.statusBar().currentMessage() == "3 points"
    widget.parameters.enabled = False
    widget.ui.applyButton.click()
    assert desktop.dialogs.texts("error") == ["It did not work.\n\nit is switched off"]
    assert [str(error) for error in desktop.slotErrors] == ["it is switched off"]
    desktop.slotErrors.clear()


def test_questions_are_answered(desktop, widget):
    widget.parameters.label = "x"
    desktop.dialogs.answer(False)
    widget.ui.resetButton.click()
    assert widget.parameters.label == "x"
    widget.ui.resetButton.click()
    assert widget.parameters.label == "point"
    assert desktop.dialogs.texts("info") == ["Really?"] * 2
    assert slicer.util.confirmOkCancelDisplay("Sure?")
    assert not slicer.util.confirmRetryCloseDisplay("Again?")


def test_scene_close_reload_and_leaving(desktop, scene, widget, volume, tmp_path):
    widget.parameters.inputVolume, widget.parameters.count = volume, 8
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path, {})
    scene.Clear(False)
    assert widget.parameters.inputVolume is None
    assert widget.ui.countBox.value == 3
    assert widget.ui.inputSelector.nodeCount() == 0
    slicer.util.loadScene(path, {})
    assert widget.ui.inputSelector.nodeCount() == 1
    widget.bind()
    assert widget.ui.countBox.value == 8
    assert widget.ui.inputSelector.currentNode().GetName() == "Head of Ms X"
    slicer.util.selectModule("")
    assert not widget.parent.isEntered
    scene.Clear(False)
    assert widget.parameters is None


def test_reload_makes_a_new_panel(desktop, panel, widget):
    slicer.util.reloadScriptedModule("Example")
    again = panel.self()
    assert again is not widget
    assert type(again) is not type(widget)
    assert widget.left == 1
    again.ui.countBox.value = 4
    assert again.parameters.count == 4
    desktop.app.processEvents()


def test_without_a_main_window(desktop):
    with desktop.headless():
        assert slicer.app.layoutManager() is None
        assert slicer.util.mainWindow() is None
        assert desktop.load(EXAMPLE).widgetRepresentation().self().ui.applyButton
    assert slicer.app.layoutManager().sliceWidget("Red")


def test_the_application(desktop, tmp_path):
    seen = []
    slicer.app.connect("startupCompleted()", lambda: seen.append("started"))
    desktop.start_up()
    assert seen == ["started"]
    assert slicer.modules.markups.logic() is desktop.core.logics["Markups"]
    assert Path(slicer.app.temporaryPath).is_dir()
    import qt

    qt.QSettings().setValue("Example/flag", False)
    assert qt.QSettings().value("Example/flag") == "false"
    assert slicer.util.settingsValue("Example/flag", True, slicer.util.toBool) is False
    assert slicer.util.settingsValue("Example/none", 3) == 3
    desktop.dialogs.choose(tmp_path / "a.nrrd", ["b", "c"])
    assert qt.QFileDialog.getOpenFileName(None, "Open") == str(tmp_path / "a.nrrd")
    assert qt.QFileDialog.getOpenFileNames(None, "Open") == ("b", "c")
    assert qt.QFileDialog.getSaveFileName(None, "Save") == ""
    item = qt.QTableWidgetItem("text")
    assert item.text() == "text"


def test_sample_data(desktop, scene, volume, tmp_path):
    import SampleData

    path = tmp_path / "head.nrrd"
    assert slicer.util.saveNode(volume, str(path), {})
    logic = SampleData.SampleDataLogic()
    logic.registerCustomSampleDataSource(
        category="Example", sampleName="Head", uris=path.as_uri(), nodeNames="Sample"
    )
    assert logic.downloadSample("Head").GetName() == "Sample"
    assert logic.downloadSample("Head").GetImageData().GetDimensions() == (34, 32, 30)


# ---- paths --------------------------------------------------------------------------------------


@pytest.fixture
def edit(desktop):
    """A ctkPathLineEdit and what it emits."""
    import ctk

    made, heard = ctk.ctkPathLineEdit(), []
    made.connect("currentPathChanged(QString)", heard.append)
    made.connect("validInputChanged(bool)", heard.append)
    return made, heard


def line_of(edit):
    (line,) = [child for child in edit.children() if child.className() == "QLineEdit"]
    return line


def test_a_path_that_is_typed_or_taken_away(edit):
    edit, heard = edit
    edit.currentPath = "a"
    edit.currentPath = "a"  # nothing new
    line_of(edit).insert("b")
    assert heard == ["a", True, "ab"]
    edit.currentPath = ""  # no path: its change is not reported
    assert heard == ["a", True, "ab", False]
    assert edit.currentPath == ""
    line_of(edit).setText("abc")
    line_of(edit).setCursorPosition(1)
    edit.currentPath = edit.currentPath
    assert line_of(edit).cursorPosition == 3


def test_name_filters_decide_what_is_a_path(edit):
    edit, heard = edit
    edit.nameFilters = ["Settings (*.json *.yaml)", "All (*)"]
    for path in ("a.json", "a.txt", "b.txt", "b.yaml"):
        edit.currentPath = path
    assert heard == ["a.json", True, False, "b.yaml", True]


def test_the_filters_decide_which_dialog_asks(desktop, edit):
    edit, heard = edit
    for filters, dialog in (
        (None, "getOpenFileName"),
        (edit.Files | edit.Writable, "getSaveFileName"),
        (edit.Dirs | edit.Writable, "getExistingDirectory"),
    ):
        if filters is not None:
            edit.filters = filters
        edit.browse()
        assert desktop.dialogs.shown[-1].title == dialog
    desktop.dialogs.choose("/there")
    edit.browse()
    assert heard == ["/there", True]


def test_a_directory_button_always_has_a_folder(desktop, tmp_path):
    import ctk

    button, heard = ctk.ctkDirectoryButton(), []
    button.connect("directoryChanged(QString)", lambda path: heard.append("changed"))
    button.connect("directorySelected(QString)", lambda path: heard.append("selected"))
    assert button.directory == "."
    button.directory = str(tmp_path)
    button.directory = str(tmp_path)
    assert heard == ["selected", "changed", "selected"]
    button.directory = ""
    assert button.directory == os.getcwd()


# ---- views --------------------------------------------------------------------------------------


def test_a_point_is_dragged_in_a_slice_view(desktop, scene, volume):
    red = slicer.app.layoutManager().sliceWidget("Red")
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    points.CreateDefaultDisplayNodes()
    centre = [red.mrmlSliceNode().GetSliceToRAS().GetElement(i, 3) for i in range(3)]
    points.AddControlPointWorld(centre, "a")
    desktop.app.processEvents()
    start = np.array(red.pixel_of(centre))
    np.testing.assert_allclose(start, (165, 165), atol=1.5)
    end = start + (40, 25)
    red.sliceView().drag(start, end)
    moved = np.array(points.GetNthControlPointPositionWorld(0))
    np.testing.assert_allclose(red.pixel_of(moved), np.round(end), atol=1.1)
    assert np.linalg.norm(moved - centre) > 10
    assert moved[2] == pytest.approx(centre[2], abs=1e-3)

    points.SetNthControlPointLocked(0, True)
    red.sliceView().drag(end, start)
    np.testing.assert_allclose(points.GetNthControlPointPositionWorld(0), moved)


def test_a_screenshot(desktop, widget, volume, tmp_path):
    from PIL import Image

    widget.parameters.inputVolume = volume
    widget.ui.applyButton.click()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    slicer.util.forceRenderAllViews()
    slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().SetSliceVisible(True)
    slicer.util.resetThreeDViews()
    picture = np.asarray(Image.open(desktop.screenshot(tmp_path / "desktop.png")).convert("RGB"))
    height, width, _ = picture.shape
    assert height > 2 * 330
    assert width > 400 + 2 * 330
    for part in np.split(picture[:, : 4 * (width // 4)], 4, axis=1):
        assert part.std() > 5


# ---- mistakes that Slicer would not forgive -----------------------------------------------------


def test_getters_hidden_by_properties(widget):
    button = widget.ui.applyButton
    for name in ("text", "toolTip", "size", "objectName"):
        with pytest.raises(TypeError, match="not callable"):
            getattr(button, name)()
    with pytest.raises(TypeError, match="not callable"):
        widget.ui.countBox.value()
    assert button.isEnabled() == button.enabled
    button.text = "Go"
    button.setText(button.text + "!")
    assert button.text == "Go!"


def test_names_that_are_not_there(desktop, widget):
    import ctk
    import qt

    button, selector = widget.ui.applyButton, widget.ui.inputSelector
    for signal in ("click(bool)", "clicked(QString)", "presed()"):
        with pytest.raises(RuntimeError, match="no signal"):
            button.connect(signal, print)
    with pytest.raises(RuntimeError, match="overloaded"):
        selector.currentNodeChanged.connect(lambda node: None)
    with pytest.raises(AttributeError, match="no such property"):
        button.texts = "Go"
    with pytest.raises(AttributeError, match="no such property"):
        button.setText = "Go"
    with pytest.raises(AttributeError):
        selector.setNodeTypes(["vtkMRMLModelNode"])
    with pytest.raises(AttributeError):
        selector.nodeTypes = "vtkMRMLModelNode"
    with pytest.raises(AttributeError):
        widget.ui.countBox.value = "many"
    with pytest.raises(RuntimeError, match="keyword"):
        qt.QPushButton(text="Go")
    with pytest.raises(NotImplementedError):
        ctk.ctkRangeWidget()
    assert not hasattr(slicer, "qMRMLNoSuchWidget")
    with pytest.raises(RuntimeError, match="modal"):
        qt.QDialog().exec_()


def test_wrong_ui_files(loading):
    assert loading('<widget class="QLabel" name="a"/>').a.text == ""
    with pytest.raises(RuntimeError, match="no such widgets"):
        loading('<widget class="ctkNoSuchButton" name="a"/>')
    with pytest.raises(RuntimeError, match="no property 'txt'"):
        loading(
            '<widget class="QLabel" name="a"><property name="txt"><string/></property></widget>'
        )
    for value in ("<number>false</number>", "<bool>0</bool>", "<double>1 mm</double>"):
        with pytest.raises(RuntimeError, match=r"is no number|neither true nor false"):
            loading(
                f'<widget class="QSpinBox" name="a"><property name="maximum">{value}</property>'
                "</widget>"
            )
    with pytest.raises(RuntimeError, match="one name"):
        loading('<widget class="QLabel" name="Form"/>')
    for sender, signal in (("b", "clicked()"), ("Form", "mrmlSceneChange(vtkMRMLScene*)")):
        with pytest.raises(RuntimeError):
            loading(
                '<widget class="qMRMLNodeComboBox" name="a"/>',
                f"<connection><sender>{sender}</sender><signal>{signal}</signal>"
                "<receiver>a</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>",
            )


def test_exceptions_in_slots_and_observers_are_collected(desktop, scene, widget):
    def fails(*values):
        raise KeyError(f"failed with {len(values)}")

    widget.ui.applyButton.connect("clicked(bool)", fails)
    node = widget.parameters.parameterNode
    tag = node.AddObserver("ModifiedEvent", fails)
    widget.ui.applyButton.enabled = True
    widget.ui.applyButton.disconnect("clicked(bool)", widget.onApply)
    widget.ui.applyButton.click()
    assert [str(e) for e in desktop.slotErrors] == ["'failed with 1'"]
    widget.parameters.Modified()
    assert [str(e) for e in desktop.slotErrors] == ["'failed with 1'", "'failed with 2'"]
    desktop.slotErrors.clear()
    node.RemoveObserver(tag)
    widget.ui.applyButton.disconnect("clicked(bool)", fails)
    widget.ui.applyButton.enabled = True
    widget.ui.applyButton.click()


def test_arguments_are_trimmed_as_pythonqt_does(desktop):
    import functools

    import qt

    button, seen = qt.QPushButton("a"), []
    for name in "xy":
        button.connect("clicked(bool)", lambda name=name: seen.append(name))
    button.clicked.connect(lambda: seen.append("none"))
    button.clicked.connect(functools.partial(seen.append))
    button.click()
    assert seen == [False, False, "none", False]  # the default was eaten by the boolean
    process = qt.QProcess()
    process.connect("finished(int,QProcess::ExitStatus)", lambda code: seen.append(code))
    process.start(sys.executable, ["-c", "raise SystemExit(3)"])
    process.waitForFinished()
    desktop.app.processEvents()
    assert seen[-1] == 3


def test_nothing_of_the_harness_is_left_in_the_way(desktop):
    """What the wheel's own slicer.util has is used as it is."""
    for name in ("loadUI", "childWidgetVariables", "NodeModify", "VTKObservationMixin"):
        assert getattr(slicer.util, name).__module__ == "slicer.util"
    real = os.environ.get("HARNESS_SLICER_PYTHON")
    assert hasattr(slicer, "packaging") == bool(real and (Path(real) / "packaging.py").is_file())
    assert ("slicer_python" in sys.modules["slicer.i18n"].__file__) != bool(real)
