"""Distances and asymmetry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom import phantom_head
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.protocol.measures import asymmetries, between, measured

PROTOCOL = load_protocol("brain88")


@pytest.fixture(scope="module")
def head():
    return annotate(phantom_head())


def row(label):
    return PROTOCOL.by_label(label).index - 1


def test_distances_are_those_between_the_points(head):
    found = measured(head)
    assert [m.distance.name for m in found] == [d.name for d in PROTOCOL.distances]
    length = next(m for m in found if m.distance.name == "corpus callosum, length")
    expected = np.linalg.norm(head.points[row("CC_G")] - head.points[row("CC_S")])
    assert length.mm == pytest.approx(expected)
    assert 50 < length.mm < 90
    assert between(head, "CC_S", "CC_G") == length.mm


def test_a_missing_end_gives_no_number(head):
    points = head.points.copy()
    points[row("CC_S")] = np.nan
    holed = LandmarkSet.from_points(PROTOCOL, points)
    by_name = {m.distance.name: m.mm for m in measured(holed)}
    assert np.isnan(by_name["corpus callosum, length"])
    assert np.isfinite(by_name["pons, height"])


def test_a_symmetric_head_has_little_asymmetry(head):
    pairs = asymmetries(head)
    assert len(pairs) == sum(landmark.side == "L" for landmark in PROTOCOL)
    assert np.nanmax([p.mm for p in pairs]) < 2.0


@settings(max_examples=20, deadline=None)
@given(st.floats(-30, 30), st.floats(-20, 20), st.floats(-8, 8), st.floats(-8, 8), st.floats(-8, 8))
def test_what_was_moved_is_what_is_measured(head, roll, yaw, x, y, z):
    """A left point moved outwards, forwards and up, in a head turned at will."""
    points = head.points.copy()
    before = {p.left: p.offset_mm for p in asymmetries(head)}["EYE_A_L"]
    points[row("EYE_A_L")] += [-x, y, z]
    turn = Rotation.from_euler("zy", [yaw, roll], degrees=True).as_matrix()
    turned = LandmarkSet.from_points(PROTOCOL, points @ turn.T + [5, -4, 3])
    found = {p.left: p for p in asymmetries(turned)}["EYE_A_L"]
    np.testing.assert_allclose(np.linalg.norm(found.offset_mm - before),
                               np.linalg.norm([x, y, z]), atol=0.3)  # fmt: skip
    assert found.offset_mm[0] - before[0] == pytest.approx(x, abs=0.3)


def test_no_midline_no_mirror(head):
    points = head.points.copy()
    points[[k for k, landmark in enumerate(PROTOCOL) if landmark.side == "M"]] = np.nan
    with pytest.raises(UserError, match="midline"):
        asymmetries(LandmarkSet.from_points(PROTOCOL, points))
