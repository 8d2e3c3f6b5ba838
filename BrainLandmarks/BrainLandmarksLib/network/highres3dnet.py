"""HighRes3DNet: the landmark network, and its fast inference form.

The module reads like Fig. 3 of the paper (itself Fig. 1 of Li et al., "On the compactness,
efficiency, and representation of 3D convolutional networks", IPMI 2017, arXiv:1707.01992)::

    cube (B, 1, D, H, W)
      3x3x3 conv, 16 features, batch norm, ReLU
      stage 1: 3 residual blocks, 16 features, dilation 1
      stage 2: 3 residual blocks, 32 features, dilation 2
      stage 3: 3 residual blocks, 64 features, dilation 4
      1x1x1 conv, 80 features, batch norm, ReLU
      dropout
      1x1x1 conv, K heatmaps
    heatmaps (B, K, D, H, W)

A heatmap is a grid of logits: :mod:`BrainLandmarksLib.network.decoding` turns it into a coordinate
with a softmax over its voxels. The resolution never changes, so a voxel of a heatmap is a voxel of
the cube.

Two things that the published network does not have can be switched on: *long skips*, with which the
first 1x1x1 convolution sees the features of every stage side by side, and *attention*, which weighs
the features of a residual block by what the whole cube holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from BrainLandmarksLib.network import ATTENTION, winograd

CHANNELS_LAST = torch.channels_last_3d

_REDUCTION = 4

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def channels_last(module: ModuleT) -> ModuleT:
    """Store a module's kernels features-innermost, the layout its features have; in place."""
    return module.to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]


