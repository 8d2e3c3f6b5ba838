"""A model fitted to a scanner without training: what its points usually lack is added to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_detection import BALLS, BallFinder, ball_protocol, head_grid, phantom, pose_of

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.correction import (
    ANSWER,
    FEWEST_HEADS,
    Correction,
    PointErrors,
    write_correction,
)
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    load_model,
    model_identity,
)
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.pipeline.calibrate import calibrate_model, correction_of

__all__ = ["ball_protocol"]

SHIFT = np.array([[2.0, 1, 0], [-2.0, 1, 0], [0, 0, 3], [0, -1.5, 0], [0, 0, -2]])
"""By how much landmarks lie beside the middle of the balls, in the head; mirrored ones mirrored."""

TOGETHER = np.array([1.0, 1, -1, -1, 1])[:, None] * [0, 0, 1.0]
"""Errors of height that are wrong together, and no motion of the whole head."""


@pytest.fixture(scope="module")
def model(ball_protocol):
    spec = ModelSpec("balls", CropSpec(48, 208.0), CropSpec(32, 256.0), BALLS - [0, 0, 5])
    return Model(ball_protocol, BallFinder(300.0), BallFinder(120.0), spec)


def lacking(count, seed=3):
    """What points lack on heads: `SHIFT`, errors of height that go together, and a scatter."""
    rng = np.random.default_rng(seed)
    common = 2.0 * rng.normal(size=(count, 1, 1)) * TOGETHER
    return SHIFT + common + rng.normal(0, 0.3, (count, *SHIFT.shape))


def test_what_points_usually_lack_is_found_on_both_sides_alike(model):
    mirror = model.protocol.mirror_permutation()
    errors = PointErrors.fit(lacking(40), mirror)
    assert np.linalg.norm(errors.offset - SHIFT, axis=1).max() < 1.0
    assert np.allclose(errors.offset[mirror] * [-1, 1, 1], errors.offset)
    # Heights are wrong together, the rest is not.
    sigma = np.sqrt(np.diag(errors.covariance))
    correlation = errors.covariance / np.outer(sigma, sigma)
    assert 0.3 < correlation[2, 5] <= 1.0
    assert -1.0 <= correlation[2, 8] < -0.3
    assert abs(correlation[1, 4]) < 0.3
    assert np.allclose(sigma[2::3], 2.0, atol=0.5)


def test_of_what_few_heads_have_nothing_is_learnt(model):
    mirror = model.protocol.mirror_permutation()
    lacks = lacking(FEWEST_HEADS + 1)
    lacks[:2, 4] = np.nan
    errors = PointErrors.fit(lacks, mirror)
    assert not errors.offset[4].any()
    assert errors.offset[2].any()
    assert not PointErrors.fit(lacking(FEWEST_HEADS - 1), mirror).offset.any()


@pytest.fixture(scope="module")
def correction(model):
    """Of heads that differ in size, found by a network that misjudges all heights together."""
    rng = np.random.default_rng(5)
    mean = model.spec.mean_shape
    mirror = model.protocol.mirror_permutation()
    heads = [mean * (1 + 0.05 * rng.normal()) for _ in range(60)]
    shape = ShapeModel.fit(heads, mirror, mean)
    lacks = lacking(60)
    found = np.array([head - lack for head, lack in zip(heads, lacks)])
    return correction_of(replace(model, shape=shape), heads, {"fine": found}, np.array(heads))


def test_points_are_put_where_they_belong(model, correction):
    rng = np.random.default_rng(8)
    heads = [model.spec.mean_shape * (1 + 0.05 * rng.normal()) for _ in range(40)]
    found = [head - lack for head, lack in zip(heads, lacking(40, seed=9))]
    before, after = (
        np.linalg.norm(np.array(points) - heads, axis=2).mean()
        for points in (found, [correction(p, "fine") for p in found])
    )
    assert after < 0.5 * before


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_it_does_not_matter_how_a_head_lies(model, correction, seed):
    rng = np.random.default_rng(seed)
    found = model.spec.mean_shape - lacking(1, seed)[0]
    pose = pose_of(rng.uniform(-170, 170, 3), rng.uniform(-50, 50, 3))
    moved = apply_affine(pose, correction(found, "fine"))
    assert np.allclose(correction(apply_affine(pose, found), "fine"), moved)


def test_the_errors_of_answers_are_those_of_heads_that_were_left_out(model, correction):
    """The network of this fixture errs together in height, and what is left of it still does."""
    answer = correction.errors[ANSWER]
    rng = np.random.default_rng(10)
    heads = [model.spec.mean_shape * (1 + 0.05 * rng.normal()) for _ in range(200)]
    left = [head - correction(head - lack, "fine") for head, lack in zip(heads, lacking(200, 11))]
    measured = np.cov(np.array(left).reshape(200, -1).T)
    sizes, stated = (np.sqrt(np.diag(c)) for c in (measured, answer.covariance))
    assert np.allclose(stated, np.maximum(sizes, 0.4), rtol=0.4)
    assert np.abs(answer.offset).max() < 0.5
    high = np.ix_([2, 5, 8], [2, 5, 8])
    one, other = (c[high] / np.outer(s[high[0].ravel()], s[high[0].ravel()])
                  for c, s in ((measured, sizes), (answer.covariance, stated)))  # fmt: skip
    assert np.allclose(one, other, atol=0.35)


def test_what_is_missing_or_unknown_stays_so(model, correction):
    points = model.spec.mean_shape.copy()
    assert correction(points, "refinement") is points
    points[3] = np.nan
    corrected = correction(points, "fine")
    assert np.isnan(corrected[3]).all()
    assert np.isfinite(corrected[[0, 1, 2, 4]]).all()
    points[2] = np.nan  # three points tell no shape
    assert correction(points, "fine") is points


def test_a_head_like_no_other_keeps_its_points(model, correction):
    """One part that is far away, as no head that was learnt from has it."""
    strange = model.spec.mean_shape.copy()
    strange[4] += [0, 0, 60.0]
    usual = model.spec.mean_shape.copy()
    usual[4] += [0, 0, 4.0]
    offset = correction.errors["fine"].offset

    def drawn(points):
        placed = points + offset
        return np.linalg.norm(correction(points, "fine") - placed) / np.linalg.norm(
            points - model.spec.mean_shape
        )

    assert drawn(strange) < 0.25 * drawn(usual)


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
    reported = []
    better = calibrate_model(
        model, dataset, device="cpu", progress=lambda *now: reported.append(now[:2])
    )
    assert reported[-1] == (7, 7)
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
    for number in range(FEWEST_HEADS):
        landmarks = LandmarkSet.from_points(tiny_protocol, shape + [0, 3.0, 0], "truth")
        volume = replace(blob_head, data=blob_head.data + np.float32(0.01 * number))
        dataset.add(volume, Review.of(landmarks), subject=f"S{number}")
    command = ["calibrate", str(tiny_model), str(tmp_path / "set"), "-o", str(tmp_path / "mine")]
    assert main([*command, "--name", "mine", "--device", "cpu"]) == 0
    assert "fine" in capsys.readouterr().out
    written = load_model(tmp_path / "mine")
    assert written.spec.name == "mine"
    assert written.correction.errors["fine"].offset.any()
    assert model_identity(tmp_path / "mine") != model_identity(tiny_model)
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "other"), "--heads", "2"]) == 2
    assert not (tmp_path / "other").exists()


def test_a_damaged_correction_is_reported(tmp_path, model, correction, tiny_model):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "correction.safetensors"
    write_correction(file, correction)
    again = load_model(folder).correction
    points = model.spec.mean_shape + 1.0
    assert np.allclose(again(points, "fine"), correction(points, "fine"), atol=1e-3)
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"{}" + whole):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"correction\.safetensors .* damaged"):
            load_model(folder)
    few = np.arange(4)
    shape = ShapeModel(correction.shape.mean[few], correction.shape.modes[:, :12], 1.0)
    write_correction(file, Correction(shape, {}))
    with pytest.raises(UserError, match="4 landmarks, not 5"):
        load_model(folder)
