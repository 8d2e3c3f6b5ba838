"""Globes of the eyes, fitted to the image: found where there are some, and nowhere else."""

import functools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.annotation.globe import eye_points, fit_globe, fit_globes
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.resources import sample_head, sample_landmarks

EYE = np.array([31.0, 66.0, -22.0])
RADIUS = 12.4
"""Of the made-up head, mm."""


def errors(globe, side, landmarks):
    points = eye_points(globe, side)
    return [np.linalg.norm(points[label] - landmarks.point(label)) for label in points]


@functools.lru_cache
def orbit(spacing, *, vitreous=0.2, fat=0.9, seed=0):
    """An eye in fat with its lens, its nerve, a lid and air in front, noise and shading."""
    shape = tuple(round(70 / mm) for mm in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = EYE - (np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine)
    fine = 2  # sub-voxels for partial volume
    ijk = np.stack(np.meshgrid(*[(np.arange(n * fine) + 0.5) / fine - 0.5 for n in shape],
                               indexing="ij"), -1)  # fmt: skip
    away = grid.ijk_to_ras(ijk) - EYE
    x, y, z = np.moveaxis(away, -1, 0)
    distance = np.linalg.norm(away, axis=-1)
    image = np.full(distance.shape, fat)
    image[(np.hypot(x - 2, z) < 2.5) & (y < -10)] = 0.45
    image[(y > 4) & (distance > RADIUS)] = 0.7
    image[(distance > RADIUS + 3) & (y > 6)] = 0.0
    image[x < -17] = 0.05
    image[distance < RADIUS] = vitreous
    image[(np.hypot(x, z) / 4.5) ** 2 + ((y - 8) / 2) ** 2 < 1] = 0.6
    image *= np.exp(0.012 * x - 0.01 * z)
    a, b, c = shape
    image = image.reshape(a, fine, b, fine, c, fine).mean((1, 3, 5))
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.03, (2, *shape))
    return Volume(np.hypot(image + noise[0], noise[1]).astype(np.float32), grid)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 2, 2), (1, 1, 3)])
def test_a_globe_is_found_from_a_guess_beside_it(spacing):
    volume = orbit(spacing)
    for offset in ([0, 0, 0], [5, -5, 4], [-4, 7, -6]):
        globe = fit_globe(volume, EYE + offset, np.eye(3))
        assert np.linalg.norm(globe.centre - EYE) < 0.6
        np.testing.assert_allclose(globe.radii, RADIUS, atol=0.7)


def test_a_globe_follows_the_heads_axes():
    axes = Rotation.from_euler("xyz", [20, -10, 15], degrees=True).as_matrix()
    globe = fit_globe(orbit((1, 1, 1)), EYE + [3, 0, -3], axes)
    points = eye_points(globe, "R")
    np.testing.assert_allclose(points["EYE_A_R"], EYE + RADIUS * axes[:, 1], atol=1.0)
    np.testing.assert_allclose(points["EYE_P_R"], EYE - RADIUS * axes[:, 1], atol=1.0)
    np.testing.assert_allclose(points["EYE_M_R"], EYE - RADIUS * axes[:, 0], atol=1.0)
    np.testing.assert_allclose(points["EYE_LAT_R"], EYE + RADIUS * axes[:, 0], atol=1.0)
    np.testing.assert_allclose(eye_points(globe, "L")["EYE_LAT_L"], points["EYE_M_R"])


def test_a_bright_globe_is_one_as_well():
    globe = fit_globe(orbit((1, 1, 1), vitreous=1.0, fat=0.5), EYE + [3, -2, 3], np.eye(3))
    assert globe.contrast < 0
    assert np.linalg.norm(globe.centre - EYE) < 1.6


@pytest.mark.parametrize("what", ["air", "constant", "noise", "no contrast", "behind the cut"])
def test_where_there_is_no_globe_none_is_found(what):
    volume = orbit((1, 1, 1))
    rng = np.random.default_rng(1)
    y = volume.grid.ijk_to_ras(np.moveaxis(np.indices(volume.grid.shape), 0, -1))[..., 1]
    data = {
        "air": np.zeros(volume.grid.shape),
        "constant": np.full(volume.grid.shape, 0.5),
        "noise": rng.random(volume.grid.shape),
        "no contrast": orbit((1, 1, 1), vitreous=0.82).data,
        "behind the cut": np.where(y > EYE[1] - 9, 0, volume.data),
    }[what]
    assert fit_globe(Volume(data.astype(np.float32), volume.grid), EYE, np.eye(3)) is None


def test_outside_the_image_there_is_none():
    assert fit_globe(orbit((2, 2, 2)), EYE + [0, 90, 0], np.eye(3)) is None
    assert fit_globe(orbit((2, 2, 2)), [np.nan] * 3, np.eye(3)) is None


@pytest.fixture(scope="module")
def by_eye(brain88):
    return read_landmarks(sample_landmarks("brain88"), brain88)


@pytest.fixture(scope="module")
def real():
    return read_image(sample_head())


def middle(landmarks, side):
    return np.mean([landmarks.point(f"EYE_{n}_{side}") for n in ("A", "P", "M", "LAT")], 0)


def test_points_of_a_real_head_are_those_placed_by_eye(real, by_eye):
    """The axes are those of the points by eye; the points have an error of their own."""
    forward = by_eye.point("EYE_A_R") - by_eye.point("EYE_P_R")
    forward /= np.linalg.norm(forward)
    right = np.array([1.0, 0, 0]) - forward[0] * forward
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, forward, np.cross(right, forward)], 1)
    globes = fit_globes(real, {side: middle(by_eye, side) + 4 for side in "LR"}, pose)
    found = [error for side in "LR" for error in errors(globes[side], side, by_eye)]
    assert np.mean(found) < 1.2
    assert max(found) < 2.0


def test_one_eye_tells_where_the_other_is(real, by_eye):
    guesses = {"R": middle(by_eye, "R"), "L": middle(by_eye, "L") + [-25, 15, 5]}
    alone = fit_globe(real, guesses["L"], np.eye(3))
    globe = fit_globes(real, guesses, np.eye(4))["L"]
    assert alone is None
    assert np.linalg.norm(globe.centre - middle(by_eye, "L")) < 1.5
    assert fit_globes(real, {}, np.eye(4)) == {}
