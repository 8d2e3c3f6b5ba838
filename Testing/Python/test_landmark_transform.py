"""Points go where the picture goes: known answers, blobs, folds, and the paper's Algorithm 1."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.augmentation import (
    AugmentationConfig,
    AugmentWithLandmarks,
    Record,
    by_faux_volumes,
    regenerate,
)
from BrainLandmarksTrainLib.augmentation.config import Policy
from BrainLandmarksTrainLib.augmentation.landmark_transform import TOLERANCE_MM, inverted_spline
from BrainLandmarksTrainLib.augmentation.record import Step

SHAPE = (36, 40, 32)
VOXEL_MM = 4.0


def oblique(degrees: float = 0.0) -> Grid:
    """A grid of 4 mm voxels, turned about z, off the world's origin, i to the left."""
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-VOXEL_MM, VOXEL_MM, VOXEL_MM])
    affine[:3, 3] = (30.0, -20.0, 10.0)
    return Grid(SHAPE, affine)


def blobs(grid: Grid, points) -> Volume:
    """A Gaussian of 7 mm at every point."""
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    data = sum(np.exp(-(((ras - point) / 7.0) ** 2).sum(-1) / 2) for point in points)
    return Volume(np.asarray(data, np.float32), grid)


def moved(volume, protocol, points, *steps: Step):
    landmarks = LandmarkSet.from_points(protocol, points, "truth")
    return regenerate(Record(0, "test", steps), volume, landmarks)


def affine_step(scales=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 0.0)):
    return Step(
        "affine",
        {"scales": [*scales], "degrees": [*degrees], "translation": [*translation]},
    )


def five(grid: Grid, seed=0):
    return grid.ijk_to_ras(np.random.default_rng(seed).uniform(9, np.array(SHAPE) - 10, (5, 3)))


# Known answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_the_identity_moves_nothing(degrees, tiny_protocol):
    grid = oblique(degrees)
    points = five(grid)
    still = Step("elastic", {"control_points": 7, "displacements_lps_mm": [[[[0.0] * 3]]]})
    volume = blobs(grid, points)
    for step in (affine_step(), still):
        varied = moved(volume, tiny_protocol, points, step)
        np.testing.assert_allclose(varied.landmarks.points, points, atol=1e-6)
        np.testing.assert_allclose(varied.volume.data, volume.data, atol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_scale_shift_and_turn_have_their_known_answers(degrees, tiny_protocol):
    grid = oblique(degrees)
    points = five(grid)
    centre = grid.center_ras
    turn = np.radians(20)
    c, s = np.cos(turn), np.sin(turn)
    about = {
        0: [[1, 0, 0], [0, c, -s], [0, s, c]],
        1: [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        2: [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    volume = blobs(grid, points)
    expected = centre + (points - centre) * [1.1, 0.9, 1.05]
    varied = moved(volume, tiny_protocol, points, affine_step(scales=(1.1, 0.9, 1.05)))
    np.testing.assert_allclose(varied.landmarks.points, expected, atol=1e-9)
    varied = moved(volume, tiny_protocol, points, affine_step(translation=(3, -4, 5)))
    np.testing.assert_allclose(varied.landmarks.points, points + [3, -4, 5], atol=1e-9)
    for axis, matrix in about.items():
        # Counter-clockwise about the RAS axis, seen against it.
        step = affine_step(degrees=tuple(20.0 * (axis == n) for n in range(3)))
        varied = moved(volume, tiny_protocol, points, step)
        expected = centre + (points - centre) @ np.array(matrix).T
        np.testing.assert_allclose(varied.landmarks.points, expected, atol=1e-9)


def centroid(volume: Volume, near) -> np.ndarray:
    """Where the blob nearest to a point is: mean position of what is bright within 18 mm."""
    ras = volume.grid.ijk_to_ras(np.moveaxis(np.indices(volume.grid.shape), 0, -1))
    weights = np.where(np.linalg.norm(ras - near, axis=-1) < 18, volume.data, 0)
    return (weights[..., None] * ras).sum((0, 1, 2)) / weights.sum()


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), oblique_by=st.sampled_from([0.0, 30.0]))
def test_a_blob_and_its_point_move_together(seed, oblique_by, tiny_protocol):
    grid = oblique(oblique_by)
    rng = np.random.default_rng(seed)
    name = str(rng.choice(["affine", "elastic"]))
    point = grid.ijk_to_ras(rng.uniform(12, np.array(SHAPE) - 13))
    augment = AugmentWithLandmarks(AugmentationConfig(policies={"one": Policy(1.0, (name,))}))
    landmarks = LandmarkSet.from_points(tiny_protocol, np.tile(point, (5, 1)), "truth")
    varied = augment(blobs(grid, [point]), landmarks, int(rng.integers(2**31)))
    there = varied.landmarks.points[0]
    assert np.linalg.norm(there - point) > 1e-3
    assume(grid.contains(there, margin=-6))
    assert np.linalg.norm(centroid(varied.volume, there) - there) < 1.0


def test_steps_add_up(tiny_protocol):
    grid = oblique()
    points = five(grid)
    volume = blobs(grid, points)
    there = affine_step(translation=(5, 0, 0))
    back = affine_step(translation=(-5, 0, 0))
    noise = Step("noise", {"std": 0.1, "seed": 3})
    varied = moved(volume, tiny_protocol, points, there, noise, back)
    np.testing.assert_allclose(varied.landmarks.points, points, atol=1e-9)


# The B-spline's inverse ---------------------------------------------------------------------------


def spline(displacements: np.ndarray, grid: Grid, points: int = 7) -> sitk.BSplineTransform:
    """TorchIO's own transform for these displacements of the inner control points."""
    from BrainLandmarksTrainLib.augmentation.augment import centred_image
    from BrainLandmarksTrainLib.augmentation.patient_side import Elastic

    parameters = {"control_points": points, "displacements_lps_mm": displacements.tolist()}
    image = centred_image(Volume(np.zeros(grid.shape, np.float32), grid))
    return Elastic.build(parameters).get_bspline_transform(image.as_sitk(force_3d=True))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 1.0))
