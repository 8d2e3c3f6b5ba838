"""The network: equal to the published one, and the same numbers whichever way it is run."""

from __future__ import annotations

import platform

import psutil
import pytest
import torch
from torch import Tensor, nn

from BrainLandmarksLib.network.highres3dnet import (
    HighRes3DNet,
    ResidualBlock,
    merge_lattice,
    pad_channels,
    split_lattice,
)
from BrainLandmarksLib.network.inference import (
    bfloat16_is_fast,
    fold_batch_norm,
    freed_memory_returned,
    inference_heatmaps,
    keep_freed_memory,
)


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Weights and batch-norm statistics that hide no mistake: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.running_var):
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias, module.running_mean):
                tensor.data.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        elif isinstance(module, nn.Conv3d):
            fan_in = module.weight[0].numel()
            noise = torch.randn(module.weight.shape, generator=generator)
            module.weight.data.copy_(noise * (2.0 / fan_in) ** 0.5)

        elif isinstance(module, nn.Linear):
            for tensor in (module.weight, module.bias):
                tensor.data.copy_(0.2 * torch.randn(tensor.shape, generator=generator))


KINDS = [
    {"long_skips": True},
    {"attention": "squeeze_excitation"},
    {"long_skips": True, "attention": "squeeze_excitation"},
]
"""Networks that the published one is not."""


def layers(network: nn.Module) -> list[nn.Module]:
    """Convolutions and batch norms in the order in which data meets them."""
    return [m for m in network.modules() if isinstance(m, (nn.Conv3d, nn.BatchNorm3d))]


def copy_published(source: nn.Module, target: HighRes3DNet) -> None:
    """Copy weights layer by layer: the published implementations list layers in the same order."""
    pairs = list(zip(layers(source), layers(target), strict=True))
    for theirs, ours in pairs:
        assert type(theirs) is type(ours)
        ours.load_state_dict(theirs.state_dict())


@pytest.fixture(scope="module")
def cube() -> Tensor:
    return torch.rand(1, 1, 24, 20, 16, generator=torch.Generator().manual_seed(1))


def test_equals_highresnet(cube: Tensor) -> None:
    highresnet = pytest.importorskip("highresnet")
    published = highresnet.HighRes3DNet(1, 88, add_dropout_layer=True).eval()
    randomise(published)
    ours = HighRes3DNet(out_channels=88, classifier_norm=True).eval()
    copy_published(published, ours)
    with torch.no_grad():
        torch.testing.assert_close(ours(cube), published(cube), atol=1e-4, rtol=1e-4)


def test_equals_monai(cube: Tensor) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    published = nets.HighResNet(spatial_dims=3, in_channels=1, out_channels=88).eval()
    randomise(published)
    ours = HighRes3DNet(out_channels=88, classifier_norm=True).eval()
    copy_published(published, ours)
    with torch.no_grad():
        # MONAI clips the last layer with a ReLU, which the published segmentation network and a
        # heatmap do not have.
        torch.testing.assert_close(ours(cube).relu(), published(cube), atol=1e-4, rtol=1e-4)


def test_published_network_trains_alike(cube: Tensor) -> None:
    """Also with the statistics of the batch, and in the gradients (split lattices)."""
    highresnet = pytest.importorskip("highresnet")
    published = highresnet.HighRes3DNet(1, 5, add_dropout_layer=True)
    randomise(published)
    for module in published.modules():
        if isinstance(module, nn.Dropout3d):
            module.p = 0.0
    ours = HighRes3DNet(out_channels=5, classifier_norm=True)
    copy_published(published, ours)
    weight = torch.randn(1, 5, *cube.shape[2:], generator=torch.Generator().manual_seed(2))
    for network in (published, ours):
        # float64: in float32 a rounding error that flips one ReLU already shows in the gradient.
        network.double().train()
        network(cube.double()).mul(weight).mean().backward()
    norms = 0
    for theirs, own in zip(layers(published), layers(ours), strict=True):
        torch.testing.assert_close(own.weight.grad, theirs.weight.grad)
        if isinstance(theirs, nn.BatchNorm3d):
            torch.testing.assert_close(own.running_var, theirs.running_var)
            norms += 1
    assert norms


