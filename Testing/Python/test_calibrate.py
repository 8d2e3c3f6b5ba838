"""A model fitted to a scanner without training: what its points usually lack is added to them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_detection import BALLS, BallFinder, ball_protocol, head_grid, phantom, pose_of

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec, load_model
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.evaluation.held_out import HeldOut
from BrainLandmarksTrainLib.pipeline.calibrate import FEWEST, calibrate_model, with_offsets

__all__ = ["ball_protocol"]

SHIFT = np.array([[2.0, 1, 0], [-2.0, 1, 0], [0, 0, 3], [0, -1.5, 0], [0, 0, -2]])
"""By how much the landmarks of people lie beside the middle of the balls, in the head; mirrored
landmarks lie mirrored."""


@pytest.fixture(scope="module")
def model(ball_protocol):
    spec = ModelSpec("balls", CropSpec(48, 208.0), CropSpec(32, 256.0), BALLS - [0, 0, 5])
    return Model(ball_protocol, BallFinder(300.0), BallFinder(120.0), spec)


def result_of(found, truth):
    nothing = np.full(found.shape[:2], np.nan)
    errors = np.linalg.norm(found - truth, axis=2)
    return HeldOut(tuple("x" * len(found)), errors, nothing, found, truth)


def scattered(model, count, seed=3):
    """Points that lack `SHIFT` on heads in any pose, and a scatter of 0.5 mm besides."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(count):
        pose = pose_of(rng.uniform(-40, 40, 3), rng.uniform(-20, 20, 3))
        found.append(apply_affine(pose, model.spec.mean_shape))
        scatter = rng.normal(0, 0.5, SHIFT.shape)
        truth.append(apply_affine(pose, model.spec.mean_shape + SHIFT + scatter))
    return result_of(np.array(found), np.array(truth))


def test_what_points_usually_lack_is_found_in_any_pose(model):
    offsets = with_offsets(model, "fine", scattered(model, 20)).spec.offsets["fine"]
    assert np.linalg.norm(offsets - SHIFT, axis=1).max() < 0.5
    mirror = model.protocol.mirror_permutation()
    assert np.allclose(offsets[mirror] * [-1, 1, 1], offsets)


def test_what_few_heads_have_keeps_its_offset(model):
    result = scattered(model, FEWEST + 1)
    result.truth[:2, 4] = np.nan
    before = replace(model, spec=replace(model.spec, offsets={"fine": np.full((5, 3), 0.25)}))
    offsets = with_offsets(before, "fine", result).spec.offsets["fine"]
    assert np.allclose(offsets[4], 0.25)
    assert not np.allclose(offsets[2], 0.25)
    assert not with_offsets(model, "fine", scattered(model, FEWEST - 1)).spec.offsets["fine"].any()


def test_a_calibrated_model_finds_what_people_mark(model, tmp_path):
    """From scans to the offsets, and from the offsets to landmarks, in turned heads."""
    dataset = Dataset.create(tmp_path / "set", model.protocol)
    poses = [pose_of((8 * n - 20, 12 - 5 * n, 6 * n - 15), (n, -n, 2 * n)) for n in range(7)]
    for number, pose in enumerate(poses):
        head = phantom(head_grid((3, 3, 3), extent=(230, 260, 250)), pose)
        points = apply_affine(pose, BALLS + SHIFT)
        landmarks = LandmarkSet.from_points(model.protocol, points, "truth")
        split = "validation" if number == 6 else "train"
        dataset.add(head, Review.of(landmarks), subject=f"S{number}", split=split)
    told = []
    better = calibrate_model(
        model, dataset, device="cpu", progress=lambda *now: told.append(now[:2])
    )
    assert told[-1] == (7, 7)
    assert better.spec.name == "balls-calibrated"
    assert better.spec.calibration is not None  # of the scan for validation
    sample = dataset.read(dataset.entries[6])
    truth = sample.review.current.points
    errors = [
        np.linalg.norm(Detector(m, "cpu").detect(sample.volume).landmarks.points - truth, axis=1)
        for m in (model, better)
    ]
    assert errors[0].mean() > 1.5
    assert errors[1].max() < 1.0


def test_what_cannot_be_calibrated(model, tmp_path, tiny_protocol):
    few = Dataset.create(tmp_path / "few", model.protocol)
    with pytest.raises(UserError, match="0 scans"):
        calibrate_model(model, few)
    other = Dataset.create(tmp_path / "other", tiny_protocol)
    with pytest.raises(UserError, match="the dataset has tiny"):
        calibrate_model(model, other)


# The command --------------------------------------------------------------------------------------


def test_the_command_writes_a_model_that_keeps_its_offsets(
    tmp_path, tiny_model, tiny_protocol, blob_head, capsys
):
    dataset = Dataset.create(tmp_path / "set", tiny_protocol)
    shape = load_model(tiny_model).spec.mean_shape
    for number in range(FEWEST):
        landmarks = LandmarkSet.from_points(tiny_protocol, shape + [0, 3.0, 0], "truth")
        volume = replace(blob_head, data=blob_head.data + np.float32(0.01 * number))
        dataset.add(volume, Review.of(landmarks), subject=f"S{number}")
    command = ["calibrate", str(tiny_model), str(tmp_path / "set"), "-o", str(tmp_path / "mine")]
    assert main([*command, "--name", "mine", "--device", "cpu"]) == 0
    assert "fine" in capsys.readouterr().out
    written = load_model(tmp_path / "mine")
    assert written.spec.name == "mine"
    assert written.spec.offsets["fine"].shape == (5, 3)
    assert written.spec.offsets["fine"].any()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "other"), "--heads", "2"]) == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("rows", [[[0, 0, 0]], [["a", 0, 0]] * 5, [[float("nan"), 0, 0]] * 5, 7])
def test_damaged_offsets_are_told(tmp_path, tiny_model, rows):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "model.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "offsets": {"fine": rows}}))
    with pytest.raises(UserError, match="offsets of the fine network"):
        load_model(folder)
