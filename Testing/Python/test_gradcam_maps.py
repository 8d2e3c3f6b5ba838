"""Grad-CAM on one cube: equal to its definition, whichever layer, target and size."""

from __future__ import annotations

import pytest
import torch
from test_network import KINDS, copy_published, randomise
from torch import Tensor, nn

from BrainLandmarksLib.gradcam import TARGETS, layers
from BrainLandmarksLib.gradcam.layers import LayerChain
from BrainLandmarksLib.gradcam.maps import default_layer, observe
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet, pad_channels


def literal(network: HighRes3DNet, cube: Tensor, target: str) -> dict[str, Tensor]:
    """The paper's equations for every layer, one landmark after another, by autograd."""
    seen: dict[str, Tensor] = {}

    def see(name: str, x: Tensor) -> Tensor:
        seen[name] = x
        return x

    def part(name: str, block: nn.Module, x: Tensor) -> Tensor:
        conv, norm, _ = block.children()
        return see(name, see(f"{name}.1", norm(see(f"{name}.0", conv(x)))).relu())

    x = part("first", network.first, cube.clone().requires_grad_())
    ends = []
    for stage, (dilation, blocks) in enumerate(network.residual_stages()):
        for number, block in enumerate(blocks):
            name, identity = f"stages.{stage}.{number}", x
            for half in "12":
                conv = getattr(block, f"conv{half}")
                x = see(f"{name}.norm{half}", getattr(block, f"norm{half}")(x)).relu()
                x = nn.functional.conv3d(x, conv.weight, padding=dilation, dilation=dilation)
                x = see(f"{name}.conv{half}", x)
            if block.attention is not None:
                means = x.mean((2, 3, 4))
                inner = block.attention.squeeze(means).relu()
                weights = 2 * block.attention.excite(inner).sigmoid()
                x = see(f"{name}.attention", x * weights[..., None, None, None])
            x = see(name, x + pad_channels(identity, x.shape[1]))
        ends.append(x)
    x = torch.cat(ends, 1) if network.long_skips else x
    heatmaps = see("classifier", network.classifier(part("penultimate", network.penultimate, x)))
    if network.classifier_norm:
        heatmaps = see("norm", network.norm(heatmaps))
    maps: dict[str, list[Tensor]] = {layer: [] for layer in seen}
    for heatmap in heatmaps[0]:
        if target == "argmax":
            y = heatmap.max()
        else:
            mass = heatmap.detach().flatten().softmax(0).reshape(heatmap.shape)
            ijk = torch.stack(torch.meshgrid(*map(torch.arange, mass.shape), indexing="ij"), -1)
            point = (mass[..., None] * ijk).sum((0, 1, 2))
            scaled = 2 * point / (torch.tensor(mass.shape) - 1) - 1
            y = nn.functional.grid_sample(
                heatmap[None, None], scaled.flip(0)[None, None, None, None], align_corners=True
            ).squeeze()
        gradients = torch.autograd.grad(y, list(seen.values()), retain_graph=True)
        for (layer, activations), gradient in zip(seen.items(), gradients, strict=True):
            alpha = gradient[0].mean((1, 2, 3), keepdim=True)
            maps[layer].append((alpha * activations[0]).sum(0).relu().detach())
    return {layer: torch.stack(parts) for layer, parts in maps.items()}


def made(classifier_norm: bool = False, **changes) -> HighRes3DNet:
    options = {"features": 2, "penultimate": 7, "residual_blocks": 2, **changes}
    network = HighRes3DNet(out_channels=6, classifier_norm=classifier_norm, **options)
    randomise(network)
    return network.double().eval().requires_grad_(False)


def some_cube(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(1, 1, *shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(12, 12, 12), (9, 7, 13)])
def test_every_layer_equals_the_definition(shape, target):
    """Blocks of one voxel up to whole volumes, at the border, on lattices that do not divide it."""
    network, cube = made(classifier_norm=True), some_cube(*shape)
    expected = literal(network, cube, target)
    assert set(expected) == set(LayerChain(network).layers)
    for layer, maps in expected.items():
        found = observe(network, cube, layer, target=target).maps(range(6))
        assert float(maps.max()) > 0, layer
        torch.testing.assert_close(found, maps, rtol=1e-6, atol=1e-9 * float(maps.max()))


@pytest.mark.parametrize("dilations", [(1,), (2, 2), (1, 4), (1, 1, 2)])
def test_any_chain_of_dilations(dilations):
    network, cube = made(dilations=dilations), some_cube(10, 10, 10)
    for layer, maps in literal(network, cube, "argmax").items():
        torch.testing.assert_close(observe(network, cube, layer).maps(range(6)), maps)


@pytest.mark.parametrize(
    ("shape", "kind"), [((12, 12, 12), KINDS[-1]), *(((9, 7, 11), kind) for kind in KINDS[:-1])]
)
def test_long_skips_and_attention_equal_the_definition(shape, kind):
    """Attention ties all voxels together: its gradients are volumes, and as exact."""
    network, cube = made(**kind), some_cube(*shape)
    expected = literal(network, cube, "softmax")
    assert set(expected) == set(LayerChain(network).layers)
    for layer, maps in expected.items():
        found = observe(network, cube, layer, target="softmax").maps(range(6))
        torch.testing.assert_close(found, maps, rtol=1e-6, atol=1e-9 * float(maps.max()))


