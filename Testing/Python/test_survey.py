"""Survey geometry: the paper's voxels, without aliasing, and every point of the head in place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.survey import SHAPE, SPACING_MM, survey_grid, to_survey
from BrainLandmarksLib.imaging.volume import Volume


def ball(shape=(256, 256, 256), spacing=1.0, center=(0, 0, 0), radius=80.0, turn=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Grid(shape, affine)
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    at = grid.ras_to_ijk(center)
    square = sum(
        ((x - c) * spacing).reshape([-1 if k == axis else 1 for k in range(3)]) ** 2
        for axis, (x, c) in enumerate(zip(axes, at))
    )
    data = 100 * np.clip((radius - np.sqrt(square)) / spacing + 0.5, 0, 1)
    return Volume(data.astype(np.float32), grid)


def middle(volume):
    """Centre of mass, RAS mm."""
    weights = [volume.data.sum(axis=tuple(k for k in range(3) if k != axis)) for axis in range(3)]
    ijk = [(np.arange(len(w)) * w).sum() / w.sum() for w in weights]
    return volume.grid.ijk_to_ras(ijk)


def test_an_oasis_scan_becomes_the_papers_survey():
    center = np.array([3.0, -7.0, 5.0])
    scan = ball(center=center)
    survey = to_survey(scan)
    assert survey.grid.shape == SHAPE == (224, 224, 101)
    np.testing.assert_allclose(survey.grid.spacing, (1.0, 1.0, 2.2))
    np.testing.assert_allclose(middle(survey), center, atol=0.05)
    # Zero spacing between the slices: nothing of the ball is lost, and nothing is counted twice.
    assert survey.data.sum() * 2.2 == pytest.approx(scan.data.sum(), rel=1e-3)
    # Voxels of 1 mm lie on those of the scan.
    first = scan.grid.ras_to_ijk(survey.grid.ijk_to_ras((0, 0, 0)))
    np.testing.assert_allclose(first[:2], np.round(first[:2]), atol=1e-9)


def test_thin_structures_do_not_alias_into_thick_slices():
    """Stripes of two voxels, finer than a survey slice, become their mean and no slow waves."""
    scan = ball(shape=(120, 120, 240), radius=55.0)
    striped = scan.data * (1 + (np.arange(240) % 2)[None, None, :])
    survey = to_survey(Volume(striped.astype(np.float32), scan.grid))
    core = survey.data[112, 112, 35:65]
    assert np.abs(core / 150 - 1).max() < 0.07


@settings(max_examples=4)
@given(st.integers(0, 2**31))
def test_the_head_stays_where_it_is_and_inside(seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.from_euler("xyz", rng.uniform(-20, 20, 3), degrees=True).as_matrix()
    center = rng.uniform(-20, 20, 3)
    scan = ball((120, 130, 125), 1.0, center, rng.uniform(25, 35), turn)
    grid = survey_grid(scan)
    np.testing.assert_allclose(grid.spacing, SPACING_MM, atol=1e-9)
    np.testing.assert_allclose(middle(to_survey(scan)), center, atol=0.1)
    cosines = (grid.affine[:3, :3] / grid.spacing).T @ turn
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-9)


def test_a_head_at_the_border_is_not_cut_and_a_long_neck_is():
    affine = np.eye(4)
    head = np.zeros((200, 200, 300), np.float32)
    head[40:160, 30:170, 180:296] = 100
    grid = survey_grid(Volume(head, Grid(head.shape, affine)))
    assert grid.contains([[100, 100, 295.4], [100, 100, 180]]).all()
    # With a neck down to the end, the top still is there, and the neck goes.
    head[80:120, 80:120, :180] = 100
    grid = survey_grid(Volume(head, Grid(head.shape, affine)))
    assert grid.contains([100, 100, 295.4])
    assert not grid.contains([100, 100, 40])


def test_coarse_voxels_are_refused():
    data = np.zeros((90, 90, 90), np.float32)
    data[20:70, 20:70, 20:70] = 1
    with pytest.raises(UserError, match=r"voxels of 1 x 1 x 2.2 mm and this image has 2 x 2 x 2"):
        survey_grid(Volume(data, Grid(data.shape, np.diag([2.0, 2, 2, 1]))))
