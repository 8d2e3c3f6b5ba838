"""The Gaussian over landmarks: what it expects, what it finds odd, how it follows a correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.shape_model import (
    ShapeModel,
    read_shape,
    sigma_of_confidence,
    uncertainty,
    write_shape,
)

COUNT = 12
MIRROR = np.array([1, 0, 3, 2, 5, 4, 7, 6, 8, 9, 10, 11])


def mean_points():
    rng = np.random.default_rng(1)
    points = rng.uniform(-60, 60, (COUNT, 3))
    points[1:8:2] = points[0:8:2] * [-1, 1, 1]
    points[8:, 0] = 0
    return points


def heads(number, rng, noise_mm=0.5, pose=True):
    """Heads that differ by size and by how high the first four points lie, in any pose."""
    made = []
    for _ in range(number):
        points = mean_points() * (1 + 0.06 * rng.standard_normal())
        points[:4, 2] += 4.0 * rng.standard_normal()
        points += noise_mm * rng.standard_normal(points.shape)
        if pose:
            affine = np.eye(4)
            affine[:3, :3] = Rotation.random(random_state=int(rng.integers(1 << 31))).as_matrix()
            affine[:3, 3] = rng.uniform(-50, 50, 3)
            points = apply_affine(affine, points)
        made.append(points)
    return made


@pytest.fixture(scope="module")
def model():
    return ShapeModel.fit(heads(60, np.random.default_rng(0)), MIRROR, mean_points(), modes=10)


def test_it_learns_what_varies(model):
    assert np.abs(model.mean - mean_points()).max() < 2.0
    sample = np.array([h.ravel() for h in heads(4000, np.random.default_rng(5), pose=False)])
    first = model.modes[0] / np.linalg.norm(model.modes[0])
    main = np.linalg.eigh(np.cov(sample.T))[1][:, -2:]
    assert np.linalg.norm(main.T @ first) > 0.8
    assert model.residual_mm < 1.5


def test_it_is_symmetric(model):
    mirrored = (model.mean * [-1, 1, 1])[MIRROR]
    np.testing.assert_allclose(mirrored, model.mean, atol=1e-6)


def test_missing_points_do_not_spoil_the_fit(model):
    training = heads(60, np.random.default_rng(0))
    for k, head in enumerate(training):
        head[k % COUNT] = np.nan
    holed = ShapeModel.fit(training, MIRROR, mean_points(), modes=10)
    assert np.abs(holed.mean - model.mean).max() < 1.0
    ratio = np.trace(holed.covariance) / np.trace(model.covariance)
    assert 0.8 < ratio < 1.2


def test_the_odd_one_out_deviates(model):
    rng = np.random.default_rng(7)
    for points in heads(20, rng):
        usual = model.deviation(points, 0.5)
        assert np.median(usual) < 3.0
        odd = points.copy()
        odd[6] += 15.0 * np.array([0.6, 0.0, 0.8])
        deviation = model.deviation(odd, 0.5)
        assert np.nanargmax(deviation) == 6
        assert deviation[6] > 4.0
    lost = points.copy()
    lost[3] = np.nan
    assert np.isnan(model.deviation(lost, 0.5)).nonzero()[0].tolist() == [3]


def test_a_correction_takes_its_companions_along(model):
    """The network saw the first four points too low; correcting one of them mends the others."""
    rng = np.random.default_rng(3)
    before, after = [], []
    for truth in heads(30, rng, noise_mm=0.2, pose=False):
        found = truth + 0.3 * rng.standard_normal(truth.shape)
        found[:4, 2] -= 8.0
        corrected = np.full_like(truth, np.nan)
        corrected[0] = truth[0]
        sigma = np.full(COUNT, 1.0)
        sigma[:4] = 8.0
        solved = model.resolve(found, corrected, sigma)
        np.testing.assert_array_equal(solved[0], truth[0])
        before.append(np.linalg.norm(found - truth, axis=1)[1:])
        after.append(np.linalg.norm(solved - truth, axis=1)[1:])
    before, after = np.mean(before, 0), np.mean(after, 0)
    assert (after[:3] < 0.7 * before[:3]).all()
    assert (after[3:] < before[3:] + 0.5).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_resolving_moves_with_the_head(model, seed):
    rng = np.random.default_rng(seed)
    truth = heads(1, rng, pose=False)[0]
    corrected = np.full_like(truth, np.nan)
    corrected[[2, 9]] = truth[[2, 9]] + rng.normal(0, 4, (2, 3))
    sigma = rng.uniform(1, 6, COUNT)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed % 2**31).as_matrix()
    affine[:3, 3] = rng.uniform(-80, 80, 3)
    solved = model.resolve(truth, corrected, sigma)
    moved = model.resolve(apply_affine(affine, truth), apply_affine(affine, corrected), sigma)
    np.testing.assert_allclose(moved, apply_affine(affine, solved), atol=1e-6)


def test_a_correction_of_nothing_moves_nothing(model):
    truth = heads(1, np.random.default_rng(2))[0]
    corrected = np.full_like(truth, np.nan)
    np.testing.assert_array_equal(model.resolve(truth, corrected, 2.0), truth)
    corrected[4] = truth[4]
    np.testing.assert_allclose(model.resolve(truth, corrected, 2.0), truth, atol=1e-9)


def test_a_point_that_was_not_found_can_be_placed(model):
    truth = heads(1, np.random.default_rng(4), pose=False)[0]
    found = truth.copy()
    found[[0, 7]] = np.nan
    corrected = np.full_like(truth, np.nan)
    corrected[0] = truth[0]
    solved = model.resolve(found, corrected, 2.0)
    np.testing.assert_array_equal(solved[0], truth[0])
    assert np.isnan(solved[7]).all()
    assert np.linalg.norm(solved[1:7] - truth[1:7], axis=1).max() < 3.0


def test_confidence_stands_for_an_error():
    for sigma in (1.0, 2.0, 4.0):
        p = stats.maxwell.cdf(4.0 / sigma)
        assert sigma_of_confidence(p, 4.0) == pytest.approx(sigma, rel=1e-6)
    assert sigma_of_confidence(np.nan, 4.0) == 10.0
    assert sigma_of_confidence(1.0, 4.0) >= 0.5


@pytest.mark.parametrize(
    ("mean", "modes", "residual"),
    [
        (np.zeros((4, 3)), np.zeros((2, 11)), 1.0),
        (np.zeros((4, 3)), np.full((2, 12), np.nan), 1.0),
        (np.zeros((4, 3)), np.zeros((2, 12)), 0.0),
    ],
)
def test_a_model_that_does_not_fit_together_is_refused(mean, modes, residual):
    with pytest.raises(ValueError, match="shape model"):
        ShapeModel(mean, modes, residual)


def test_it_survives_its_file(model, tmp_path):
    path = tmp_path / "shape.safetensors"
    write_shape(path, model)
    again = read_shape(path)
    np.testing.assert_allclose(again.covariance, model.covariance, atol=1e-3)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a file of tensors"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            read_shape(path)


def test_uncertainty_is_what_confidence_leaves_and_more_where_a_point_fits_badly():
    np.testing.assert_allclose(
        uncertainty([1.0, 0.5, 0.5, 0.5, np.nan], [9.0, 0.3, np.nan, 3.2, 1.6]),
        [0, 0.5, 0.5, 1.0, 0.5],
    )