def test_identity_is_padded_on_both_sides() -> None:
    x = torch.rand(1, 2, 3, 3, 3)
    padded = pad_channels(x, 7)
    assert padded.shape[1] == 7
    torch.testing.assert_close(padded[:, 2:4], x)
    assert padded[:, [0, 1, 4, 5, 6]].abs().sum() == 0


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_lattice_round_trip(factor: int) -> None:
    x = torch.rand(2, 3, 8, 4, 12)
    assert torch.equal(merge_lattice(split_lattice(x, factor), factor), x)


@pytest.mark.parametrize("dilation", [2, 4])
def test_block_on_sub_lattices_is_the_dilated_block(dilation: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 6, dilation).double()
    x = torch.randn(2, 4, 8, 12, 16, dtype=torch.float64, requires_grad=True)
    direct = block(x)
    split = merge_lattice(block(split_lattice(x, dilation), 1), dilation)
    torch.testing.assert_close(split, direct)
    weight = torch.randn_like(direct)
    parameters = [x, *block.parameters()]
    for a, b in zip(
        torch.autograd.grad(split, parameters, weight),
        torch.autograd.grad(direct, parameters, weight),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [{}, KINDS[-1]])
@pytest.mark.parametrize("shape", [(16, 16, 16), (12, 16, 20), (10, 13, 9)])
def test_training_layout_gives_the_same_heatmaps(shape: tuple[int, int, int], kind: dict) -> None:
    """With gradients (split where the size allows it) and without (dilated), to rounding."""
    torch.manual_seed(0)
    network = HighRes3DNet(out_channels=3, features=4, **kind).eval()
    randomise(network)
    x = torch.rand(2, 1, *shape)
    with_gradients = network(x)
    with torch.no_grad():
        without = network(x)
    assert with_gradients.shape == (2, 3, *shape)
    torch.testing.assert_close(with_gradients, without, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [{}, KINDS[-1]])
@pytest.mark.parametrize("dilations", [(1, 2, 4), (1, 1, 2), (2, 2), (1,), (1, 4)])
def test_any_chain_of_dilations(dilations: tuple[int, ...], kind: dict) -> None:
    network = HighRes3DNet(out_channels=2, features=2, dilations=dilations, **kind).eval()
    randomise(network)
    x = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        plain = network(x)
    torch.testing.assert_close(network(x), plain, atol=1e-5, rtol=1e-5)


def test_dilations_must_divide() -> None:
    with pytest.raises(ValueError, match="divide"):
        HighRes3DNet(dilations=(1, 2, 3))


@pytest.mark.parametrize("kind", [{}, *KINDS])
def test_spec_rebuilds_the_network(kind: dict) -> None:
    network = HighRes3DNet(out_channels=7, features=4, dropout=0.25, dilations=(1, 2), **kind)
    again = HighRes3DNet(**network.spec())
    again.load_state_dict(network.state_dict())
    assert again.spec() == network.spec()


def test_a_plain_network_is_described_as_ever() -> None:
    """Files of models without long skips and attention hold what they held, and load."""
    network = HighRes3DNet(out_channels=2, features=2)
    assert not {"long_skips", "attention"} & network.spec().keys()
    assert not any("attention" in name for name in network.state_dict())


def test_long_skips_show_every_stage_to_the_convolution_after_them() -> None:
    network = HighRes3DNet(out_channels=2, features=4, long_skips=True)
    assert network.penultimate[0].weight.shape[1] == 4 + 8 + 16
    plain = HighRes3DNet(out_channels=2, features=4)
    randomise(network)
    # The last 16 columns are the last stage's; with the others at zero nothing is added.
    network.penultimate[0].weight.data[:, :12] = 0
    weights = network.state_dict()
    weights["penultimate.0.weight"] = weights["penultimate.0.weight"][:, 12:]
    plain.load_state_dict(weights)
    x = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), plain.eval()(x))
        network.penultimate[0].weight.data[:, :12] = 0.1
        assert float((network(x) - plain(x)).abs().max()) > 1e-3


