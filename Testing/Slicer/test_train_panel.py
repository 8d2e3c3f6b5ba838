"""The training panel: choose settings, copy the command, train in the background, stop."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest
import slicer

from BrainLandmarksLib.ui import requirements

MODULE = Path(__file__).parents[2] / "BrainLandmarksTrain" / "BrainLandmarksTrain.py"
TIMEOUT_S = 120.0


@pytest.fixture
def panel(desktop):
    return desktop.open(MODULE).self()


@pytest.fixture
def recipe(tmp_path):
    """A recipe that lacks something: the command starts, says so and ends."""
    path = tmp_path / "my recipe.json"
    settings = {"name": "r", "label_maps": [str(tmp_path / "maps")], "output": "out"}
    path.write_text(json.dumps({**settings, "locator": {"steps": 1}, "fine": {"steps": 1}}))
    return path


def wait(desktop, panel):
    end = time.monotonic() + TIMEOUT_S
    while panel.training.run is not None:
        assert time.monotonic() < end
        desktop.app.processEvents()
        time.sleep(0.01)


def test_without_settings_nothing_can_start(panel):
    assert not panel.ui.startButton.enabled
    assert not panel.ui.copyButton.enabled
    assert panel.ui.commandEdit.text == ""


def test_the_command_is_the_one_that_runs(desktop, panel, recipe):
    panel.ui.configPath.currentPath = str(recipe)
    assert panel.logic.getParameterNode().config == recipe  # a saved scene keeps it
    assert shlex.split(panel.ui.commandEdit.text) == ["brainlandmarks", "train", str(recipe)]
    panel.ui.copyButton.click()
    assert slicer.app.clipboard().text() == panel.ui.commandEdit.text
    panel.ui.startButton.click()
    assert panel.ui.startButton.text == "Stop"
    assert not panel.ui.configPath.enabled
    wait(desktop, panel)
    assert "exit code 2" in panel.ui.statusLabel.text
    assert "brainlandmarks: error:" in panel.ui.logView.plainText
    assert panel.ui.startButton.text == "Start training"


def test_packages_are_asked_for_once_and_only_then_installed(desktop, panel, recipe, monkeypatch):
    lacking = requirements.Missing(("torchio>=0.20",), False)
    installed = []
    monkeypatch.setattr(requirements, "missing", lambda **_: () if installed else lacking)
    monkeypatch.setattr(requirements, "install", lambda what, log: installed.append(what))
    panel.ui.configPath.currentPath = str(recipe)
    desktop.dialogs.answer(False)
    panel.ui.startButton.click()
    assert panel.training.run is None
    assert "torchio" in desktop.dialogs.shown[-1].text
    panel.ui.startButton.click()
    assert installed == [lacking]
    assert panel.training.run is not None
    wait(desktop, panel)


def test_a_run_is_stopped_and_one_is_left_behind(desktop, panel, recipe):
    panel.ui.configPath.currentPath = str(recipe)
    panel.ui.startButton.click()
    panel.ui.startButton.click()
    assert "Stopping" in panel.ui.statusLabel.text
    assert not panel.ui.startButton.enabled
    wait(desktop, panel)
    assert panel.ui.startButton.enabled
    panel.ui.startButton.click()
    run = panel.training.run
    desktop.close_modules()
    assert run.poll(lambda line, error: None) is not None  # ended with the module


def test_the_panel_survives_a_closed_scene_and_no_window(desktop, panel, scene, recipe):
    panel.ui.configPath.currentPath = str(recipe)
    scene.Clear(False)
    assert panel.logic.getParameterNode().config == Path()
    desktop.close_modules()
    with desktop.headless():
        desktop.load(MODULE).widgetRepresentation()


def test_the_module_tests_itself(desktop):
    desktop.load(MODULE)
    slicer.modules.BrainLandmarksTrainInstance.runTest()
