"""Grad-CAM for heatmaps: which part of a cube made the network put a landmark where it did.

The paper's equations (III-F), for the heatmap H_c of landmark c and the T features A_t of a layer::

    R_c     = argmax of H_c over the voxels
    y_c     = H_c(R_c)
    alpha_t = mean over the voxels of dy_c / dA_t
    L_c     = ReLU(sum over t of alpha_t A_t)

after Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from BrainLandmarksLib.gradcam import TARGETS
from BrainLandmarksLib.gradcam.layers import LayerChain, NetworkProgress, Passage, Seeds
from BrainLandmarksLib.network import decoding
from BrainLandmarksLib.network.highres3dnet import CHANNELS_LAST, HighRes3DNet


def default_layer(network: HighRes3DNet) -> str:
    """The paper's layer: the second convolution of the third residual block, "stages.2.2.conv2".

    The paper calls it the penultimate layer. In this network that is the last residual block of the
    last stage (with three stages of three blocks, the third of the third, so both ways to count
    agree), and of it the second convolution: the last one that looks at neighbouring voxels. What
    follows, the sum with the block's identity and two 1x1x1 convolutions, treats each voxel by
    itself. A is the output of the convolution, before the identity is added, which is what a hook
    on that layer sees.
    """
    stages = [len(blocks) for _, blocks in network.residual_stages()]
    return f"stages.{len(stages) - 1}.{stages[-1] - 1}.conv2"


@dataclass(frozen=True)
class Observation:
    """One pass of the network on one cube, from which the map of any landmark follows at once.

    >>> seen = observe(model.network, cube)
    >>> maps = seen.maps([24, 30])

    Weights of a landmark are computed when they are first asked for, and kept.
    """

    layer: str
    target: str
    points: Tensor
    """``(K, 3)`` ijk where each heatmap was read; whole numbers for "argmax"."""
    scores: Tensor
    """``(K,)`` y_c, a logit."""
    _chain: LayerChain
    _passage: Passage
    _weights: dict[int, Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of a map: D, H, W."""
        d, h, w = self._passage.activations.shape[2:]
        return d, h, w

    @property
    def features(self) -> int:
        """T, number of features of the layer."""
        return self._passage.activations.shape[1]

    @torch.inference_mode()
    def weights(self, rows: Sequence[int]) -> Tensor:
        """alpha of some landmarks, ``(n, T)``.

        Args:
            rows: heatmaps, counted from 0.
        """
        new = [row for row in dict.fromkeys(rows) if row not in self._weights]
        if new:
            voxels = self._passage.activations[0, 0].numel()
            alphas = self._chain.backward(self._passage, self._seeds(new)) / voxels
            self._weights.update(zip(new, alphas, strict=True))
        return torch.stack([self._weights[row] for row in rows])

    @torch.inference_mode()
    def maps(self, rows: Sequence[int]) -> Tensor:
        """L of some landmarks, ``(n, D, H, W)``, not negative, on the network's device."""
        activations = self._passage.activations[0].permute(1, 2, 3, 0).flatten(0, 2)
        maps = self.weights(rows) @ activations.T
        return F.relu(maps, inplace=True).reshape(len(rows), *self.shape)

    def _seeds(self, rows: Sequence[int]) -> Seeds:
        voxels, weights = _corners(self.points[list(rows)], self.shape)
        owners = torch.arange(len(rows), device=voxels.device)
        channels = torch.tensor(list(rows), device=voxels.device)
        used = weights > 0
        return Seeds(
            voxels[used],
            channels[:, None].expand_as(used)[used],
            weights[used],
            owners[:, None].expand_as(used)[used],
            len(rows),
        )


@torch.inference_mode()
def observe(
    network: HighRes3DNet,
    cube: Tensor,
    layer: str | None = None,
    *,
    target: str = "argmax",
    points: Tensor | None = None,
    progress: NetworkProgress | None = None,
) -> Observation:
    """Pass a cube through the network and keep what Grad-CAM needs of it.

    Args:
        network: in eval mode or not; its running statistics count.
        cube: ``(1, C, D, H, W)`` on the network's device.
        layer: whose activations are weighted, one of `LayerChain.layers`; `default_layer` by
            default.
        target: one of TARGETS.
        points: ``(K, 3)`` ijk where to read the heatmaps instead, to ask two networks the same.
        progress: called now and then with the fraction done.

    Raises:
        ValueError: there is no such layer or target.
    """
    if target not in TARGETS:
        raise ValueError(f"target is one of {', '.join(TARGETS)}, not {target!r}")
    chain = LayerChain(network)
    layer = layer or default_layer(network)
    cube = cube.to(network.classifier.weight.dtype)
    heatmaps, passage = chain.forward(cube.contiguous(memory_format=CHANNELS_LAST), layer, progress)
    if points is not None:
        points = points.to(heatmaps)
    elif target == "argmax":
        points = decoding.argmax(heatmaps)[0]
    else:
        points = decoding.spatial_softmax(heatmaps)[0]
    voxels, weights = _corners(points, tuple(heatmaps.shape[2:]))
    i, j, k = voxels.unbind(-1)
    channel = torch.arange(len(points), device=points.device)[:, None].expand_as(i)
    scores = (heatmaps[0, channel, i, j, k] * weights).sum(1)
    return Observation(layer, target, points, scores, chain, passage)


def _corners(points: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The 8 voxels round each point ``(n, 3)``, and their trilinear shares ``(n, 8)``."""
    size = torch.tensor(shape, device=points.device)
    below = points.floor().long().clamp(min=0)
    below = torch.minimum(below, size - 1)
    above = torch.minimum(below + 1, size - 1)
    part = points - below
    voxels, weights = [], []
    for corner in product((0, 1), repeat=3):
        far = torch.tensor(corner, device=points.device, dtype=torch.bool)
        voxels.append(torch.where(far, above, below))
        weights.append(torch.where(far, part, 1 - part).prod(1))
    return torch.stack(voxels, 1), torch.stack(weights, 1)
