"""A click on Detect, with the real worker and the shipped model."""

from __future__ import annotations

import sys
import time

import nibabel as nib
import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.mrml.landmarks.detection_run import DetectionRun, Found
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    load_model,
    save_model,
)
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.worker.client import Worker

PROTOCOL = load_protocol("brain88")
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def worker():
    made = Worker([sys.executable, "-m", "BrainLandmarksLib", "serve"])
    yield made
    made.stop()


@pytest.fixture
def head(scene):
    """The sample head as a volume node."""
    image = nib.load(resources.sample_head())
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Colin")
    slicer.util.updateVolumeFromArray(node, np.asarray(image.dataobj).transpose(2, 1, 0))
    matrix = vtk.vtkMatrix4x4()
    for i in range(4):
        for j in range(4):
            matrix.SetElement(i, j, float(image.affine[i, j]))
    node.SetIJKToRASMatrix(matrix)
    return node


@pytest.mark.slow
def test_a_volume_of_2_gb(worker, scene, head):
    """Files of more than 2^31 bytes, and landmarks where they are in the ordinary volume."""
    ordinary, _ = run(worker, head)
    kji = slicer.util.arrayFromVolume(head)
    large = np.zeros((1100, kji.shape[1] * 5, kji.shape[2] * 5), np.int16)
    for k, section in enumerate(kji):
        large[5 * k : 5 * k + 5] = section.repeat(5, 0).repeat(5, 1)
    assert large.nbytes > 2**31
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "large")
    slicer.util.updateVolumeFromArray(node, large)
    matrix = vtk.vtkMatrix4x4()
    head.GetIJKToRASMatrix(matrix)
    corner = matrix.MultiplyPoint((-0.4, -0.4, -0.4, 1.0))  # middle of the first small voxel
    for i in range(3):
        for j in range(3):
            matrix.SetElement(i, j, matrix.GetElement(i, j) / 5)
        matrix.SetElement(i, 3, corner[i])
    node.SetIJKToRASMatrix(matrix)
    found, _ = run(worker, node)
    assert isinstance(found, Found), found
    distance = np.linalg.norm(found.landmarks.points - ordinary.landmarks.points, axis=1)
    assert np.median(distance) < 1.0


def run(worker, volume, **options):
    """Run to the end; returns what came, the progress and the run."""
    ends, progress = [], []
    made = DetectionRun(
        worker, volume, PROTOCOL, lambda *p: progress.append(p), ends.append,
        device="cpu", **{"model": "brain88", "quality": "fast", **options},
    )  # fmt: skip
    end = time.monotonic() + PATIENCE_S
    while not ends:
        assert time.monotonic() < end, worker.diagnostics()
        worker.poll()
        time.sleep(0.01)
    assert len(ends) == 1
    assert not made.folder.exists()
    return ends[0], progress


def test_the_sample_head_is_found_where_it_is(scene, worker, head):
    found, progress = run(worker, head)
    assert isinstance(found, Found), found
    assert found.landmarks.missing.sum() < 5
    assert set(found.landmarks.status) <= {"model", "missing"}
    assert found.source == {"model": "brain88", "device": "cpu",
                            "precision": found.source["precision"],
                            "plausibility": found.source["plausibility"]}  # fmt: skip
    assert found.source["plausibility"] > 0.99
    assert 0 < found.seconds < PATIENCE_S
    assert progress[0][0] == "loading the model"
    assert progress[-1][1] == pytest.approx(1.0)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = Rotation.from_euler("zx", [15, -10], degrees=True).as_matrix()
    matrix = vtk.vtkMatrix4x4()
    for i in range(3):
        for j in range(3):
            matrix.SetElement(i, j, turn[i, j])
        matrix.SetElement(i, 3, (10.0, -20.0, 5.0)[i])
    transform.SetMatrixTransformToParent(matrix)
    head.SetAndObserveTransformNodeID(transform.GetID())
    moved, _ = run(worker, head)
    expected = found.landmarks.points @ turn.T + [10, -20, 5]
    error = np.linalg.norm(moved.landmarks.points - expected, axis=1)
    assert np.nanmedian(error) < 1.5


@pytest.fixture(scope="module")
def lost_model(tmp_path_factory):
    """It finds all points in about one place, in a moment; every orientation is searched."""
    shipped = load_model("brain88")
    small = {"features": 2, "residual_blocks": 1, "penultimate": 8}
    networks = [HighRes3DNet(out_channels=len(PROTOCOL), **small).eval() for _ in range(2)]
    spec = ModelSpec("lost", CropSpec(16, 208.0), CropSpec(16, 256.0), shipped.spec.mean_shape)
    return str(save_model(Model(PROTOCOL, *networks, spec), tmp_path_factory.mktemp("m") / "lost"))


def test_what_is_no_head_is_said_in_one_sentence(worker, scene, lost_model):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    outcome, _ = run(worker, node, model=lost_model)
    assert isinstance(outcome, Failure)
    assert "no volume" in outcome.sentence
    rng = np.random.default_rng(0)
    slicer.util.updateVolumeFromArray(node, np.zeros((40, 40, 40), np.int16))
    node.SetSpacing(4, 4, 4)
    outcome, _ = run(worker, node, model=lost_model)
    assert isinstance(outcome, Failure)
    assert "Traceback" not in outcome.sentence
    slicer.util.updateVolumeFromArray(node, rng.random((60, 60, 60)).astype(np.float32))
    outcome, _ = run(worker, node, model=lost_model)
    assert isinstance(outcome, Failure)
    assert outcome.implausible
    assert "no head was recognised" in outcome.sentence
    forced, _ = run(worker, node, model=lost_model, force=True)
    assert isinstance(forced, Found)
    assert forced.source["plausibility"] < 0.1
    assert np.nanmax(forced.landmarks.confidence) < 0.1
    assert "implausible" in forced.notes[0]


def test_cancelling_brings_nothing_and_leaves_nothing(worker, head):
    ends = []
    progress = []
    made = DetectionRun(
        worker, head, PROTOCOL, lambda *p: progress.append(p), ends.append,
        model="brain88", device="cpu",
    )  # fmt: skip
    end = time.monotonic() + PATIENCE_S
    while not progress:
        assert time.monotonic() < end
        worker.poll()
        time.sleep(0.01)
    made.cancel()
    start = time.monotonic()
    while not ends:
        worker.poll()
        time.sleep(0.01)
    assert time.monotonic() - start < 1.0
    assert ends == [None]
    assert not made.folder.exists()
