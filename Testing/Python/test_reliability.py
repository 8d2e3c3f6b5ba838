"""Intraclass correlation and Bland-Altman limits against published numbers and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from BrainLandmarksLib.agreement.reliability import bland_altman, intraclass_correlation

# Shrout and Fleiss 1979, Table 2: four judges rate six targets; Table 4 has the results.
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def test_the_example_of_shrout_and_fleiss():
    icc = intraclass_correlation(SHROUT_FLEISS)
    assert round(icc.two_one, 2) == 0.29
    assert round(icc.three_one, 2) == 0.71
    assert icc.targets == 6


def test_incomplete_targets_are_left_out():
    with_gap = [*SHROUT_FLEISS, [5, np.nan, 3, 4]]
    assert intraclass_correlation(with_gap) == intraclass_correlation(SHROUT_FLEISS)
    one = intraclass_correlation([[1.0, 2.0]])
    assert np.isnan(one.two_one)
    assert one.targets == 1
    assert np.isnan(intraclass_correlation(np.ones((4, 2))).three_one)
    with pytest.raises(ValueError, match="two raters"):
        intraclass_correlation([[1.0], [2.0]])


@given(st.integers(0, 2**31), st.integers(2, 5))
def test_what_counts_as_disagreement(seed, raters):
    """A habit of one rater lowers ICC(2,1) and leaves ICC(3,1); neither depends on the origin."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, (12, 1)) + rng.normal(0, 1, (12, raters))
    before = intraclass_correlation(x)
    x_shifted = intraclass_correlation(x + 50.0)
    assert x_shifted.two_one == pytest.approx(before.two_one, abs=1e-9)
    habit = x - x.mean(axis=0) + np.r_[20.0, np.zeros(raters - 1)]
    after = intraclass_correlation(habit)
    assert after.three_one == pytest.approx(before.three_one, abs=1e-9)
    assert after.two_one < after.three_one
    same = intraclass_correlation(np.tile(x[:, :1], (1, raters)))
    assert same.two_one == pytest.approx(1)
    assert same.three_one == pytest.approx(1)


def test_limits_of_agreement_by_hand():
    first, second = np.array([1.0, 2.0, 3.0, np.nan]), np.array([0.0, 2.0, 4.0, 5.0])
    limits = bland_altman(first, second)
    # Differences 1, 0, -1: mean 0, standard deviation 1.
    assert float(limits.bias) == 0
    assert float(limits.lower) == pytest.approx(-1.96)
    assert float(limits.upper) == pytest.approx(1.96)
    many = bland_altman(np.stack([first, first + 2], 1), np.stack([second, second], 1))
    np.testing.assert_allclose(many.bias, [0, 2])
    assert np.isnan(bland_altman([1.0], [2.0]).bias)
