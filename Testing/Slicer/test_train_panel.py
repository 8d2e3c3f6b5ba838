"""The tab Training: choose, copy the command, train in the background, pause, find it again."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import slicer
import slicer.util
from polling import until

from BrainLandmarksLib.cli import build_parser
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.ui.common.preferences import preference, usable_models
from BrainLandmarksLib.worker.background_run import RUN_FILE, STOPPED, BackgroundRun
from BrainLandmarksTrainLib.config.recipe import load_recipe
from BrainLandmarksTrainLib.mrml.training_plots import ERROR, LOSS

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py"
LANDMARKS_MODULE = ROOT / "BrainLandmarks" / "BrainLandmarks.py"
LAST_RUN = "lastRun"
TRAINING = 2
"""Place of the tab Training."""


@pytest.fixture
def panel(desktop, tmp_path):
    forget()
    yield desktop.open(MODULE).self()
    for file in tmp_path.rglob(RUN_FILE):  # a training outlives everything, a failed test as well
        BackgroundRun.attach(file.parent).kill()
    forget()


def forget():
    """As on the first day: no training before, no model added."""
    for name in (LAST_RUN, "models", "model"):
        preference(name, "")


@pytest.fixture
def chosen(panel, six_heads, weak_model, tmp_path):
    """The panel with everything chosen for a training of seconds."""
    parameters = panel.logic.getParameterNode()
    parameters.dataset = six_heads
    parameters.output = tmp_path / "my run"
    parameters.startModel = str(weak_model)
    parameters.amount = 4
    parameters.trainingDevice = "cpu"
    panel.panel.training.form.fill_models()
    panel.panel.training.update()
    return panel


def longer(panel, steps=100000):
    """Make the training one that does not end by itself."""
    panel.logic.getParameterNode().amount = steps
    panel.panel.training.update()


def steps_taken(output):
    try:
        with (output / "fine" / "log.csv").open(newline="", encoding="utf-8") as file:
            return [int(row["step"]) for row in csv.DictReader(file)]
    except OSError:
        return []


def series(name):
    """Names of the series of a chart and the rows of their tables."""
    for chart in slicer.util.getNodesByClass("vtkMRMLPlotChartNode"):
        if chart.GetName() == name:
            found = {}
            for n in range(chart.GetNumberOfPlotSeriesNodes()):
                node = chart.GetNthPlotSeriesNode(n)
                found[node.GetName()] = node.GetTableNode().GetNumberOfRows()
            return found
    return {}


def test_the_choices_of_the_module_are_those_of_the_library(panel):
    from slicer.parameterNodeWrapper import Choice

    from BrainLandmarksTrainLib.ui.training_form import METHODS, SIZES

    fields = type(panel.logic.getParameterNode()).allParameters
    for name, known in (("method", METHODS), ("size", SIZES)):
        notes = fields[name].unalteredType.__metadata__
        (choice,) = [note for note in notes if isinstance(note, Choice)]
        assert list(choice.choices) == list(known)


def test_without_choices_nothing_can_start(panel):
    assert not panel.ui.startButton.enabled
    assert not panel.ui.copyButton.enabled
    assert panel.ui.commandEdit.text == ""
    assert not panel.ui.reportSection.visible
    panel.logic.getParameterNode().amount = 7  # every widget is written anew
    for name in ("datasetPath", "policyFile", "recipePath", "outputPath"):
        assert getattr(panel.ui, name).currentPath == ""


FOLDERS, FILES = ("datasetPath", "outputPath"), ("policyFile", "recipePath")
FIELDS = {"datasetPath": "dataset", "outputPath": "output", "policyFile": "policyFile",
          "recipePath": "recipe"}  # fmt: skip


def line_of(edit):
    (line,) = [child for child in edit.children() if child.className() == "QLineEdit"]
    return line


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_the_button_of_a_path_asks_for_what_it_is(desktop, panel, name, tmp_path):
    """A folder with the dialog for folders, a file with the one for files that are there."""
    desktop.dialogs.choose(tmp_path)
    getattr(panel.ui, name).browse()
    dialog = "getExistingDirectory" if name in FOLDERS else "getOpenFileName"
    assert desktop.dialogs.shown[-1].title == dialog
    assert panel.logic.getParameterNode().getValue(FIELDS[name]) == tmp_path


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_a_path_can_be_typed_as_it_is_written_and_taken_away(panel, name):
    edit, line = getattr(panel.ui, name), line_of(getattr(panel.ui, name))

    def value():
        return panel.logic.getParameterNode().getValue(FIELDS[name])

    for typed in ".", "/", "n", "o", "/", "w":
        line.insert(typed)
    assert line.text == "./no/w"
    assert value() == Path("no/w")
    line.setCursorPosition(4)
    for typed in "/", "./", "x":  # in the middle
        line.insert(typed)
    assert line.text == "./no/./x/w"
    assert line.cursorPosition == 8
    assert value() == Path("no/x/w")
    line.text = ""
    assert value() == Path()
    edit.currentPath = "again"
    panel.logic.getParameterNode().setValue(FIELDS[name], Path("by a script"))
    assert edit.currentPath == "by a script"
    panel.logic.getParameterNode().setValue(FIELDS[name], Path())
    assert edit.currentPath == ""


def test_what_is_missing_is_one_sentence(panel, tmp_path):
    panel.ui.outputPath.currentPath = str(tmp_path / "out")
    panel.ui.startButton.click()
    assert "dataset" in panel.ui.messageLabel.text
    assert panel.panel.training.run is None
    assert not (tmp_path / "out").exists()


def test_packages_are_asked_for_once_and_only_then_installed(desktop, chosen, monkeypatch):
    lacking = requirements.Missing(("torchio>=0.20",), False)
    installed, started = [], []
    monkeypatch.setattr(requirements, "missing", lambda **_: () if installed else lacking)
    monkeypatch.setattr(requirements, "install", lambda what, folder, log: installed.append(what))
    monkeypatch.setattr(BackgroundRun, "start", lambda *arguments: started.append(arguments))
    desktop.dialogs.answer(False)
    chosen.ui.startButton.click()
    assert not started
    assert "torchio" in desktop.dialogs.shown[-1].text
    monkeypatch.setattr(chosen.panel.training, "_follow", lambda run: None)
    chosen.ui.startButton.click()
    assert installed == [lacking]
    assert len(started) == 1


def test_the_command_line_accepts_what_the_panel_writes(chosen, tmp_path):
    ui = chosen.ui
    ui.lossCombo.currentText = "mse"
    ui.alphaSpin.value = 0.3
    ui.amountSpin.value = 3
    ui.unitCombo.currentText = "epochs"
    ui.nameEdit.text = "mine"
    ui.resumeCheck.checked = False
    ui.copyButton.click()
    assert ui.messageLabel.text == ""
    words = shlex.split(slicer.app.clipboard().text())
    file = tmp_path / "my run" / "recipe.json"
    assert words == ["brainlandmarks", "train", str(file), "--resume", "no"]
    assert build_parser().parse_args(words[1:]).config == str(file)
    recipe = load_recipe(file)
    assert recipe.name == "mine"
    assert recipe.fine.coordinate_loss == "mse"
    assert recipe.fine.alpha == 0.3
    assert recipe.fine.size == 16
    assert recipe.fine.steps == 3 * 4  # the training split has four heads
    assert recipe.machine.device == "cpu"
    ui.unitCombo.currentText = "minutes"
    ui.sizeCombo.currentText = "32"
    ui.copyButton.click()
    recipe = load_recipe(file)
    assert (recipe.fine.steps, recipe.fine.minutes, recipe.fine.size) == (None, 3.0, 32)


def test_a_new_model_and_a_recipe_file(chosen, tmp_path):
    ui = chosen.ui
    ui.methodCombo.currentText = "new model, the paper's method"
    ui.methodCombo.activated(1)
    assert ui.lossCombo.currentText == "mse"
    assert ui.alphaSpin.value == 0.4
    ui.copyButton.click()
    recipe = load_recipe(tmp_path / "my run" / "recipe.json")
    assert recipe.start_from is None
    assert recipe.fine.dropout == 0.2
    assert recipe.fine.steps == 4
    own, gentle = tmp_path / "own.json", {"affine": {"rotation_deg": [-3, 3]}}
    own.write_text(json.dumps({"name": "own", "output": "there", "start_from": "brain88",
                               "locator": None,
                               "scans": {"dataset": "elsewhere", "augmentation": gentle},
                               "fine": {"steps": 7}}))  # fmt: skip
    ui.methodCombo.currentText = "recipe file"
    ui.recipePath.currentPath = str(own)
    ui.outputPath.currentPath = ""
    assert str(tmp_path / "there") in ui.commandEdit.text
    assert not ui.alphaSpin.enabled
    assert ui.policiesCheck.checked
    assert not ui.policiesCheck.enabled
    ui.copyButton.click()
    recipe = load_recipe(tmp_path / "there" / "recipe.json")
    assert recipe.fine.steps == 7
    assert recipe.scans.augmentation.affine.rotation_deg == (-3, 3)
    assert "heads" in recipe.scans.dataset or "six" in recipe.scans.dataset


def test_a_training_from_start_to_the_model_in_use(desktop, chosen, tmp_path, scene, monkeypatch):
    # The other module would ask its worker for an estimate, which takes longer than the training.
    section = "BrainLandmarksLib.ui.landmarks.detecting.DetectSection"
    monkeypatch.setattr(f"{section}.prepare", lambda *_: None)
    ui, output = chosen.ui, tmp_path / "my run"
    desktop.load(LANDMARKS_MODULE)
    first = slicer.util.getModuleWidget("BrainLandmarks")
    assert first.ui.modelCombo.count == 1
    ui.startButton.click()
    assert ui.messageLabel.text == ""
    assert not ui.startButton.enabled
    assert not ui.alphaSpin.enabled
    assert ui.pauseButton.enabled
    until(desktop, lambda: chosen.panel.training.run is None)
    assert "has ended" in ui.statusLabel.text, ui.logView.plainText
    assert "training the fine network" in ui.logView.plainText
    assert json.loads((output / RUN_FILE).read_text())["exit"] == 0

    # The curves are nodes of the scene, and come again after it was closed.
    assert list(series(LOSS)) == ["fine"]
    assert set(series(ERROR)) == {"fine, training", "fine, validation"}
    ui.plotsButton.click()

    # The report of before and after, and the model in the first module.
    ui.tabs.currentIndex = TRAINING
    assert ui.reportSection.visible
    assert "Table IV" in ui.reportView.plainText
    assert not ui.reportPicture.pixmap.isNull()
    ui.useButton.click()
    key = str(output / "model")
    assert [model.key for model in usable_models()] == ["brain88", key]
    slicer.util.selectModule("BrainLandmarks")
    assert first.panel.model() == key
    assert first.panel.protocol().name == "brain88"
    slicer.util.selectModule("BrainLandmarksTrain")
    assert key in [ui.startCombo.itemData(n) for n in range(ui.startCombo.count)]
    shutil.rmtree(output)  # a model that is gone is offered no more
    assert [model.key for model in usable_models()] == ["brain88"]


CRASHING = """
import sys
sys.path.insert(0, {folder!r})
from core import Core
from desktop.session import Desktop
desktop = Desktop(Core())
panel = desktop.open({module!r}).self()
parameters = panel.logic.getParameterNode()
for name, value in {values!r}.items():
    setattr(parameters, name, value)
