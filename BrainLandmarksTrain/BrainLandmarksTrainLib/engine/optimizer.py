"""Muon for convolution kernels, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .config import RunConfig

# Quintic Newton-Schulz iteration that drives all singular values towards 1 (Jordan et al., 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """AdamW, except for groups marked ``orthogonal``: those step along orthogonalised momentum.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a
    weight matrix by the nearest semi-orthogonal matrix, so that all directions learn at one pace.
    A convolution kernel (out, in, d, h, w) is taken as the matrix out x (in d h w). The step is
    scaled to the size AdamW's would have (Liu et al., arXiv:2502.16982), so both share one learning
    rate. ``torch.optim.Muon`` does the same for two-dimensional parameters only.

    >>> Muon([{"params": kernels, "orthogonal": True}, {"params": rest}], lr=2e-3)
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
    ) -> None:
        groups = [{"orthogonal": False, **group} for group in params]
        super().__init__(groups, lr=lr, weight_decay=weight_decay)
        self.momentum = momentum

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Adam's own version expects a step count in the state of every parameter, to upgrade old
        # checkpoints; orthogonal momentum has none.
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all groups."""
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group["orthogonal"]]
        try:
            super().step(closure)
        finally:
            self.param_groups = everything
        for group in everything:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._orthogonal_step(parameter, group)

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        gradient = parameter.grad
        assert gradient is not None
        buffer.lerp_(gradient, 1 - self.momentum)
        update = orthogonalised(gradient.lerp(buffer, self.momentum).flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        size = 0.2 * max(update.shape) ** 0.5
        parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix, roughly: singular values end between 0.7 and 1.2."""
    a, b, c = _NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def make_optimizer(network: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Weight decay for convolution kernels only: batch norm and biases have none to spare.

    Muon takes the kernels between the first and the last layer; those two map to and from the
    image and the landmarks, whose directions have sizes of their own.
    """
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    decay = config.weight_decay
    if config.optimizer == "muon":
        groups: list[dict[str, Any]] = [
            {"params": kernels[1:-1], "weight_decay": decay, "orthogonal": True},
            {"params": [kernels[0], kernels[-1]], "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return Muon(groups, lr=config.learning_rate)
    groups = [
        {"params": kernels, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)
