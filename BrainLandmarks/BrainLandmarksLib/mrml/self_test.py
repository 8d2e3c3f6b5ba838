"""What the modules' own tests need, which run in Slicer: packages, time, a mouse."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable, Iterable
from typing import Any

import slicer
import slicer.util
import vtk

from BrainLandmarksLib import resources
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

TIMEOUT_S = 600.0


def run_all(test: Any) -> None:
    """Run every test of a module, as the button Reload and Test does; some may be skipped."""
    for name in sorted(n for n in dir(test) if n.startswith("test_")):
        test.setUp()
        try:
            getattr(test, name)()
        except unittest.SkipTest as reason:
            test.delayDisplay(f"{name}: {reason}")


def need_packages(test: Any, *, training: bool = False) -> None:
    """Skip a test where packages are missing; Slicer installs none while it tests."""
    missing = requirements.missing(training=training)
    if missing:
        names = [*missing.packages, *["PyTorch"] * missing.pytorch]
        test.skipTest(f"Slicer's Python lacks {', '.join(names)}")


def placed_landmarks(protocol: Protocol) -> LandmarkSet:
    """The landmarks of the sample head, placed by eye."""
    path = resources.sample_landmarks(protocol.name)
    found = read_landmarks(path, protocol)
    status = ["missing" if gone else "model" for gone in found.missing]
    return LandmarkSet(protocol, found.points, status, found.confidence)


def shown_widget(name: str) -> Any:
    """A module's widget; it is entered where there is a window to show it in."""
    if slicer.util.mainWindow() is not None:
        slicer.util.selectModule(name)
    return slicer.util.getModuleWidget(name)


def wait_for(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> None:
    """Let Slicer work until a condition holds.

    Raises:
        AssertionError: it does not hold in time.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:g} s")
        slicer.app.processEvents()
        time.sleep(0.01)


def click_in_slice(test: Any, point: Iterable[float], name: str = "Red") -> None:
    """Click with the mouse where a place, world RAS mm, is seen in a slice view."""
    layout = slicer.app.layoutManager()
    if layout is None:
        test.skipTest("there are no views without a window")
    widget = layout.sliceWidget(name)
    slicer.app.processEvents()
    inverse = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), inverse)
    x, y = (round(v) for v in inverse.MultiplyPoint((*map(float, point), 1.0))[:2])
    slicer.util.clickAndDrag(widget, button="None", start=(x - 1, y), end=(x, y), steps=2)
    slicer.util.clickAndDrag(widget, button="Left", start=(x, y), end=(x, y), steps=1)
    slicer.app.processEvents()
