"""Slicer's core, booted once for this folder's tests, which run in a process of their own."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

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


@pytest.fixture
def bent(scene):
    """A warping transform: waves of some millimetres."""
    import vtk

    at = np.stack(np.meshgrid(*[[-120.0, -40.0, 40.0, 120.0]] * 3), -1).reshape(-1, 3)
    spline = vtk.vtkThinPlateSplineTransform()
    for points, set_points in (
        (at, spline.SetSourceLandmarks),
        (at + 6 * np.sin(at[:, [1, 2, 0]] / 30), spline.SetTargetLandmarks),
    ):
        places = vtk.vtkPoints()
        for point in points:
            places.InsertNextPoint(*point)
        set_points(places)
    spline.SetBasisToR()
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(spline)
    return node


# ---- small heads, and a small model that finds them ----------------------------------------------


@pytest.fixture(scope="session")
def phantom():
    """Testing/Python/phantom.py."""
    folder = str(Path(__file__).parents[1] / "Python")
    if folder not in sys.path:
        sys.path.append(folder)
    import phantom

    return phantom


@pytest.fixture(scope="session")
def small_sample():
    """The sample head with voxels of 4 mm, and its landmarks."""
    from BrainLandmarksLib import resources
    from BrainLandmarksLib.geometry.grid import Grid
    from BrainLandmarksLib.imaging.resampling import resample
    from BrainLandmarksLib.imaging.volume import Volume
    from BrainLandmarksLib.io.images import read_image
    from BrainLandmarksLib.io.landmarks import read_landmarks
    from BrainLandmarksLib.protocol import load_protocol

    head = read_image(resources.sample_head())
    truth = read_landmarks(resources.sample_landmarks("brain88"), load_protocol("brain88"))
    shape = tuple(int(n) for n in np.ceil(head.grid.extent / 4.0))
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = head.grid.center_ras - (np.array(shape) - 1) / 2 * 4.0
    grid = Grid(shape, affine)
    return Volume(np.rint(resample(head, grid)), grid), truth


@pytest.fixture(scope="session")
def six_heads(tmp_path_factory, phantom, small_sample):
    """The folder of a dataset of 6 small heads, split 4, 1, 1; only to be read."""
    from BrainLandmarksLib.dataset.split import split_dataset

    folder = tmp_path_factory.mktemp("datasets") / "six"
    scan, truth = small_sample
    split_dataset(phantom.small_heads(folder, truth, scan, count=6), validation=1, test=1, seed=1)
    return folder


@pytest.fixture
def heads(tmp_path, six_heads):
    """A copy of `six_heads` to change."""
    return Path(shutil.copytree(six_heads, tmp_path / "heads"))


@pytest.fixture(scope="session")
def weak_model(tmp_path_factory, six_heads):
    """A model folder that finds heads, and landmarks only roughly: 40 steps on cubes of 16."""
    from dataclasses import replace

    import torch

    from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
    from BrainLandmarksLib.network.model_files import (
        CropSpec,
        Model,
        ModelSpec,
        load_model,
        save_model,
    )
    from BrainLandmarksTrainLib.config.finetune import finetune_recipe
    from BrainLandmarksTrainLib.pipeline.train import train_model

    folder = tmp_path_factory.mktemp("models")
    shipped = load_model("brain88")
    torch.manual_seed(3)
    network = HighRes3DNet(out_channels=len(shipped.protocol), features=4).eval()
    spec = ModelSpec("new", CropSpec(16, 208.0), shipped.spec.locator, shipped.spec.mean_shape)
    model = Model(shipped.protocol, network, shipped.locator, spec, shipped.shape)
    start = save_model(model, folder / "new")
    recipe = finetune_recipe(
        start, six_heads, folder / "run", name="weak", steps=40, machine={"device": "cpu"}
    )
    fine = replace(
        recipe.fine, learning_rate=4e-3, ema_decay=0.9, freeze_norm_at=0.7, epoch_steps=40,
        recalibration_batches=10, validation_scans=1, tensorboard=False,
    )  # fmt: skip
    recipe = replace(recipe, fine=fine, scans=replace(recipe.scans, augmented_share=0.0))
    return train_model(recipe, lambda line: None)
