"""The modules' own tests, which Slicer's developers run: here on its core, with the same code."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import pytest
import slicer

from BrainLandmarksLib.mrml import requirements

ROOT = Path(__file__).parents[2]
MODULES = [
    ROOT / "BrainLandmarks" / "BrainLandmarks.py",
    ROOT / "BrainLandmarks" / "BrainLandmarksGradCAM.py",
    ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py",
]
FAST = {
    "BrainLandmarks": {"test_place_by_click", "test_review_save_and_load"},
    "BrainLandmarksGradCAM": {"test_a_map"},
    "BrainLandmarksTrain": {"test_command"},
}
SLOW = {
    "BrainLandmarks": {"test_detect"},
    "BrainLandmarksGradCAM": {"test_a_map_of_the_sample_head"},
    "BrainLandmarksTrain": {"test_training"},
}
"""Those that run the whole network on the CPU."""


@pytest.fixture
def case(desktop, scene):
    """Makes a module's test case; all modules are loaded, as in Slicer."""
    for path in MODULES:
        desktop.load(path)
    return lambda name: getattr(sys.modules[name], f"{name}Test")()


def pairs(table):
    return [(module, test) for module, tests in table.items() for test in sorted(tests)]


@pytest.mark.parametrize(("module", "test"), pairs(FAST))
def test_one(case, module, test):
    made = case(module)
    made.setUp()
    getattr(made, test)()


@pytest.mark.slow
@pytest.mark.parametrize(("module", "test"), pairs(SLOW))
def test_one_with_the_network(case, module, test):
    made = case(module)
    made.setUp()
    getattr(made, test)()


def test_there_are_no_others(case):
    for module, known in FAST.items():
        names = {n for n in dir(case(module)) if n.startswith("test_")}
        assert names == known | SLOW[module]


def test_the_button_runs_all_of_them_and_goes_on_where_packages_are_missing(
    desktop, case, monkeypatch
):
    """Reload and Test; Slicer installs nothing while it tests."""
    ran = []
    lacking = requirements.Missing(("nibabel>=5.0",), True)
    monkeypatch.setattr(requirements, "missing", lambda **_: lacking)
    for module, tests in FAST.items():
        for test in tests:
            kind = type(case(module))
            monkeypatch.setattr(kind, test, lambda self, name=test: ran.append(name))
        getattr(slicer.modules, f"{module}Instance").runTest()
    assert set(ran) == set().union(*FAST.values())
    assert len(desktop.dialogs.texts("delay")) == sum(len(tests) for tests in SLOW.values())
    assert all("lacks nibabel" in text for text in desktop.dialogs.texts("delay"))


def test_a_skipped_test_is_not_a_failed_one(case, monkeypatch):
    lacking = requirements.Missing((), True)
    monkeypatch.setattr(requirements, "missing", lambda **_: lacking)
    for module, tests in SLOW.items():
        for test in tests:
            with pytest.raises(unittest.SkipTest, match="lacks PyTorch"):
                getattr(case(module), test)()
