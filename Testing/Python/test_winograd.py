"""Winograd's convolution: the numbers and gradients of PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from BrainLandmarksLib.network import winograd
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet, channels_last
from BrainLandmarksLib.network.inference import fold_batch_norm

SIDE = st.sampled_from([4, 8, 12])


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 20),
    features=st.sampled_from([(2, 3), (5, 1), (8, 8)]),
    sides=st.tuples(SIDE, SIDE, SIDE),
    seed=st.integers(0, 2**31),
)
def test_convolution_and_gradients(
    batch: int, features: tuple[int, int], sides: tuple[int, int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    few, many = features

    def made(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator)
        return x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()

    x, weight = made(batch, few, *sides), made(many, few, 3, 3, 3)
    above = made(batch, many, *sides).detach()
    found = []
    for convolved in (winograd.convolved, lambda x, w: F.conv3d(x, w, padding=1)):
        result = convolved(x, weight)
        found.append((result.detach(), *torch.autograd.grad(result, (x, weight), above)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        assert apart(ours, theirs) < 2e-4


@settings(max_examples=15, deadline=None)
@given(sides=st.tuples(*[st.integers(1, 13)] * 3), seed=st.integers(0, 2**31))
@torch.no_grad()
def test_without_gradients_a_volume_may_have_any_size(
    sides: tuple[int, int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((2, 3, *sides), generator=generator)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn((5, 3, 3, 3, 3), generator=generator)
    found = winograd.convolved(x, weight)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert apart(found, F.conv3d(x, weight, padding=1)) < 2e-4


@pytest.mark.parametrize("size", [(16, 16, 16), (20, 28, 24), (18, 16, 20), (15, 16, 17)])
@torch.no_grad()
def test_a_folded_network_finds_the_same(
    size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    folded = fold_batch_norm(HighRes3DNet(out_channels=5, features=16).eval())
    cube = torch.rand(1, 1, *size)
    taken = []
    convolved = winograd.convolved

    def counted(x: Tensor, weight: Tensor, **how: bool) -> Tensor:
        taken.append(tuple(x.shape[2:]))
        return convolved(x, weight, **how)

    monkeypatch.setattr(winograd, "convolved", counted)
    fast = folded(cube)
    assert set(taken) == ({tuple(n // 4 for n in size)} if not any(n % 4 for n in size) else set())
    monkeypatch.setattr(winograd, "LEAST_PAIRS", 10**9)
    assert apart(fast, folded(cube)) < 1e-4


@pytest.mark.parametrize("size", [(8, 12, 4), (6, 9, 5)])
def test_the_result_may_take_the_place_of_its_input(size: tuple[int, int, int]) -> None:
    """As many bytes less are taken, and every volume of the batch is read before it is written."""
    torch.manual_seed(3)
    x = torch.rand(70, 16, *size).contiguous(memory_format=torch.channels_last_3d)
    same, wider = torch.rand(16, 16, 3, 3, 3), torch.rand(24, 16, 3, 3, 3)
    with torch.inference_mode():
        beside, wide = winograd.convolved(x, same), winograd.convolved(x, wider, overwrite=True)
        assert wide.shape[1] == 24
        over = winograd.convolved(x, same, overwrite=True)
    assert over.data_ptr() == x.data_ptr() != beside.data_ptr()
    torch.testing.assert_close(over, beside, rtol=0, atol=0)


def test_it_is_taken_where_it_pays() -> None:
    x, weight = torch.zeros(1, 64, 8, 8, 8), torch.zeros(64, 64, 3, 3, 3)
    assert winograd.pays(x, weight)
    assert not winograd.pays(x.double(), weight.double())
    assert not winograd.pays(x.to("meta"), weight.to("meta"))
    assert not winograd.pays(x[:, :16], weight[:16, :16])
    assert not winograd.pays(x[..., :6], weight)
    with torch.no_grad():
        assert winograd.pays(x[..., :6], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(x, weight)


def test_the_network_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = channels_last(HighRes3DNet(out_channels=3, features=16))
    cube = torch.rand(1, 1, 16, 16, 16)
    taken: list[int] = []
    convolved = winograd.convolved

    def counted(x: Tensor, weight: Tensor) -> Tensor:
        taken.append(len(weight))
        return convolved(x, weight)

    monkeypatch.setattr(winograd, "convolved", counted)
    gradients = []
    for least in (winograd.LEAST_PAIRS, 10**9):
        monkeypatch.setattr(winograd, "LEAST_PAIRS", least)
        network.zero_grad()
        network(cube).logsumexp((2, 3, 4)).sum().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert taken == [64] * 6
    for ours, theirs in zip(*gradients, strict=True):
        assert float((ours - theirs).norm()) <= 0.02 * float(theirs.norm()) + 1e-5
