"""Heatmaps to coordinates and confidence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from BrainLandmarksLib.network.decoding import (
    Calibration,
    argmax,
    decode,
    spatial_softmax,
)

SHAPE = (20, 24, 18)


def bump(centre: tuple[float, float, float], sigma: float = 1.5, height: float = 0.0) -> Tensor:
    """Logits whose softmax is a Gaussian, ``(1, 1, D, H, W)``."""
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in SHAPE], indexing="ij")
    squared = sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True))
    return (height - 0.5 * squared / sigma**2)[None, None]


CENTRE = (9.3, 12.8, 7.45)


@pytest.mark.parametrize("read", [spatial_softmax, argmax])
def test_finds_a_gaussian(read) -> None:
    limit = {spatial_softmax: 1e-3, argmax: 0.5}[read]
    found = read(bump(CENTRE).float())
    assert found.shape == (1, 1, 3)
    assert found.dtype == torch.float32
    assert np.abs(found[0, 0].numpy() - CENTRE).max() < limit


def test_spatial_softmax_is_the_expected_voxel() -> None:
    """Against the definition in five lines."""
    logits = 3 * torch.randn(2, 3, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    phi = logits.double().flatten(2).softmax(2).view_as(logits)
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for i, j, k in np.ndindex(5, 6, 7):
        expected += phi[:, :, i, j, k, None] * torch.tensor([i, j, k])
    torch.testing.assert_close(spatial_softmax(logits), expected.float())
    channels_last = logits.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(spatial_softmax(channels_last), expected.float())


def test_spatial_softmax_is_differentiable() -> None:
    logits = torch.randn(1, 2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(spatial_softmax, [logits])


def test_large_logits_do_not_overflow() -> None:
    found = spatial_softmax(bump(CENTRE, height=1e4).float() + 1e5)
    assert np.abs(found[0, 0].numpy() - CENTRE).max() < 0.05


def test_half_precision_heatmaps_are_read_in_float32() -> None:
    for read in (spatial_softmax, argmax):
        found = read(bump(CENTRE).bfloat16())
        assert found.dtype == torch.float32
        assert np.abs(found[0, 0].numpy() - CENTRE).max() < 1.0


def test_windows_are_clipped_at_the_border() -> None:
    corner = bump((0, SHAPE[1] - 1, 0))
    assert float(decode(corner, radius=8).peak_mass) == pytest.approx(1.0, abs=1e-3)


def test_decode_describes_the_heatmap() -> None:
    decoded = decode(torch.cat([bump(CENTRE, 1.0), bump(CENTRE, 2.0)], 1), radius=3)
    assert np.abs(decoded.coordinates[0].numpy() - CENTRE).max() < 0.02
    assert decoded.spread[0].tolist() == pytest.approx([3**0.5, 2 * 3**0.5], rel=0.02)
    assert decoded.peak_mass[0, 0] > 0.98
    assert decoded.peak_mass[0, 1] < 0.9


def test_sharper_coordinates_follow_faint_mass_less() -> None:
    two = torch.maximum(bump([5, 6, 7]), bump([12, 6, 7]) - 3)
    plain, sharp = decode(two), decode(two, inverse_temperature=2.0)
    torch.testing.assert_close(sharp.coordinates, spatial_softmax(2 * two))
    assert 5 < sharp.coordinates[0, 0, 0] < plain.coordinates[0, 0, 0] - 0.1
    torch.testing.assert_close(sharp.peak_mass, plain.peak_mass)
    torch.testing.assert_close(sharp.spread, plain.spread)


def test_only_stacks_of_volumes_are_heatmaps() -> None:
    with pytest.raises(ValueError, match="heatmaps"):
        spatial_softmax(torch.zeros(3, 4, 5))


def samples(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Spread and error of made-up landmarks: the error grows with the spread."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(1, 12, n)
    return spread, spread * np.abs(rng.normal(0, 0.6, n))


def test_calibration_says_how_often_it_is_right() -> None:
    spread, error = samples()
    calibration = Calibration.fit(spread[::2], error[::2])
    confidence = calibration(spread[1::2])
    for low, high in ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0)):
        chosen = (confidence >= low) & (confidence <= high)
        right = (error[1::2][chosen] <= 4.0).mean()
        assert right == pytest.approx(confidence[chosen].mean(), abs=0.06)
    assert calibration.count == 2000


def test_calibration_falls_with_spread_and_rises_with_mass() -> None:
    spread, error = samples()
    falling = Calibration.fit(spread, error)
    assert (np.diff(falling.probabilities) <= 0).all()
    rising = Calibration.fit(-spread, error, rising=True, feature="peak_mass")
    assert (np.diff(rising.probabilities) >= 0).all()
    np.testing.assert_allclose(rising(-spread), falling(spread), atol=0.02)


def test_calibration_never_claims_certainty() -> None:
    calibration = Calibration.fit(np.arange(30.0), np.zeros(30))
    assert 0.8 < max(calibration.probabilities) < 1.0


def test_calibration_keeps_missing_missing_and_holds_its_ends() -> None:
    calibration = Calibration((1.0, 2.0), (0.9, 0.4))
    np.testing.assert_allclose(
        calibration(np.array([[0.0, 1.5], [9.0, np.nan]])), [[0.9, 0.65], [0.4, np.nan]]
    )


def test_calibration_leaves_out_missing_landmarks() -> None:
    spread, error = samples(400)
    holes = np.where(np.arange(400) % 7 == 0, np.nan, error)
    known = np.isfinite(holes)
    assert Calibration.fit(spread, holes) == Calibration.fit(spread[known], error[known])


def test_calibration_with_equal_features() -> None:
    calibration = Calibration.fit(np.full(100, 2.0), np.arange(100) * 0.08)
    assert len(calibration.knots) == 1
    assert calibration(np.array([2.0])) == pytest.approx(0.51, abs=0.05)


def test_calibration_survives_json() -> None:
    calibration = Calibration.fit(*samples(300), threshold_mm=3.0)
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration


@pytest.mark.parametrize(
    ("knots", "probabilities"),
    [
        ((), ()),
        ((1.0,), (0.5, 0.4)),
        ((2.0, 1.0), (0.5, 0.4)),
        ((1.0, np.nan), (0.5, 0.4)),
        ((1.0, 2.0), (0.5, 1.4)),
        ((1.0, 2.0, 3.0), (0.5, 0.6, 0.5)),
    ],
)
def test_bad_tables_are_refused(knots, probabilities) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(knots, probabilities)


@pytest.mark.parametrize("values", [{}, {"knots": [1]}, {"knots": 3, "probabilities": 3}])
def test_bad_json_tables_are_refused(values) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_dict(values)


def test_too_few_landmarks_to_calibrate() -> None:
    with pytest.raises(ValueError, match="at least two"):
        Calibration.fit(np.array([1.0, np.nan]), np.array([1.0, 1.0]))