def test_attention_starts_as_none_and_then_looks_at_the_whole_cube() -> None:
    """At first every weight is 1; later a change in one corner shows in the opposite one."""
    network = HighRes3DNet(
        out_channels=2, features=4, residual_blocks=1, dilations=(1,),
        attention="squeeze_excitation",
    ).eval()  # fmt: skip
    plain = HighRes3DNet(out_channels=2, features=4, residual_blocks=1, dilations=(1,)).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "attention" not in k})
    x = torch.rand(1, 1, 16, 16, 16)
    other = x.clone()
    other[..., :3, :3, :3] += 5
    far = (..., slice(12, None), slice(12, None), slice(12, None))
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x))
        randomise(network)
        assert float((network(x) - network(other))[far].abs().max()) > 1e-4
        randomise(plain)
        assert torch.equal(plain(x)[far], plain(other)[far])


def test_attention_in_training_sees_cubes_one_by_one() -> None:
    """A cube weighs its own features, whatever else is in the batch and however it is split."""
    network = HighRes3DNet(out_channels=2, features=2, **KINDS[-1]).eval()
    randomise(network)
    x = torch.rand(3, 1, 8, 8, 8) * torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1, 1)
    each = torch.cat([network(cube[None]) for cube in x])
    torch.testing.assert_close(network(x), each, atol=1e-5, rtol=1e-5)


def test_unknown_attention() -> None:
    with pytest.raises(ValueError, match="squeeze_excitation"):
        HighRes3DNet(attention="everything")


@pytest.mark.parametrize(
    ("classifier_norm", "kind"), [(False, {}), (True, {}), *((False, kind) for kind in KINDS)]
)
def test_folding_changes_nothing(cube: Tensor, classifier_norm: bool, kind: dict) -> None:
    network = HighRes3DNet(
        out_channels=9, features=8, dropout=0.5, classifier_norm=classifier_norm, **kind
    ).eval()
    randomise(network)
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in folded.modules())
    with torch.no_grad():
        expected = network(cube)
    torch.testing.assert_close(folded(cube), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        inference_heatmaps(network, cube, "float32"), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", [{}, {"features": 4, **KINDS[-1]}])
def test_reduced_precision_keeps_the_logits(cube: Tensor, kind: dict) -> None:
    """bfloat16 operands err like bfloat16: by less than 2 per cent of the logits' spread."""
    network = HighRes3DNet(out_channels=12, **kind).eval()
    randomise(network)
    small = cube[..., :12, :12, :12]  # bfloat16 is slow where the processor does not know it
    exact = inference_heatmaps(network, small, "float32")
    fast = inference_heatmaps(network, small, "bfloat16")
    assert fast.dtype == torch.float32
    assert float((fast - exact).std() / exact.std()) < 0.02


def test_unknown_precision() -> None:
    network = HighRes3DNet(out_channels=1, features=2)
    with pytest.raises(ValueError, match="precision"):
        inference_heatmaps(network, torch.zeros(1, 1, 8, 8, 8), "float16")


def test_auto_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fold_batch_norm(HighRes3DNet(out_channels=2, features=2))
    x = torch.rand(1, 1, 8, 8, 8)
    for fast, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(
            "BrainLandmarksLib.network.inference.bfloat16_is_fast", lambda _, f=fast: f
        )
        assert torch.equal(inference_heatmaps(network, x), inference_heatmaps(network, x, name))


def test_device_queries() -> None:
    assert isinstance(bfloat16_is_fast("cpu"), bool)
    assert bfloat16_is_fast("meta") is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library decides by itself")
def test_what_was_kept_is_returned() -> None:
    megabyte = 1 << 20
    keep_freed_memory()
    for size in (40, 60, 80, 100):
        torch.ones(size * megabyte // 4)
    kept = psutil.Process().memory_info().rss
    with freed_memory_returned():
        torch.ones(100 * megabyte // 4)
        left = psutil.Process().memory_info().rss
    assert left < kept - 60 * megabyte