class Reader(nn.Module):
    """A heatmap network as a classifier: its K outputs are the heatmaps' values at one voxel each.

    MONAI's Grad-CAM explains classes; this is how it can be asked for landmarks.
    """

    def __init__(self, network: nn.Module, voxels: Tensor) -> None:
        super().__init__()
        self.network, self.voxels = network, voxels.long()

    def forward(self, cube: Tensor) -> Tensor:
        i, j, k = self.voxels.T
        return self.network(cube)[:, torch.arange(len(self.voxels)), i, j, k]


PUBLISHED_LAYERS = [
    ("stages.2.2.conv2", "block.3.dilation_block.2.residual_block.1.convolutional_block.3"),
    ("stages.2.1", "block.3.dilation_block.1"),
    ("stages.1.0.conv1", "block.2.dilation_block.0.residual_block.0.convolutional_block.3"),
]
"""Layers of ours and what the published network calls them."""


def pair() -> tuple[nn.Module, HighRes3DNet]:
    """The published network and ours, with the same weights."""
    highresnet = pytest.importorskip("highresnet")
    published = highresnet.HighRes3DNet(1, 6, add_dropout_layer=True)
    randomise(published)
    network = HighRes3DNet(out_channels=6, classifier_norm=True)
    copy_published(published, network)
    return published.double().eval(), network.double()


@pytest.mark.parametrize(("layer", "theirs"), PUBLISHED_LAYERS)
def test_equals_monai_on_the_published_network(layer, theirs):
    visualize = pytest.importorskip("monai.visualize")
    published, network = pair()
    cube = some_cube(12, 12, 12)
    seen = observe(network, cube, layer)
    cam = visualize.GradCAM(Reader(published, seen.points), f"network.{theirs}")
    expected = torch.cat([cam.compute_map(cube, class_idx=row)[0] for row in range(6)])
    torch.testing.assert_close(seen.maps(range(6)), expected.detach(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("layer", "theirs"), PUBLISHED_LAYERS)
def test_equals_m3d_cam_up_to_its_scaling(layer, theirs):
    """Runs where M3d-CAM is installed; docs/gradcam.md says why the test extra leaves it out."""
    pytest.importorskip("cv2")  # M3d-CAM imports it and does not ask pip for it
    medcam = pytest.importorskip("medcam.medcam")
    published, network = pair()
    cube = some_cube(12, 12, 12)
    seen = observe(network, cube, layer)
    injected = medcam.inject(published, layer=theirs)
    for row, expected in enumerate(seen.maps(range(6))):
        at = (0, row, *seen.points[row].long())

        def chosen(heatmaps: Tensor, at: tuple[object, ...] = at) -> Tensor:
            mask = torch.zeros_like(heatmaps)
            mask[at] = 1
            return mask

        injected(cube, label=chosen)
        found = torch.from_numpy(injected.get_attention_map())[0, 0]
        span = expected.max() - expected.min()
        scaled = (expected - expected.min()) / span
        torch.testing.assert_close(found, scaled, rtol=1e-6, atol=1e-12)


def test_the_default_layer_is_the_last_that_looks_at_neighbours():
    network = HighRes3DNet(out_channels=2)
    assert default_layer(network) == "stages.2.2.conv2"
    names = LayerChain(network).layers
    after = names[names.index("stages.2.2.conv2") + 1 :]
    sizes = [network.get_submodule(f"{name}").kernel_size for name in after if name[-1] == "0"]
    assert sizes == [(1, 1, 1)]
    assert network.classifier.kernel_size == (1, 1, 1)


def test_the_parts_of_a_request_do_not_change_the_answer(monkeypatch):
    """One landmark, all at once, in small chunks, again: the same maps."""
    network, cube = made(), some_cube(12, 12, 12)
    for layer in ("stages.0.0.conv1", "stages.1.1", default_layer(network)):
        every = observe(network, cube, layer, target="softmax").maps(range(6))
        monkeypatch.setattr(layers, "_BUDGET_BYTES", 1)
        seen = observe(network, cube, layer, target="softmax")
        monkeypatch.undo()
        for rows in ([3], [5, 0, 3], list(range(6))):
            torch.testing.assert_close(seen.maps(rows), every[rows])


def test_a_map_against_the_evidence_is_zero():
    """With every weight of the classifier negative, no feature speaks for the landmark."""
    network, cube = made(), some_cube(8, 8, 8)
    network.classifier.weight.abs_().neg_()
    seen = observe(network, cube, "penultimate")
    assert float(seen.maps(range(6)).max()) == 0
    assert float(seen.weights(range(6)).max()) <= 0


def test_float32_is_near_float64():
    network, cube = made(features=8, penultimate=20), some_cube(12, 12, 12)
    exact = observe(network, cube).maps(range(6))
    found = observe(network.float(), cube).maps(range(6)).double()
    assert float((found - exact).abs().max()) < 1e-4 * float(exact.max())


def test_progress_rises_and_can_end_the_pass():
    seen: list[float] = []
    observe(made(), some_cube(8, 8, 8), progress=seen.append)
    assert seen == sorted(seen)
    assert 0 == seen[0] < seen[-1] < 1

    def stop(fraction: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        observe(made(), some_cube(8, 8, 8), progress=stop)


def test_what_there_is_not():
    network, cube = made(), some_cube(8, 8, 8)
    with pytest.raises(ValueError, match="no layer"):
        observe(network, cube, "stages.9")
    with pytest.raises(ValueError, match="target"):
        observe(network, cube, target="mean")
    with pytest.raises(ValueError, match="one cube"):
        observe(network, cube.expand(2, -1, -1, -1, -1))