def split_lattice(x: Tensor, factor: int = 2) -> Tensor:
    """Move the ``factor**3`` interleaved sub-lattices of a volume into the batch dimension.

    A convolution of dilation ``factor * d`` on the volume is one of dilation ``d`` on every
    sub-lattice, because a dilated kernel never mixes voxels of different sub-lattices. Gradients
    of plain convolutions are two to four times faster on a CPU than those of dilated ones.

    Args:
        x: ``(B, C, D, H, W)``; D, H and W divisible by ``factor``.

    Returns:
        ``(B * factor**3, C, D / factor, H / factor, W / factor)``, channels last.
    """
    b, c, d, h, w = x.shape
    f = factor
    rows = x.permute(0, 2, 3, 4, 1).reshape(b, d // f, f, h // f, f, w // f, f, c)
    rows = rows.permute(0, 2, 4, 6, 1, 3, 5, 7)
    return rows.reshape(b * f**3, d // f, h // f, w // f, c).permute(0, 4, 1, 2, 3)


def merge_lattice(x: Tensor, factor: int = 2) -> Tensor:
    """Undo :func:`split_lattice`: ``(B * factor**3, C, D, H, W)`` to ``(B, C, f*D, f*H, f*W)``."""
    n, c, d, h, w = x.shape
    f = factor
    b = n // f**3
    rows = x.permute(0, 2, 3, 4, 1).reshape(b, f, f, f, d, h, w, c)
    rows = rows.permute(0, 4, 1, 5, 2, 6, 3, 7)
    return rows.reshape(b, d * f, h * f, w * f, c).permute(0, 4, 1, 2, 3)


def pad_channels(x: Tensor, channels: int) -> Tensor:
    """Pad ``(B, C, D, H, W)`` with zero features, half before and half after, to ``channels``.

    This is the parameter-free identity of a residual block that widens (``pad`` in ``highresnet``
    and in MONAI).
    """
    missing = channels - x.shape[1]
    if missing == 0:
        return x
    before = missing // 2
    rows = F.pad(x.permute(0, 2, 3, 4, 1), (before, missing - before))
    return rows.permute(0, 4, 1, 2, 3)


class SqueezeExcitation(nn.Module):
    """A weight from 0 to 2 for each feature, from the features' means (Hu et al., CVPR 2018).

    The means are taken over the whole cube of the pass, so every voxel of the result depends on
    every voxel of the cube: a cube that is cut into tiles gives other weights than the whole. The
    last layer starts at zero and the weights at 1, where the block is one without attention.

    Args:
        channels: features that are weighed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // _REDUCTION)
        self.squeeze = nn.Linear(channels, inner)
        self.excite = nn.Linear(inner, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, x: Tensor, parts: int = 1) -> Tensor:
        """Weights ``(B, C, 1, 1, 1)``, at least float32, of features ``(B, C, D, H, W)``.

        Args:
            x: features.
            parts: how many consecutive volumes of the batch make up one cube, the sub-lattices of
                `split_lattice`; they share their weights.
        """
        # Means of bfloat16 features in bfloat16 would be off by more than their differences.
        wide = torch.promote_types(x.dtype, torch.float32)
        means = x.mean((2, 3, 4), dtype=wide).unflatten(0, (-1, parts)).mean(1)
        with torch.autocast(device_type=x.device.type, enabled=False):
            weights = self.of_means(means)
        return weights.repeat_interleave(parts, 0)[..., None, None, None]

    def of_means(self, means: Tensor) -> Tensor:
        """Weights ``(B, C)`` of features with these means ``(B, C)``."""
        return 2 * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class ResidualBlock(nn.Module):
    """Twice batch norm, ReLU, 3x3x3 convolution; plus the identity (Li et al. 2017, section 2.2).

    Args:
        in_channels: features of the input.
        out_channels: features of the output; more than ``in_channels`` pads the identity.
        dilation: dilation of both convolutions, in voxels of the cube.
        attention: one of `ATTENTION`; weighs what is added to the identity.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilation: int, attention: str = "none"
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm1 = nn.BatchNorm3d(in_channels)
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, bias=False)
        self.norm2 = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, bias=False)
        # A block without attention holds no module for it: its weights have the names they had.
        self.attention = SqueezeExcitation(out_channels) if attention != "none" else None

    def forward(self, x: Tensor, dilation: int | None = None) -> Tensor:
        """Run the block; ``dilation`` is that of the lattice ``x`` lies on (default: the cube)."""
        d = self.dilation if dilation is None else dilation
        out = F.relu(self.norm1(x), inplace=True)
        out = _convolved(out, self.conv1.weight, d)
        out = F.relu(self.norm2(out), inplace=True)
        out = _convolved(out, self.conv2.weight, d)
        if self.attention is not None:
            out = out * self.attention(out, (self.dilation // d) ** 3).to(out.dtype)
        return out + pad_channels(x, out.shape[1])


def _convolved(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """A 3x3x3 convolution that keeps the size, the fastest way that there is."""
    if dilation == 1 and winograd.pays(x, weight):
        return winograd.convolved(x, weight)
    return F.conv3d(x, weight, padding=dilation, dilation=dilation)


def _merged(x: Tensor, levels: Sequence[int]) -> Tensor:
    """The whole volume of sub-lattices that were split by one level after another, from 1 on."""
    for fine, coarse in reversed(list(pairwise(levels))):
        x = merge_lattice(x, coarse // fine)
    return x


class HighRes3DNet(nn.Module):
    """The landmark network of the paper's Fig. 3: a cube in, one heatmap per landmark out.

    >>> network = HighRes3DNet(out_channels=88)
    >>> heatmaps = network(torch.zeros(1, 1, 32, 32, 32))
    >>> heatmaps.shape
    torch.Size([1, 88, 32, 32, 32])

    Args:
        in_channels: channels of the input cube.
        out_channels: number of landmarks, K.
        features: features of the first convolution; stage ``s`` has ``features * 2**s``.
        residual_blocks: residual blocks in a stage.
        dilations: dilation of each stage, in voxels; each divides the next.
        penultimate: features of the 1x1x1 convolution before the dropout.
        dropout: probability of dropping a whole feature map before the last convolution.
        classifier_norm: batch norm after the last convolution, as in the published segmentation
            network. Off here: a heatmap's softmax has to be free to become a single peak.
        long_skips: the first 1x1x1 convolution sees the features of every stage, not only the sum
            that the residual blocks make of them.
        attention: one of `ATTENTION`, in every residual block.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 88,
        *,
        features: int = 16,
        residual_blocks: int = 3,
        dilations: Sequence[int] = (1, 2, 4),
        penultimate: int = 80,
        dropout: float = 0.0,
        classifier_norm: bool = False,
        long_skips: bool = False,
        attention: str = "none",
    ) -> None:
        super().__init__()
        if attention not in ATTENTION:
            raise ValueError(f"attention is one of {', '.join(ATTENTION)}, got {attention!r}")
        if any(coarse % fine for fine, coarse in pairwise(dilations)):
            raise ValueError(f"each dilation must divide the next one, got {tuple(dilations)}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.features = features
        self.residual_blocks = residual_blocks
        self.dilations = tuple(dilations)
        self.penultimate_features = penultimate
        self.classifier_norm = classifier_norm
        self.long_skips = long_skips
        self.attention = attention

        self.first = nn.Sequential(
            nn.Conv3d(in_channels, features, 3, padding=1, bias=False),
            nn.BatchNorm3d(features),
            nn.ReLU(inplace=True),
        )
        stages = []
        width = features
        for index, dilation in enumerate(self.dilations):
            blocks = []
            for _ in range(residual_blocks):
                blocks.append(ResidualBlock(width, features * 2**index, dilation, attention))
                width = features * 2**index
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        if long_skips:
            width = sum(features * 2**index for index in range(len(self.dilations)))
        self.penultimate = nn.Sequential(
            nn.Conv3d(width, penultimate, 1, bias=False),
            nn.BatchNorm3d(penultimate),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout3d(dropout)
        self.classifier = nn.Conv3d(penultimate, out_channels, 1, bias=not classifier_norm)
        self.norm = nn.BatchNorm3d(out_channels) if classifier_norm else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # Small first logits: every heatmap starts almost flat, its coordinate near the middle.
        nn.init.normal_(self.classifier.weight, std=0.01)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def spec(self) -> dict[str, Any]:
        """The constructor arguments that rebuild this network, as plain JSON values.

        Long skips and attention are named where they are on: a plain network is described as ever.
        """
        added: dict[str, Any] = {"long_skips": True} if self.long_skips else {}
        if self.attention != "none":
            added["attention"] = self.attention
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "features": self.features,
            "residual_blocks": self.residual_blocks,
            "dilations": list(self.dilations),
            "penultimate": self.penultimate_features,
            "dropout": self.dropout.p,
            "classifier_norm": self.classifier_norm,
            **added,
        }

    def residual_stages(self) -> Iterator[tuple[int, Sequence[ResidualBlock]]]:
        """Dilation and residual blocks of each stage."""
        for dilation, blocks in zip(self.dilations, self.stages, strict=True):
            yield dilation, cast("Sequence[ResidualBlock]", blocks)

    def body(self, cube: Tensor) -> Tensor:
        """Features before the last convolution, ``(B, penultimate, D, H, W)``, channels last."""
        x = self.first(cube.contiguous(memory_format=CHANNELS_LAST))
        # Training runs dilated stages on sub-lattices (same numbers, faster gradients). Odd sizes
        # cannot be split, and without gradients the dilated convolution is already fast.
        splits = torch.is_grad_enabled() and all(n % self.dilations[-1] == 0 for n in x.shape[2:])
        levels = [1]
        ends: list[Tensor] = []
        for dilation, blocks in self.residual_stages():
            if splits and dilation > levels[-1]:
                x = split_lattice(x, dilation // levels[-1])
                levels.append(dilation)
            for block in blocks:
                x = block(x, dilation // levels[-1])
            if self.long_skips:
                ends.append(_merged(x, levels))
        x = torch.cat(ends, 1) if self.long_skips else _merged(x, levels)
        return self.dropout(self.penultimate(x))

    def forward(self, cube: Tensor) -> Tensor:
        """Heatmaps (logits), ``(B, K, D, H, W)`` float32, of cubes ``(B, C, D, H, W)``."""
        features = self.body(cube)
        # The last layer stays in float32 under autocast: bfloat16 logits (8 bits of mantissa)
        # would move a landmark by more than the accuracy asked for.
        with torch.autocast(device_type=features.device.type, enabled=False):
            return self.norm(self.classifier(features.to(self.classifier.weight.dtype)))
