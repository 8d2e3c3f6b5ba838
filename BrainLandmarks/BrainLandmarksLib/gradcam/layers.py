"""The network as a chain of named layers: forwards to any layer, backwards from any voxel.

Automatic differentiation would send one whole volume per landmark back through the network. But one
voxel of a heatmap depends on few voxels of a layer: on a single one through 1x1x1 convolutions, on
a block of (2r + 1)^3, every d-th voxel of it, through convolutions of dilation d. So gradients
travel here as blocks round their voxel, those of many landmarks in one batch, and become whole
volumes only when the blocks are no smaller. The result is exact, not an approximation: a block
holds every voxel on which the gradient is not zero. Attention ties every voxel of a block to all
others, so before it gradients are whole volumes.

The batch norms use their running statistics and dropout is off, as in detection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from BrainLandmarksLib.network.highres3dnet import (
    CHANNELS_LAST,
    HighRes3DNet,
    SqueezeExcitation,
    pad_channels,
)

NetworkProgress = Callable[[float], None]
"""Called with the fraction of the forward pass done (0 to 1); an exception it raises ends it."""

_BUDGET_BYTES = 512 * 1024**2
_COPIES = 6  # a gradient, its mask, the mask's indices and the convolution's workspace at one time


@dataclass(frozen=True)
class Passage:
    """What the way back from the heatmaps of one forward pass to one layer needs."""

    activations: Tensor
    """What the layer computed, ``(1, T, D, H, W)``."""
    landmarks: int
    """K, number of heatmaps."""
    tail: tuple[tuple[_Step, Any], ...]
    """The steps after the layer, each with what it kept, first to last."""


@dataclass(frozen=True)
class Seeds:
    """Scalars ``y_n = sum of weight * heatmap value``, whose gradients are wanted.

    Args:
        voxels: ``(S, 3)`` int64, ijk of each heatmap voxel that counts.
        channels: ``(S,)`` int64, its heatmap.
        weights: ``(S,)``, its share in the scalar.
        owners: ``(S,)`` int64, the scalar it belongs to, 0 to ``count - 1``.
        count: number of scalars.
    """

    voxels: Tensor
    channels: Tensor
    weights: Tensor
    owners: Tensor
    count: int


class LayerChain:
    """A :class:`HighRes3DNet` in eval mode, step by step.

    >>> chain = LayerChain(network)
    >>> heatmaps, passage = chain.forward(cube, "stages.2.2.conv2")
    >>> mean_gradients = chain.backward(passage, seeds)

    Layers have the names that PyTorch gives their modules: "first.0" and "first.1" (convolution and
    batch norm of the first layer), "first" (with its ReLU), per residual block "stages.S.B.norm1",
    ".conv1", ".norm2", ".conv2", ".attention" (weighed, where the network has it) and "stages.S.B"
    (with the identity added), "penultimate.0", "penultimate.1", "penultimate", "classifier" and,
    where the network has it, "norm".
    """

    def __init__(self, network: HighRes3DNet) -> None:
        steps: list[tuple[str, _Step]] = []

        def first_or_penultimate(name: str, part: nn.Module) -> None:
            conv, norm, _ = part.children()
            steps.append((f"{name}.0", _Convolution(conv)))
            steps.append((f"{name}.1", _Norm(norm)))
            steps.append((name, _ReLU()))

        first_or_penultimate("first", network.first)
        for stage, (dilation, blocks) in enumerate(network.residual_stages()):
            for number, block in enumerate(blocks):
                name = f"stages.{stage}.{number}"
                steps += [
                    ("", _Branch()),
                    (f"{name}.norm1", _Norm(block.norm1)),
                    ("", _ReLU()),
                    (f"{name}.conv1", _Convolution(block.conv1, dilation)),
                    (f"{name}.norm2", _Norm(block.norm2)),
                    ("", _ReLU()),
                    (f"{name}.conv2", _Convolution(block.conv2, dilation)),
                ]
                if block.attention is not None:
                    steps.append((f"{name}.attention", _Attention(block.attention)))
                steps.append((name, _Join()))
            if network.long_skips and stage < len(network.stages) - 1:
                steps.append(("", _Branch()))
        if network.long_skips:
            steps.append(("", _Concatenate(len(network.stages) - 1)))
        first_or_penultimate("penultimate", network.penultimate)
        steps.append(("classifier", _Convolution(network.classifier)))
        if network.classifier_norm:
            steps.append(("norm", _Norm(network.norm)))
        self._steps = steps

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in the order in which data meets them."""
        return tuple(name for name, _ in self._steps if name)

    @torch.inference_mode()
    def forward(
        self, cube: Tensor, layer: str, progress: NetworkProgress | None = None
    ) -> tuple[Tensor, Passage]:
        """Run the network on one cube and keep what a layer computed.

        Args:
            cube: ``(1, C, D, H, W)`` of the network's dtype, on its device.
            layer: one of `layers`.

        Returns:
            Heatmaps (logits), ``(1, K, D, H, W)``, and what was kept.

        Raises:
            ValueError: there is no such layer, or more than one cube.
        """
        if layer not in self.layers:
            raise ValueError(f"there is no layer {layer!r}")
        if cube.ndim != 5 or len(cube) != 1:
            raise ValueError(f"one cube (1, C, D, H, W) at a time, not {tuple(cube.shape)}")
        whole = sum(step.cost for _, step in self._steps)
        done = 0
        activations: Tensor | None = None
        tail: list[tuple[_Step, Any]] = []
        skips: list[Tensor] = []
        x = cube.contiguous(memory_format=CHANNELS_LAST)
        for name, step in self._steps:
            if progress is not None and step.cost:
                progress(done / whole)
            if activations is None:
                x, _ = step.forward(x, skips, keep=False, overwrite=True)
            else:
                x, kept = step.forward(x, skips, keep=True, overwrite=x is not activations)
                tail.append((step, kept))
            done += step.cost
            if name == layer:
                activations = x
        assert activations is not None
        return x, Passage(activations, x.shape[1], tuple(tail))

    @torch.inference_mode()
    def backward(self, passage: Passage, seeds: Seeds) -> Tensor:
        """Gradients of scalars with respect to the layer's activations, summed over the voxels.

        Returns:
            ``(n, T)``: of each scalar, for each feature of the layer.
        """
        rows = []
        shape = tuple(passage.activations.shape[2:])
        share = max(1, int(torch.bincount(seeds.owners, minlength=seeds.count).max()))
        step = max(1, _BUDGET_BYTES // (share * self._bytes_per_seed(passage)))
        for start in range(0, seeds.count, step):
            count = min(step, seeds.count - start)
            own = (seeds.owners >= start) & (seeds.owners < start + count)
            values = passage.activations.new_zeros(int(own.sum()), passage.landmarks, 1, 1, 1)
            values[torch.arange(len(values)), seeds.channels[own]] = seeds.weights[
                own, None, None, None
            ].to(values.dtype)
            gradient = Gradient(
                values, seeds.voxels[own], seeds.owners[own] - start, count, shape, stride=1
            )
            skips: list[Gradient] = []
            for back, kept in reversed(passage.tail):
                gradient = back.backward(gradient, kept, skips)
            rows.append(gradient.sums())
        return torch.cat(rows) if rows else passage.activations.new_zeros(0, 0)

    def _bytes_per_seed(self, passage: Passage) -> int:
        """Memory that the way back of one seed takes at most."""
        volume = passage.activations[0, 0].numel()
        width, stride, most = 1, 1, 1
        channels = passage.landmarks
        for step, _ in reversed(passage.tail):
            if isinstance(step, _Attention):
                most = max(most, channels * volume)
                width = max(width, round(volume ** (1 / 3)) + 1)
            if isinstance(step, _Convolution):
                width, stride = _grown(width, stride, step.size, step.dilation)
                channels = max(channels, step.weight.shape[1])
                most = max(most, channels * min(width**3, volume))
        return most * passage.activations.element_size() * _COPIES


# One step of the chain ----------------------------------------------------------------------------


class _Step(ABC):
    """One step forwards, and the same step backwards for gradients."""

    cost = 0
    """What the step costs forwards: multiplications per voxel."""

    @abstractmethod
    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        """Output, and what `backward` needs (None if ``keep`` is off); may overwrite ``x``."""

    @abstractmethod
    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        """The gradient with respect to the step's input."""


class _Convolution(_Step):
    """A convolution that keeps the volume's size: its input is padded with zeros."""

    def __init__(self, conv: nn.Module, dilation: int = 1) -> None:
        assert isinstance(conv, nn.Conv3d)
        self.weight, self.bias, self.dilation = conv.weight, conv.bias, dilation
        self.size = self.weight.shape[2]
        self.cost = self.weight.numel()

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        padding = self.dilation * (self.size // 2)
        return F.conv3d(x, self.weight, self.bias, padding=padding, dilation=self.dilation), None

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        return gradient.spread(self.weight, self.dilation)


class _Norm(_Step):
    """A batch norm with its running statistics."""

    def __init__(self, norm: nn.Module) -> None:
        assert isinstance(norm, nn.BatchNorm3d)
        assert norm.running_var is not None
        self._norm = norm
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        self._scale = scale[:, None, None, None]

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        n = self._norm
        return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps), None

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        return replace(gradient, values=gradient.values * self._scale)


class _ReLU(_Step):
    """Sets negative values to zero; keeps which features of which voxel are above it."""

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        x = F.relu(x, inplace=overwrite)
        if not keep:
            return x, None
        rows = x[0].permute(1, 2, 3, 0).flatten(0, 2) > 0
        # The last row stands for all voxels outside the volume.
        return x, torch.cat([rows, rows.new_zeros(1, rows.shape[1])])

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        return gradient.masked(kept)


class _Branch(_Step):
    """Features leave, for the end of their residual block or for that of the last stage."""

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        skips.append(x)
        return x, None

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        return gradient.plus(skips.pop())


class _Join(_Step):
    """The end of a residual block: the identity, padded with zero features, is added."""

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        identity = skips.pop()
        before = (x.shape[1] - identity.shape[1]) // 2
        return x + pad_channels(identity, x.shape[1]), slice(before, before + identity.shape[1])

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        # A layer inside the block does not see the identity: its Branch is then no part of the
        # tail, and nobody takes this gradient.
        skips.append(replace(gradient, values=gradient.values[:, kept]))
        return gradient


class _Attention(_Step):
    """Features weighed by what the means of all of them say; keeps features, means and weights."""

    def __init__(self, attention: SqueezeExcitation) -> None:
        self._attention = attention

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        weights = self._attention(x)
        return x * weights, (x, weights[0]) if keep else None

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        x, weights = kept
        gradient = gradient.whole()
        by_weight = (gradient.values * x).sum((2, 3, 4))
        voxels = x[0, 0].numel()
        through_means = self._by_means(x.mean((2, 3, 4)), by_weight) / voxels
        values = gradient.values * weights + through_means[..., None, None, None]
        return replace(gradient, values=values)

    def _by_means(self, means: Tensor, by_weight: Tensor) -> Tensor:
        """``(n, C)`` gradients with respect to the means, from those with respect to the weights.

        The weights are ``2 sigmoid(excite(relu(squeeze(means))))``.
        """
        squeeze, excite = self._attention.squeeze, self._attention.excite
        inner = squeeze(means)
        share = torch.sigmoid(excite(F.relu(inner)))
        by_inner = (by_weight * 2 * share * (1 - share)) @ excite.weight
        return (by_inner * (inner > 0)) @ squeeze.weight


class _Concatenate(_Step):
    """The end of the last stage: features that were kept come first, stage by stage."""

    def __init__(self, count: int) -> None:
        self._count = count

    def forward(
        self, x: Tensor, skips: list[Tensor], *, keep: bool, overwrite: bool
    ) -> tuple[Tensor, Any]:
        earlier = skips[len(skips) - self._count :]
        del skips[len(skips) - self._count :]
        parts = [*earlier, x]
        return torch.cat(parts, 1), [part.shape[1] for part in parts]

    def backward(self, gradient: Gradient, kept: Any, skips: list[Gradient]) -> Gradient:
        *earlier, last = gradient.values.split(kept, 1)
        # The last one kept is the first one met on the way back.
        skips += [replace(gradient, values=values) for values in earlier]
        return replace(gradient, values=last)


# Gradients ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gradient:
    """The gradient of several scalars with respect to a volume ``(C, D, H, W)``.

    Args:
        values: in blocks ``(S, C, w, w, w)``, w odd, one block per seed: every ``stride``-th voxel
            round its centre, and zero for voxels outside the volume. Or, with ``stride`` 0, whole
            volumes ``(n, C, D, H, W)``, one per scalar.
        centres: ``(S, 3)`` int64, ijk.
        owners: ``(S,)`` int64, the scalar that a seed belongs to.
        count: n, number of scalars.
        shape: D, H, W.
        stride: distance in voxels between neighbours in a block; any, while blocks are one voxel.
    """

    values: Tensor
    centres: Tensor
    owners: Tensor
    count: int
    shape: tuple[int, ...]
    stride: int

    @property
    def width(self) -> int:
        """w, voxels along the side of a block."""
        return self.values.shape[2]

    @property
    def voxels(self) -> int:
        """Number of voxels of the volume."""
        d, h, w = self.shape
        return d * h * w

    def spread(self, weight: Tensor, dilation: int) -> Gradient:
        """The gradient before a convolution ``(O, C, k, k, k)``, k odd: its adjoint applied."""
        size = weight.shape[2]
        kernel = weight.flip((2, 3, 4)).transpose(0, 1)
        if size == 1:
            return replace(self, values=F.conv3d(self.values, kernel))
        if self.stride and _grown(self.width, self.stride, size, dilation)[0] ** 3 >= self.voxels:
            return self.whole().spread(weight, dilation)
        if not self.stride:
            padding = dilation * (size // 2)
            values = F.conv3d(self.values, kernel, padding=padding, dilation=dilation)
            return replace(self, values=values)
        block = self.on_lattice(dilation)
        values = F.conv3d(block.values.contiguous(memory_format=CHANNELS_LAST), kernel,
                          padding=size - 1)  # fmt: skip
        wider = replace(block, values=values)
        inside = wider.rows() < self.voxels
        return replace(wider, values=values * inside[:, None])

    def masked(self, mask: Tensor) -> Gradient:
        """Keep only voxels and features of ``mask``, ``(D*H*W + 1, C)``, last row for outside."""
        if not self.stride:
            kept = mask[:-1].T.reshape(1, -1, *self.shape)
        else:
            kept = mask[self.rows()].permute(0, 4, 1, 2, 3)
        return replace(self, values=self.values * kept)

    def plus(self, other: Gradient) -> Gradient:
        """The sum with a gradient of the same scalars whose blocks are no wider."""
        if not self.stride or not other.stride:
            whole = self.whole()
            return replace(whole, values=whole.values + other.whole().values)
        other = other.on_lattice(self.stride)
        margin = (self.width - other.width) // 2
        values = F.pad(other.values, [margin] * 6)
        return replace(self, values=self.values + values)

    def on_lattice(self, stride: int) -> Gradient:
        """The same gradient in blocks with a finer stride: zeros come between."""
        if self.width == 1 or stride == self.stride:
            return replace(self, stride=stride)
        factor = self.stride // stride
        width = (self.width - 1) * factor + 1
        values = self.values.new_zeros(*self.values.shape[:2], width, width, width)
        values[:, :, ::factor, ::factor, ::factor] = self.values
        return replace(self, values=values, stride=stride)

    def whole(self) -> Gradient:
        """The same gradient as whole volumes, the seeds of a scalar added up."""
        if not self.stride:
            return self
        channels = self.values.shape[1]
        rows = self.rows() + self.owners[:, None, None, None] * (self.voxels + 1)
        volumes = self.values.new_zeros(self.count * (self.voxels + 1), channels)
        volumes.index_add_(0, rows.flatten(), self.values.permute(0, 2, 3, 4, 1).flatten(0, 3))
        volumes = volumes.view(self.count, self.voxels + 1, channels)[:, :-1]
        values = volumes.reshape(self.count, *self.shape, channels).permute(0, 4, 1, 2, 3)
        return replace(self, values=values, stride=0)

    def sums(self) -> Tensor:
        """``(n, C)``: the gradients added up over the voxels."""
        sums = self.values.sum((2, 3, 4))
        if not self.stride:
            return sums
        return sums.new_zeros(self.count, sums.shape[1]).index_add_(0, self.owners, sums)

    def rows(self) -> Tensor:
        """``(S, w, w, w)`` int64: flat index of each voxel of each block, D*H*W if outside."""
        offset = self.stride * (
            torch.arange(self.width, device=self.centres.device) - self.width // 2
        )
        index = [self.centres[:, axis, None] + offset for axis in range(3)]
        inside = [(i >= 0) & (i < size) for i, size in zip(index, self.shape, strict=True)]
        i, j, k = _outer(index)
        a, b, c = _outer(inside)
        flat = (i * self.shape[1] + j) * self.shape[2] + k
        return torch.where(a & b & c, flat, self.voxels)


def _outer(axes: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Three tensors ``(S, w)`` so shaped that together they span ``(S, w, w, w)``."""
    i, j, k = axes
    return i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]


def _grown(width: int, stride: int, size: int, dilation: int) -> tuple[int, int]:
    """Width and stride of a block after the adjoint of a convolution."""
    if size == 1:
        return width, stride
    factor = stride // dilation if width > 1 else 1
    return (width - 1) * factor + 1 + 2 * (size // 2), dilation
