"""A Slicer whose Python has only what comes with it: on the first day, and after every upgrade."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import slicer
import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.ui.common.preferences import preference

ROOT = Path(__file__).parents[2]
MODULES = {
    "BrainLandmarks": ROOT / "BrainLandmarks" / "BrainLandmarks.py",
    "BrainLandmarksGradCAM": ROOT / "BrainLandmarks" / "BrainLandmarksGradCAM.py",
    "BrainLandmarksTrain": ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py",
}
PANELS = {
    "BrainLandmarks": "BrainLandmarksLib.ui.landmarks.panel.Panel",
    "BrainLandmarksGradCAM": "BrainLandmarksLib.ui.gradcam.panel.GradcamPanel",
    "BrainLandmarksTrain": "BrainLandmarksTrainLib.ui.panel.TrainPanel",
}
TIMEOUT_S = 300

BARE = """
import sys
sys.path[:0] = [{folder!r}, *{libraries!r}]
from core import Core
from desktop.session import Desktop

desktop = Desktop(Core())
absent = {absent!r}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in [n for n in sys.modules if n.split(".")[0] in absent]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
from importlib import metadata
real = metadata.version
def version(name):
    if name.replace("-", "_") in absent or name == "PyYAML":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version

import slicer.util
from BrainLandmarksLib.ui.common.preferences import preference
preference("lastRun", {run!r})
panels = [desktop.open(module).self() for module in {modules!r}]
print("info:", panels[0].ui.deviceInfoLabel.text)
print("training:", panels[2].ui.statusLabel.text)
panels[2].logic.getParameterNode().dataset = __import__("pathlib").Path({dataset!r})
slicer.util.selectModule("BrainLandmarks")
panels[0].ui.sampleButton.click()
slicer.util.selectModule("BrainLandmarksTrain")
table = panels[2].ui.caseTable
print("cases:", table.rowCount)
table.setCurrentCell(0, 0)
table.cellDoubleClicked(0, 0)
print("corrected in:", slicer.util.selectedModule(), panels[0].panel.session is not None)
panels[0].panel.reviewing.activate("CC_G")
desktop.dialogs.clear()
for panel in panels:
    slicer.util.selectModule(panel.moduleName)
    for name, widget in sorted(vars(panel.ui).items()):
        if widget.className() in ("QPushButton", "QToolButton") and widget.enabled:
            desktop.dialogs.answer(False)
            widget.click()
            desktop.app.processEvents()
            desktop.dialogs.answers.clear()
            text = panel.ui.messageLabel.text
            if "unexpected" in text:
                print("unexpected:", name)
            print("clicked:", name, text)
print("asked:", *desktop.dialogs.texts("info"), *desktop.dialogs.texts("debug"))
print("raised:", desktop.slotErrors)
"""

ABSENT = {
    "torch", "nibabel", "scipy", "safetensors", "contourpy", "matplotlib", "jsonschema", "yaml",
    "torchio", "lightning_fabric", "lightning", "tensorboardX", "tqdm", "psutil",
    "SlicerDevelopmentToolboxUtils", "sitkUtils", "pydicom", "SimpleITK",
}  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory, six_heads):
    """What a Slicer without any of our packages prints, in which every button is clicked."""
    run = tmp_path_factory.mktemp("run")
    about = {"pid": os.getpid(), "created": 0.0, "started": "2026-01-01T00:00:00+00:00",
             "arguments": [], "command": "", "exit": None}  # fmt: skip
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    code = BARE.format(
        folder=str(Path(__file__).parent),
        libraries=[str(MODULES[name].parent) for name in ("BrainLandmarks", "BrainLandmarksTrain")],
        absent=ABSENT,
        run=str(run),
        dataset=str(six_heads),
        modules=[str(path) for path in MODULES.values()],
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_every_panel_opens_and_says_what_is_missing(bare):
    assert "info: Packages are missing" in bare.stdout
    assert "it cannot be seen whether a training runs here" in bare.stdout
    assert "cases: 6" in bare.stdout
    assert "corrected in: BrainLandmarks True" in bare.stdout
    assert "BrainLandmarks needs nibabel" in bare.stdout
    assert re.search(r"needs .*psutil", bare.stdout)


def test_every_button_says_a_sentence(bare):
    assert "raised: []\n" in bare.stdout, bare.stderr[-3000:]
    assert "unexpected:" not in bare.stdout
    assert bare.stdout.count("clicked:") > 30


@pytest.mark.parametrize("name", MODULES)
def test_a_setup_that_fails_fails_once(desktop, scene, monkeypatch, name):
    def broken(*_arguments):
        raise ZeroDivisionError("as a test")

    monkeypatch.setattr(f"{PANELS[name]}.__init__", broken)
    desktop.open(MODULES[name])
    scene.Clear(False)
    slicer.util.selectModule("")
    slicer.util.selectModule(name)
    desktop.close_modules()
    scene.Clear(False)
    assert [type(error) for error in desktop.slotErrors] == [ZeroDivisionError]
    desktop.slotErrors.clear()


def test_nothing_can_be_clicked_during_an_installation(desktop, monkeypatch):
    """Its progress lets clicks in; a second installation would spoil the first."""
    lacking = requirements.Missing(("torchio>=0.20",), False)
    meanwhile = []

    def install(what, *_arguments, log):
        ui = panels["BrainLandmarksTrain"].ui
        meanwhile.append((ui.startButton.enabled, ui.loadCaseButton.enabled, ui.tabs.enabled))
        for panel in panels.values():
            with pytest.raises(UserError, match="are being installed"):
                ready(panel)

    def ready(panel):
        panel = panel.panel
        if hasattr(panel, "installer"):
            return panel.installer.ready()
        return panel.ready() if hasattr(panel, "ready") else panel.detecting._installer.ready()

    preference("lastRun", "")
    panels = {name: desktop.open(module).self() for name, module in MODULES.items()}
    monkeypatch.setattr(requirements, "missing", lambda **_: lacking)
    monkeypatch.setattr(requirements, "install", install)
    for panel in panels.values():
        ready(panel)
    assert [state[1] for state in meanwhile] == [False] * 3
    assert meanwhile[2] == (False, False, False)
    assert panels["BrainLandmarksTrain"].ui.tabs.enabled
    assert panels["BrainLandmarks"].ui.detectButton.enabled
