"""Correction rules: equal spacing, common planes, the brain's surface."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import curves
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.planes import fitted_plane
from BrainLandmarksLib.imaging import edges
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import constraints, load_protocol

PROTOCOL = load_protocol("brain88")


@pytest.fixture(scope="module")
def truth(phantom_truth):
    return phantom_truth.points


def rows(*labels):
    return [PROTOCOL.by_label(label).index - 1 for label in labels]


def steps_of(points, chain):
    at = points[rows(*chain.members)]
    if chain.closed:
        at = np.vstack([at, at[:1]])
    curve = curves.spline(at, periodic=chain.closed)
    fine = curve(np.linspace(0, len(at) - 1, 4000))
    length = curves.arc_lengths(fine)
    return np.diff(np.interp(np.arange(len(at)), np.linspace(0, len(at) - 1, 4000), length))


@pytest.mark.parametrize("chain", PROTOCOL.chains, ids=lambda c: f"{c.members[0]}-{c.members[-1]}")
def test_spacing_becomes_equal_along_the_outline(truth, chain):
    """Points shifted along their outline are spread again; primary points stay."""
    rng = np.random.default_rng(4)
    members = rows(*chain.members)
    on = np.vstack([truth[members], truth[members[:1]]]) if chain.closed else truth[members]
    curve = curves.spline(on, periodic=chain.closed)
    shifted = truth.copy()
    free = [k for k, m in enumerate(members) if PROTOCOL.landmarks[m].role == "secondary"]
    for k in free:
        shifted[members[k]] = curve(k + rng.uniform(-0.3, 0.3))
    result = constraints.respaced(PROTOCOL, shifted, chain.group)
    steps = steps_of(result, chain)
    assert steps.std() / steps.mean() < 0.02
    fixed = [m for k, m in enumerate(members) if k not in free]
    np.testing.assert_array_equal(result[fixed], truth[fixed])
    others = np.setdiff1d(np.arange(88), rows(*[
        label for c in PROTOCOL.chains if c.group == chain.group for label in c.members
    ]))  # fmt: skip
    np.testing.assert_array_equal(result[others], shifted[others])
    # Nobody leaves the outline: every point is near the dense curve through the true ones.
    dense = curve(np.linspace(0, len(on) - 1, 4000))
    for m in members:
        assert np.linalg.norm(dense - result[m], axis=1).min() < 4.0


def test_what_is_equally_spaced_stays(truth):
    once = constraints.respaced(PROTOCOL, truth, "Brain Axial Boundary")
    twice = constraints.respaced(PROTOCOL, once, "Brain Axial Boundary")
    assert np.abs(twice - once).max() < 0.1


def test_a_chain_with_a_missing_point_is_left_alone(truth):
    holed = truth.copy()
    holed[rows("BB_4")] = np.nan
    result = constraints.respaced(PROTOCOL, holed, "Brain Boundary MSP")
    np.testing.assert_array_equal(result, holed)


def test_groups_without_chains_or_planes_are_refused(truth):
    with pytest.raises(UserError, match="equal distances"):
        constraints.respaced(PROTOCOL, truth, "Eye")
    with pytest.raises(UserError, match="no group"):
        constraints.respaced(PROTOCOL, truth, "Toe")
    nothing = np.full_like(truth, np.nan)
    with pytest.raises(UserError, match="share a plane"):
        constraints.projected(PROTOCOL, nothing, "Brain Stem")


def test_mates_are_those_of_the_definition():
    def mates(label):
        return {
            PROTOCOL.labels[r] for r in constraints.plane_mates(PROTOCOL, PROTOCOL.by_label(label))
        }

    assert len(mates("CC_G")) == 33
    assert mates("AX_1_L") == {f"AX_{k}_{s}" for k in range(1, 6) for s in "LR"}
    assert mates("EYE_A_L") == {f"EYE_{k}_L" for k in ("A", "P", "M", "LAT")}
    assert mates("HIP_H_L") == {"HIP_H_L"}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_a_plane_is_found_wherever_it_lies(seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed % 2**31).as_matrix()
    flat = np.column_stack([rng.uniform(-60, 60, (12, 2)), np.zeros(12)])
    points = flat @ turn.T + rng.uniform(-50, 50, 3)
    points[3] += 20.0 * turn[:, 2]  # one stray point
    center, normal = fitted_plane(points)
    assert abs(abs(normal @ turn[:, 2]) - 1) < 1e-2
    others = np.delete(points, 3, 0)
    assert np.abs((others - center) @ normal).max() < 1.5


def test_no_plane_through_a_line():
    line = np.arange(5)[:, None] * np.array([[1.0, 2.0, 3.0]])
    with pytest.raises(UserError, match="line"):
        fitted_plane(line)
    with pytest.raises(UserError, match="three points"):
        fitted_plane(line[:2])


def test_projection_flattens_a_group_and_nothing_else(truth):
    rng = np.random.default_rng(1)
    bent = truth.copy()
    ring = rows(*[lm.label for lm in PROTOCOL.members("Brain Axial Boundary")])
    bent[ring, 2] += rng.normal(0, 1.5, len(ring))
    flat = constraints.projected(PROTOCOL, bent, "Brain Axial Boundary")
    center, normal = fitted_plane(flat[ring])
    assert np.abs((flat[ring] - center) @ normal).max() < 1e-6
    assert np.abs(flat[ring][:, :2] - bent[ring][:, :2]).max() < 0.5
    others = np.setdiff1d(np.arange(88), ring)
    np.testing.assert_array_equal(flat[others], bent[others])


def test_found_points_become_flat_and_evenly_spread(truth):
    """What a plane and a spacing that are known beforehand can mend, they do."""
    before, after = [], []
    planes = [constraints.plane_mates(PROTOCOL, landmark) for landmark in PROTOCOL.landmarks]
    planes = [mates for mates in planes if len(mates) > 3]  # any three are flat
    assert planes
    assert PROTOCOL.chains
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(0, 2.0, truth.shape)
        result = constraints.constrained(PROTOCOL, truth + noise)
        for mates in planes:
            center, normal = fitted_plane(result[mates])
            assert np.abs((result[mates] - center) @ normal).max() < 0.2
        for chain in PROTOCOL.chains:
            steps = steps_of(result, chain)
            assert steps.std() / steps.mean() < 0.05
        ring = rows(*PROTOCOL.chains[-1].members)
        before.append(np.linalg.norm(noise, axis=1)[ring].mean())
        after.append(np.linalg.norm(result - truth, axis=1)[ring].mean())
    assert np.mean(after) < 0.85 * np.mean(before)


def test_found_points_that_are_missing_or_astray_are_not_mended(truth):
    holed = truth.copy()
    holed[rows("BB_4")] = np.nan
    result = constraints.constrained(PROTOCOL, holed)
    assert np.isnan(result[rows("BB_4")]).all()
    assert np.isfinite(np.delete(result, rows("BB_4"), axis=0)).all()
    astray = truth.copy()
    ring = rows(*PROTOCOL.chains[-1].members)
    astray[ring[2]] = astray[ring[7]]
    result = constraints.constrained(PROTOCOL, astray)
    assert np.linalg.norm(result - astray, axis=1)[ring].max() < 2.0  # only onto their plane


def test_one_point_goes_onto_the_plane_of_the_others(truth):
    off = truth.copy()
    off[rows("CC_G")] += [9.0, 0, 0]
    back = constraints.on_plane(PROTOCOL, off, "CC_G")
    assert abs(back[0] - truth[rows("CC_G")[0], 0]) < 0.3
    with pytest.raises(UserError, match="HIP_H_L"):
        constraints.on_plane(PROTOCOL, truth, "HIP_H_L")


def test_the_boundary_is_found_on_a_bright_ball():
    shape, spacing, radius = (80, 80, 80), 1.2, 35.0
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine)
    ijk = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    distance = np.linalg.norm(grid.ijk_to_ras(ijk), axis=1).reshape(shape)
    rng = np.random.default_rng(0)
    data = np.clip((radius - distance) / spacing + 0.5, 0, 1) * 0.7 + 0.15
    volume = Volume((data + 0.02 * rng.standard_normal(shape)).astype(np.float32), grid)
    for _ in range(20):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        start = (radius + rng.uniform(-4, 4)) * direction
        found = edges.on_brain_boundary(volume, start, np.zeros(3))
        assert abs(np.linalg.norm(found) - radius) < 0.6
    flat = Volume(np.full(shape, 3.0, np.float32), grid)
    with pytest.raises(UserError, match="no boundary"):
        edges.on_brain_boundary(flat, start, np.zeros(3))
