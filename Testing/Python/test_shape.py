"""Mean shape: heads in any pose give one symmetric shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksTrainLib.pipeline.mean_shape import mean_shape

MIRROR = np.array([1, 0, 2, 3, 5, 4])
SHAPE = np.array(
    [[-30.0, 60, 0], [30, 60, 0], [0, 70, 10], [0, -60, 40], [-50, 0, -40], [50, 0, -40]]
)


def posed(rng, noise=0.0):
    turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(-15, 15, 3))).as_matrix()
    return (SHAPE + noise * rng.standard_normal(SHAPE.shape)) @ turn.T + rng.uniform(-40, 40, 3)


def test_rigid_copies_give_the_shape_back():
    rng = np.random.default_rng(0)
    mean = mean_shape([posed(rng) for _ in range(12)], MIRROR)
    fit = rigid_fit(SHAPE, mean)
    np.testing.assert_allclose(SHAPE @ fit[:3, :3].T + fit[:3, 3], mean, atol=1e-6)


def test_the_mean_is_symmetric_and_centred():
    rng = np.random.default_rng(1)
    heads = [posed(rng, noise=2.0) for _ in range(8)]
    heads[0][3] = np.nan
    mean = mean_shape(heads, MIRROR)
    np.testing.assert_allclose((mean * [-1, 1, 1])[MIRROR], mean, atol=1e-6)
    np.testing.assert_allclose(mean.max(0) + mean.min(0), 0, atol=1e-9)


def test_a_landmark_no_head_has_is_refused():
    heads = [SHAPE.copy(), SHAPE.copy()]
    for head in heads:
        head[2] = np.nan
    with pytest.raises(ValueError, match="no head"):
        mean_shape(heads, MIRROR)