def test_the_inverse_of_a_spline_is_found_to_a_thousandth_of_a_millimetre(seed, share):
    grid = oblique(20.0 * (seed % 2))
    rng = np.random.default_rng(seed)
    # Up to the largest displacement that cannot fold: 0.4 of the distance of control points.
    most = 0.4 * min(SHAPE) * VOXEL_MM / 4 / (1.0 if seed % 2 == 0 else 1.3)
    transform = spline(rng.uniform(-most, most, (3, 3, 3, 3)) * share, grid)
    ijk = rng.uniform(4, np.array(SHAPE) - 5, (20, 3))
    sources = (grid.ijk_to_ras(ijk) - grid.center_ras) * [-1, -1, 1]
    targets = np.array([transform.TransformPoint(p.tolist()) for p in sources])
    found, folded = inverted_spline(transform, targets)
    assert not folded.any()
    again = np.array([transform.TransformPoint(p.tolist()) for p in found])
    assert np.linalg.norm(again - targets, axis=1).max() < TOLERANCE_MM
    assert np.linalg.norm(found - sources, axis=1).max() < 2 * TOLERANCE_MM


def test_missing_points_stay_missing():
    transform = spline(np.full((3, 3, 3, 3), 2.0), oblique())
    found, folded = inverted_spline(transform, np.array([[np.nan] * 3, [0, 0, 0]]))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    assert not folded.any()


def test_a_fold_is_said_and_not_guessed(tiny_protocol):
    # Neighbouring control points change places along x: the picture shows the middle three times.
    grid = oblique()
    displacements = np.zeros((3, 3, 3, 3))
    displacements[0, ..., 0], displacements[2, ..., 0] = 120.0, -120.0
    transform = spline(displacements, grid)
    middle = np.zeros((1, 3))
    slope = (transform.TransformPoint((1, 0, 0))[0] - transform.TransformPoint((-1, 0, 0))[0]) / 2
    assert slope < 0, "this spline must fold"
    found, folded = inverted_spline(transform, middle)
    assert folded.tolist() == [True]
    assert np.isnan(found).all()
    # Beside the middle a search may well end on a branch that is not turned inside out.
    line = np.linspace(-60, 60, 400)
    images = np.array([transform.TransformPoint((x, 0, 0))[0] for x in line])
    low, high = (images[1:-1][np.diff(np.sign(np.diff(images))) != 0]).tolist()
    across = np.linspace(*sorted((low, high)), 9)[1:-1, None] * [1, 0, 0]
    found, folded = inverted_spline(transform, across)
    assert folded.all()
    points = np.tile(grid.center_ras, (5, 1))
    points[1:] = np.nan
    step = Step("elastic", {"control_points": 7, "displacements_lps_mm": displacements.tolist()})
    with pytest.warns(RuntimeWarning, match="folding"):
        varied = moved(blobs(grid, points[:1]), tiny_protocol, points, step)
    assert varied.landmarks.missing.all()
    assert varied.record.folded == (tiny_protocol.landmarks[0].label,)
    assert varied.record.outside == ()