panel.panel.training.form.fill_models()
panel.panel.training.update()
panel.ui.startButton.click()
assert panel.panel.training.run is not None, panel.ui.messageLabel.text
print("started", flush=True)
while True:
    desktop.app.processEvents()
"""


def start_in_another_slicer(values):
    """Start a training in another stand-in of Slicer; returns its process."""
    script = CRASHING.format(folder=str(Path(__file__).parent), module=str(MODULE), values=values)
    # Slicer's own package comes in when its core is there, as in this process.
    own = Path(os.environ.get("HARNESS_SLICER_PYTHON", "")).parent
    path = [folder for folder in sys.path if Path(folder) != own]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    program = [sys.executable, "-c", "from pathlib import *\n" + script]
    process = subprocess.Popen(program, env=environment, text=True, stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.strip() == "started":
            return process
    raise AssertionError(f"it ended with {process.wait()}")


def test_a_training_survives_slicer_and_is_found_again(
    desktop, panel, scene, six_heads, weak_model, tmp_path
):
    ui, training, output = panel.ui, panel.panel.training, tmp_path / "my run"
    values = {"dataset": six_heads, "output": output, "startModel": str(weak_model),
              "amount": 100000, "trainingDevice": "cpu"}  # fmt: skip
    crashed = start_in_another_slicer(values)
    until(desktop, lambda: len(steps_taken(output)) > 1)
    crashed.kill()  # SIGKILL: nothing could be put in order
    crashed.wait()
    crashed.stdout.close()
    number = json.loads((output / RUN_FILE).read_text())["pid"]
    before = len(steps_taken(output))
    until(desktop, lambda: len(steps_taken(output)) > before)

    # Another Slicer: choosing the folder is enough.
    for name, value in values.items():
        setattr(panel.logic.getParameterNode(), name, value)
    assert training.run is not None, ui.messageLabel.text
    assert training.run.about["pid"] == number
    assert "runs here since" in ui.statusLabel.text
    assert not ui.startButton.enabled
    until(desktop, lambda: "left" in ui.statusLabel.text)
    assert "training the fine network" in ui.logView.plainText
    assert list(series(LOSS)) == ["fine"]

    # Closing the scene changes nothing for it; the panel goes on following.
    scene.Clear(False)
    assert training.run is not None
    assert panel.logic.getParameterNode().output == output
    until(desktop, lambda: series(LOSS))

    ui.pauseButton.click()
    assert "Pausing" in ui.statusLabel.text
    until(desktop, lambda: training.run is None)
    assert "Resume" in ui.statusLabel.text, ui.logView.plainText
    assert ui.startButton.text == "Resume"
    assert not ui.alphaSpin.enabled
    assert json.loads((output / RUN_FILE).read_text())["exit"] == STOPPED
    paused_at = max(steps_taken(output))
    assert int(sorted((output / "fine").glob("checkpoint-*"))[-1].name[-8:]) >= paused_at

    for name, value in values.items():  # the scene was closed; they came with it
        setattr(panel.logic.getParameterNode(), name, value)
    ui.startButton.click()
    assert ui.messageLabel.text == ""
    until(desktop, lambda: max(steps_taken(output)) > paused_at)
    numbers = steps_taken(output)
    assert numbers == sorted(set(numbers))  # no step twice

    # The training itself is killed: what it wrote is there, and Start goes on.
    number = training.run.about["pid"]
    os.kill(number, signal.SIGKILL)
    until(desktop, lambda: training.run is None)
    assert "ended from outside" in ui.statusLabel.text
    assert BackgroundRun.attach(output).state() == "lost"
    assert ui.startButton.enabled
    ui.startButton.click()
    run = training.run
    until(desktop, lambda: "left" in ui.statusLabel.text)

    # The module is left: the training goes on, and is found by a new panel.
    desktop.close_modules()
    assert run.state() == "running"
    again = desktop.open(MODULE).self()
    assert again.panel.training.run is not None
    assert again.logic.getParameterNode().output == output
    again.ui.stopButton.click()
    assert "Stopping" in again.ui.statusLabel.text
    if again.panel.training.run is not None and again.panel.training.run.stopping:
        assert again.ui.stopButton.text == "End at once"
    until(desktop, lambda: again.panel.training.run is None)
    assert "Stopped" in again.ui.statusLabel.text
    assert BackgroundRun.attach(output).state() == "stopped"


def test_a_training_that_fails_says_why(desktop, chosen, heads, tmp_path):
    os.truncate(heads / Dataset.open(heads).entries[0].image, 1000)
    chosen.logic.getParameterNode().dataset = heads
    chosen.ui.startButton.click()
    until(desktop, lambda: chosen.panel.training.run is None)
    assert "failed" in chosen.ui.statusLabel.text
    assert "is broken" in chosen.ui.logView.plainText
    assert not chosen.ui.logSection.collapsed
    assert not chosen.ui.reportSection.visible


def test_a_number_that_another_process_got_is_no_training(tmp_path):
    about = {"pid": os.getpid(), "created": psutil.Process().create_time() - 100, "exit": None}
    (tmp_path / RUN_FILE).write_text(json.dumps(about))
    run = BackgroundRun.attach(tmp_path)
    assert run.state() == "lost"
    run.kill()  # must not end this process
    (tmp_path / RUN_FILE).write_text(json.dumps({**about, "created": about["created"] + 100}))
    assert run.state() == "running"
    (tmp_path / RUN_FILE).write_text("{")
    assert BackgroundRun.attach(tmp_path) is None


def test_the_panel_needs_no_window(desktop, panel):
    desktop.close_modules()
    with desktop.headless():
        desktop.load(MODULE).widgetRepresentation()
