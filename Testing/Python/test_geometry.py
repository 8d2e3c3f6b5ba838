"""Affine algebra: no operation on the storage of an image moves a point of the world."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from BrainLandmarksLib.geometry.affine import (
    apply_affine,
    canonical,
    is_singular,
    lps_affine_to_ras,
    lps_to_ras,
    ras_to_lps,
    shear_degrees,
)
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.geometry.grid import Grid, cube

coordinates = st.floats(-300, 300, allow_nan=False)
points_strategy = hnp.arrays(np.float64, (7, 3), elements=coordinates)
shapes = st.tuples(*[st.integers(2, 6)] * 3)


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    quaternion = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    length = np.linalg.norm(quaternion)
    assume(length > 0.1)
    w, x, y, z = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    affine = np.eye(4)
    spacing = np.array(draw(st.tuples(*[st.floats(0.3, 6)] * 3)))
    affine[:3, :3] = draw(rotations()) * spacing
    if draw(st.booleans()):
        affine[:3, 0] *= -1
    affine[:3, 3] = draw(st.tuples(*[coordinates] * 3))
    return affine


@st.composite
def restored(draw: st.DrawFn, data: np.ndarray, affine: np.ndarray) -> tuple:
    """The same image with its axes permuted and flipped, as another scanner would store it."""
    order = draw(st.permutations(range(3)))
    data, affine = data.transpose(order), affine[:, [*order, 3]].copy()
    for axis in range(3):
        if draw(st.booleans()):
            affine[:3, 3] += (data.shape[axis] - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    return data, affine


@given(affines(), shapes, points_strategy)
def test_voxels_to_millimetres_and_back(affine, shape, points):
    grid = Grid(shape, affine)
    np.testing.assert_allclose(grid.ijk_to_ras(grid.ras_to_ijk(points)), points, atol=1e-8)


@given(points_strategy, affines())
def test_lps_and_ras_are_each_others_inverse(points, affine):
    np.testing.assert_array_equal(lps_to_ras(ras_to_lps(points)), points)
    np.testing.assert_allclose(
        apply_affine(lps_affine_to_ras(affine), points),
        lps_to_ras(apply_affine(affine, points)),
        atol=1e-9,
    )


@given(affines(), shapes)
def test_canonical_moves_no_voxel(affine, shape):
    data = np.arange(np.prod(shape)).reshape(shape)
    new_data, new_affine = canonical(data, affine)
    old_ijk = np.array(np.unravel_index(new_data.ravel(), shape)).T
    new_ijk = np.indices(new_data.shape).reshape(3, -1).T
    np.testing.assert_allclose(
        apply_affine(new_affine, new_ijk), apply_affine(affine, old_ijk), atol=1e-9
    )


@given(affines(), shapes)
def test_canonical_axes_point_right_anterior_superior(affine, shape):
    _, new_affine = canonical(np.zeros(shape), affine)
    directions = new_affine[:3, :3] / np.linalg.norm(new_affine[:3, :3], axis=0)
    assert (np.diag(directions) >= 0).all()
    # No other assignment of axes comes nearer.
    assert np.trace(directions) >= np.abs(directions[[1, 2, 0], [0, 1, 2]]).sum() - 1e-9
    assert np.trace(directions) >= np.abs(directions[[0, 2, 1], [0, 1, 2]]).sum() - 1e-9


@given(st.data(), affines(), shapes)
def test_canonical_undoes_any_storage_order(data, affine, shape):
    voxels = np.arange(np.prod(shape)).reshape(shape)
    first, first_affine = canonical(voxels, affine)
    directions = first_affine[:3, :3] / np.linalg.norm(first_affine[:3, :3], axis=0)
    assume(np.trace(directions) > 2.3)  # exactly between two axes either order is right
    second, second_affine = canonical(*data.draw(restored(voxels, affine)))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first_affine, second_affine, atol=1e-8)


@given(affines(), shapes, st.tuples(*[st.integers(-4, 4)] * 3), points_strategy)
def test_cropping_and_padding_move_no_voxel(affine, shape, start, points):
    grid = Grid(shape, affine)
    window = grid.window(start, (5, 4, 3))
    assert window.shape == (5, 4, 3)
    np.testing.assert_allclose(
        window.ijk_to_ras(points), grid.ijk_to_ras(points + np.array(start)), atol=1e-8
    )


@given(rotations(), st.tuples(*[coordinates] * 3), st.floats(50, 400), st.integers(2, 96))
def test_cube_is_centred_and_as_large_as_asked(rotation, center, field_of_view, size):
    grid = cube(center, field_of_view, size, rotation)
    np.testing.assert_allclose(grid.center_ras, center, atol=1e-9)
    np.testing.assert_allclose(grid.extent, field_of_view)
    np.testing.assert_allclose(grid.affine[:3, :3] / grid.spacing, rotation, atol=1e-12)


@given(rotations(), st.tuples(*[coordinates] * 3), points_strategy, st.floats(0.5, 2))
def test_rigid_fit_finds_the_motion(rotation, shift, points, factor):
    assume(np.linalg.svd(points - points.mean(axis=0))[1][1] > 1)
    moved = factor * points @ rotation.T + shift
    found = rigid_fit(points, moved, scale=True)
    np.testing.assert_allclose(apply_affine(found, points), moved, atol=1e-6)
    if factor == 1:
        np.testing.assert_allclose(apply_affine(rigid_fit(points, moved), points), moved, atol=1e-6)
    assert np.linalg.det(found[:3, :3]) > 0


@given(rotations(), st.tuples(*[coordinates] * 3))
def test_rigid_fit_ignores_missing_and_weightless_points(rotation, shift):
    points = np.random.default_rng(0).normal(0, 50, (12, 3))
    moved = points @ rotation.T + shift
    moved[3] = np.nan
    moved[5] += 1000
    weights = np.ones(12)
    weights[5] = 0
    found = rigid_fit(points, moved, weights)
    np.testing.assert_allclose(found[:3, :3], rotation, atol=1e-9)
    np.testing.assert_allclose(found[:3, 3], shift, atol=1e-6)


def test_rigid_fit_never_mirrors():
    points = np.random.default_rng(0).normal(0, 50, (12, 3))
    found = rigid_fit(points, points * [-1, 1, 1])
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize(
    "points", [np.zeros((2, 3)), np.arange(5)[:, None] * np.ones(3), np.full((9, 3), np.nan)]
)
def test_rigid_fit_needs_three_points_off_a_line(points):
    with pytest.raises(ValueError, match="rigid fit"):
        rigid_fit(points, points)


def test_contains_reaches_to_the_faces_of_the_voxels():
    grid = Grid((4, 4, 4), np.diag([2, 2, 2, 1]))
    inside = grid.contains([[-0.99, 0, 0], [-1.01, 0, 0], [6.99, 6.99, 6.99], [7.01, 0, 0]])
    assert inside.tolist() == [True, False, True, False]
    assert not grid.contains([np.nan, 0, 0])


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1, 1, 0, 1]),
        np.diag([1, 1, np.nan, 1]),
        np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        np.eye(3),
        np.diag([1, 1, 1, 2]),
    ],
)
def test_grid_refuses_what_is_no_affine(affine):
    with pytest.raises(ValueError, match="affine"):
        Grid((4, 4, 4), affine)


@given(affines())
def test_shear_is_the_deviation_from_right_angles(affine):
    assert shear_degrees(affine) < 1e-3
    assert not is_singular(affine)
    bent = affine.copy()
    bent[:3, 1] += (
        np.tan(np.radians(10))
        * affine[:3, 0]
        * (np.linalg.norm(affine[:3, 1]) / np.linalg.norm(affine[:3, 0]))
    )
    assert shear_degrees(bent) == pytest.approx(10, abs=1e-6)
