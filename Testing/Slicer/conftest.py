"""Slicer's core, booted once for this folder's tests, which run in a process of their own."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

collect_ignore_glob = ["test_*.py"] if find_spec("slicer") is None else []


@pytest.fixture(scope="session")
def core():
    from core import Core

    return Core()


@pytest.fixture
def scene(core):
    """The scene, empty."""
    core.scene.Clear(False)
    return core.scene


@pytest.fixture(scope="session")
def started_desktop(core):
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    from desktop.session import Desktop

    return Desktop(core)


@pytest.fixture
def desktop(started_desktop, scene):
    """The desktop with an empty scene; nothing may have been raised in a slot or an observer."""
    yield started_desktop
    started_desktop.close_modules()
    started_desktop.dialogs.clear()
    raised = list(started_desktop.slotErrors)
    started_desktop.slotErrors.clear()
    assert not raised


@pytest.fixture
def volume(scene):
    """A small volume with a direction of its own for every axis, and no two voxels alike."""
    import slicer
    import vtk

    kji = np.arange(30 * 32 * 34).reshape(30, 32, 34).astype(np.int16)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Head of Ms X")
    matrix = vtk.vtkMatrix4x4()
    rows = [[-3.3, 0.0, 0.0, 52.0], [0.0, 0.0, 2.7, -37.0], [0.0, -3.0, 0.0, 43.5]]
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            matrix.SetElement(i, j, value)
    slicer.util.updateVolumeFromArray(node, kji)
    node.SetIJKToRASMatrix(matrix)
    return node


@pytest.fixture
def turned(scene):
    """A linear transform: a quarter turn about S and a shift."""
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    for i, row in enumerate([[0, -1, 0, 10.0], [1, 0, 0, -20.0], [0, 0, 1, 5.0]]):
        for j, value in enumerate(row):
            matrix.SetElement(i, j, value)
    node.SetMatrixTransformToParent(matrix)
    return node
