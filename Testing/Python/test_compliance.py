"""Planes, spacing, order and sides of an annotation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.protocol import compliance, load_protocol

PROTOCOL = load_protocol("brain88")
SECONDARY = [
    [label for label in chain.members if PROTOCOL.by_label(label).role == "secondary"]
    for chain in PROTOCOL.chains
]
SECONDARY = [labels for labels in SECONDARY if len(labels) > 1]


def row(label):
    return PROTOCOL.by_label(label).index - 1


def swap(points, first, second):
    result = points.copy()
    result[[row(first), row(second)]] = points[[row(second), row(first)]]
    return result


@pytest.fixture(scope="module")
def truth(phantom_truth):
    return phantom_truth.points


def test_an_annotation_by_rule_complies(truth):
    off = compliance.off_plane(PROTOCOL, truth)
    assert np.nanmax(off) < 1e-6
    # Hippocampal points share a direction and no plane; two points alone make none either.
    assert np.isnan(off[row("HIP_H_L")])
    assert np.isnan(off[row("GR_L")])
    # Not zero: steps are measured along the curve through the points, not along the anatomy.
    assert max(s.variation for s in compliance.spacings(PROTOCOL, truth)) < 0.06
    assert compliance.out_of_order(PROTOCOL, truth) == []
    assert compliance.wrong_sides(PROTOCOL, truth) == []


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_the_pose_of_the_head_does_not_matter(truth, seed):
    rng = np.random.default_rng(seed)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-40, 40, 3), degrees=True).as_matrix()
    move[:3, 3] = rng.uniform(-80, 80, 3)
    bent = truth + rng.normal(0, 1.0, truth.shape)
    moved = apply_affine(move, bent)
    np.testing.assert_allclose(
        compliance.off_plane(PROTOCOL, moved), compliance.off_plane(PROTOCOL, bent), atol=1e-6
    )
    for a, b in zip(compliance.spacings(PROTOCOL, moved), compliance.spacings(PROTOCOL, bent)):
        np.testing.assert_allclose(a.steps_mm, b.steps_mm, atol=1e-6)
    assert compliance.wrong_sides(PROTOCOL, moved) == []
    assert compliance.out_of_order(PROTOCOL, moved) == []


def test_distance_from_a_plane_is_that_of_the_point_that_left_it(truth):
    off = truth.copy()
    off[row("CC_G")] += [4.0, 0, 0]
    distances = compliance.off_plane(PROTOCOL, off)
    assert distances[row("CC_G")] == pytest.approx(4.0, abs=0.3)
    assert np.nanmax(np.delete(distances, row("CC_G"))) < 0.3
    assert np.isnan(compliance.off_plane(PROTOCOL, np.full_like(truth, np.nan))).all()


@settings(max_examples=20)
@given(st.data())
def test_swapped_neighbours_of_an_outline_are_found(truth, data):
    labels = data.draw(st.sampled_from(SECONDARY))
    first, second = data.draw(
        st.lists(st.sampled_from(labels), min_size=2, max_size=2, unique=True)
    )
    mixed = swap(truth, first, second)
    pairs = compliance.out_of_order(PROTOCOL, mixed)
    for pair in pairs:
        mixed = swap(mixed, *pair)
    np.testing.assert_array_equal(mixed, truth)
    assert pairs


def test_a_missing_point_is_passed_over(truth):
    holed = swap(truth, "BB_3", "BB_4")
    holed[row("BB_7")] = np.nan
    assert compliance.out_of_order(PROTOCOL, holed) == [("BB_3", "BB_4")]
    assert "BB_F" not in [s.chain.members[0] for s in compliance.spacings(PROTOCOL, holed)]


def test_sides(truth):
    mixed = swap(swap(truth, "EYE_A_L", "EYE_A_R"), "TP_L", "TP_R")
    assert compliance.swapped_sides(PROTOCOL, mixed) == [
        ("EYE_A_L", "EYE_A_R"), ("TP_L", "TP_R"),
    ]  # fmt: skip
    one = truth.copy()
    one[row("AMY_L")] = truth[row("AMY_R")]
    assert compliance.wrong_sides(PROTOCOL, one) == ["AMY_L"]
    assert compliance.swapped_sides(PROTOCOL, one) == []
    mirrored = truth * [-1, 1, 1]
    sided = sum(lm.side != "M" for lm in PROTOCOL.landmarks)
    assert len(compliance.wrong_sides(PROTOCOL, mirrored)) == sided


def test_sides_without_a_midline(tiny_protocol):
    points = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]]) + [30, 0, 0]
    assert compliance.wrong_sides(tiny_protocol, points) == []
    swapped = points[[1, 0, 2, 3, 4]]
    assert compliance.swapped_sides(tiny_protocol, swapped) == [("A_L", "A_R")]
