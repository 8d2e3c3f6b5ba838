"""Losses: equal to the paper's formulas, and gradients equal to numerical ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from BrainLandmarksTrainLib.engine.losses import (
    HeatmapCrossEntropy,
    MixedLoss,
    target_window,
    visible,
)

SHAPE = (12, 9, 10)


def heatmaps(dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype)


def truth(dtype: torch.dtype = torch.float64) -> Tensor:
    points = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return points * (torch.tensor(SHAPE) - 1)


def reference(
    logits: Tensor, points: Tensor, sigma: float, alpha: float, coordinate: str
) -> Tensor:
    """Section III-E, written down term by term."""
    axes = torch.meshgrid(
        *[torch.arange(n, dtype=logits.dtype) for n in logits.shape[2:]], indexing="ij"
    )
    losses = []
    for h, p in zip(logits.flatten(0, 1), points.flatten(0, 1), strict=True):
        if not torch.isfinite(p).all():
            continue
        phi = h.flatten().softmax(0).view_as(h)
        target = torch.exp(
            -0.5 * sum((x - c) ** 2 for x, c in zip(axes, p, strict=True)) / sigma**2
        )
        target = target / target.sum()
        found = torch.stack([(phi * x).sum() for x in axes])
        l_h = -(target * phi.log()).sum()
        l_c = (found - p).square().sum()
        l_c = l_c if coordinate == "mse" else (l_c + 1e-6).sqrt()
        losses.append(alpha * l_h + (1 - alpha) * l_c)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("coordinate", ["mse", "euclidean"])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_equals_the_formula(coordinate: str, alpha: float, missing: bool) -> None:
    logits, points = heatmaps().requires_grad_(), truth()
    if missing:
        points[0, 1] = torch.nan
    loss = MixedLoss(alpha, 1.0, coordinate)
    parts = loss(logits, points)
    expected = reference(logits, points, 1.0, alpha, coordinate)
    # The target stops four standard deviations out.
    torch.testing.assert_close(parts.total, expected, rtol=1e-3, atol=0)
    gradient = torch.autograd.grad(parts.total, logits)[0]
    wanted = torch.autograd.grad(expected, logits)[0]
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
    assert parts.count == (5 if missing else 6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_gradient(layout: torch.memory_format) -> None:
    logits = heatmaps()[:1, :2, :5, :4, :6].contiguous(memory_format=layout).requires_grad_()
    points = truth()[:1, :2] * 0.3
    points[0, 1, 2] = torch.nan
    loss = MixedLoss(0.3, 0.8, "euclidean")
    assert torch.autograd.gradcheck(lambda x: loss(x, points).total, [logits])
    assert torch.autograd.gradcheck(
        lambda x: HeatmapCrossEntropy.apply(x, points.nan_to_num(1.0), 0.8), [logits]
    )


def test_missing_landmarks_get_no_gradient() -> None:
    logits, points = heatmaps().requires_grad_(), truth()
    points[1, 2] = torch.nan
    MixedLoss()(logits, points).total.backward()
    assert logits.grad[1, 2].abs().max() == 0
    assert all(float(g.abs().max()) > 0 for g in logits.grad.flatten(0, 1)[:-1])


def test_nothing_visible_is_no_loss() -> None:
    logits = heatmaps().requires_grad_()
    parts = MixedLoss()(logits, torch.full((2, 3, 3), torch.nan, dtype=torch.float64))
    parts.total.backward()
    assert float(parts.total.detach()) == 0
    assert parts.count == 0
    assert logits.grad.abs().max() == 0


def test_perfect_coordinates_have_a_finite_gradient() -> None:
    logits = torch.zeros(1, 1, 5, 5, 5, requires_grad=True)
    MixedLoss(0.0, 1.0, "euclidean")(logits, torch.full((1, 1, 3), 2.0)).total.backward()
    assert torch.isfinite(logits.grad).all()


def test_bfloat16_heatmaps() -> None:
    logits = heatmaps(torch.float32)
    points = truth(torch.float32)
    reduced = logits.bfloat16().requires_grad_()
    parts = MixedLoss()(reduced, points)
    parts.total.backward()
    assert parts.total.dtype == torch.float32
    assert reduced.grad.dtype == torch.bfloat16
    torch.testing.assert_close(parts.total, MixedLoss()(logits, points).total, rtol=0.01, atol=0)


def test_visible_points_lie_in_the_cube() -> None:
    points = torch.tensor(
        [[[0.0, 0.0, 0.0], [-0.6, 1.0, 1.0], [11.5, 1.0, 1.0], [1.0, 9.0, 1.0], [torch.nan] * 3]]
    )
    assert visible(points, SHAPE).tolist() == [[True, False, True, False, False]]


@pytest.mark.parametrize("position", [(0.0, 0.0, 0.0), (5.5, 4.2, 3.9), (11.0, 8.0, 9.0)])
@pytest.mark.parametrize("sigma", [0.5, 1.5, 6.0])
def test_target_sums_to_one(position: tuple[float, float, float], sigma: float) -> None:
    index, value = target_window(torch.tensor([[position]]), SHAPE, sigma)
    assert float(value.sum()) == pytest.approx(1.0, abs=1e-5)
    assert int(index.min()) >= 0
    assert int(index.max()) < 12 * 9 * 10


@pytest.mark.parametrize("settings", [{"alpha": 1.2}, {"sigma": 0.0}, {"coordinate": "manhattan"}])
def test_wrong_settings(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"alpha|sigma|coordinate"):
        MixedLoss(**settings)