def test_a_spline_that_could_fold_elsewhere_still_moves_a_point_that_it_does_not_fold():
    grid = oblique()
    displacements = np.zeros((3, 3, 3, 3))
    displacements[0, ..., 0], displacements[2, ..., 0] = -40.0, 40.0
    transform = spline(displacements, grid)
    target = np.array([transform.TransformPoint((0.0, 3.0, -2.0))])
    found, folded = inverted_spline(transform, target)
    assert not folded.any()
    np.testing.assert_allclose(found, [[0.0, 3.0, -2.0]], atol=2e-3)


# Algorithm 1 --------------------------------------------------------------------------------------


def test_the_exact_way_agrees_with_algorithm_1(brain88):
    """20 random transforms of the patient side; a dozen landmarks each, at voxels, as in the paper.

    Landmarks between voxels, which Algorithm 1 rounds first, agree within what rounding costs.
    """
    grid = oblique(10.0)
    volume = blobs(grid, five(grid))
    augment = AugmentWithLandmarks()
    # Each of the three in its turn: by chance one might hardly come up.
    kinds = ["affine", "elastic", "anisotropy"]
    apart, rounded, wiped = [], [], []
    for seed in range(20):
        config = AugmentationConfig(policies={"one": Policy(1.0, (kinds[seed % 3],))})
        augment = AugmentWithLandmarks(config)
        rng = np.random.default_rng(seed)
        ijk = np.full((len(brain88), 3), np.nan)
        ijk[:12] = rng.integers(3, np.array(SHAPE) - 3, (12, 3))
        ijk[6:12] += rng.uniform(-0.5, 0.5, (6, 3))
        landmarks = LandmarkSet.from_points(brain88, grid.ijk_to_ras(ijk), "truth")
        exact = augment(volume, landmarks, seed)
        faux = by_faux_volumes(exact.record.steps, volume, landmarks)
        gone = {brain88.landmarks[row].label for row in np.flatnonzero(faux.landmarks.missing[:12])}
        assert gone == set(faux.wiped_out)
        if kinds[seed % 3] == "anisotropy":
            wiped += faux.wiped_out
        else:
            # Nothing is lost but what leaves the image.
            inner = grid.contains(exact.landmarks.points, margin=-1.0)
            assert not (inner & faux.landmarks.missing).any()
        inside = grid.contains(exact.landmarks.points, margin=-1.0)
        distances = (
            np.linalg.norm(exact.landmarks.points - faux.landmarks.points, axis=1) / VOXEL_MM
        )
        stays = inside & ~faux.landmarks.missing
        apart += distances[:6][stays[:6]].tolist()
        rounded += distances[6:12][stays[6:12]].tolist()
    assert len(apart) > 80
    assert np.mean(np.array(apart) <= 0.75) >= 0.95
    assert max(apart) <= 1.5
    assert max(rounded) <= 1.5
    assert wiped, "thick slices skip voxels"


def test_algorithm_1_loses_what_interpolation_skips(tiny_protocol):
    grid = oblique()
    points = grid.ijk_to_ras(np.array([[10 + n, 20, 16] for n in range(5)]))
    landmarks = LandmarkSet.from_points(tiny_protocol, points, "truth")
    thick = Step("anisotropy", {"axis": 0, "factor": 3.0})
    faux = by_faux_volumes([thick], blobs(grid, points), landmarks)
    # Of three neighbouring voxels one is sampled.
    assert 3 <= len(faux.wiped_out) <= 4
    assert faux.landmarks.missing.sum() == len(faux.wiped_out)
    outside = LandmarkSet.from_points(tiny_protocol, points + 1000, "truth")
    faux = by_faux_volumes([thick], blobs(grid, points), outside)
    assert faux.landmarks.missing.all()
    assert faux.wiped_out == (), "what is not in the image is not lost"
