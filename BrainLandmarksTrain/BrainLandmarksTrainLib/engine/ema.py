"""Averaged weights: what is validated and what ships."""

from __future__ import annotations

import copy

import torch
from torch import nn


class ExponentialMovingAverage:
    """Exponential moving average of a network's weights (Polyak averaging).

    The average starts as a plain mean and turns into the exponential one, so early weights are
    forgotten quickly. Batch-norm statistics are averaged along.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        source = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.dtype.is_floating_point:
                mean.lerp_(source[name], 1.0 - decay)
            else:
                mean.copy_(source[name])

    def restart(self, network: nn.Module) -> None:
        """Begin again at the network's present weights."""
        self.network.load_state_dict(network.state_dict())
        self.updates = 0
