"""Which weights travel, and how they are called on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksTrainLib.config.federation import moves_statistics
from BrainLandmarksTrainLib.engine.config import RunConfig

Arrays = dict[str, npt.NDArray[np.float32]]
"""Weights by "network.layer" in alphabetical order, such as "fine.first.0.weight"."""


def norm_names(network: nn.Module) -> set[str]:
    """Names of the weights and statistics of batch norm."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for name in module.state_dict()
    }


def shared_names(network: nn.Module, config: RunConfig, batch_norm: str) -> list[str]:
    """Names of a network's weights that sites and server exchange.

    Running statistics travel only where training changes them: there a plain mean is right for
    them, while noise or an adaptive step might make a variance negative.

    Args:
        batch_norm: "shared" or "local" (FedBN).
    """
    parameters = {name for name, _ in network.named_parameters()}
    norms = norm_names(network)
    if batch_norm == "local":
        return sorted(parameters - norms)
    floating = {k for k, v in network.state_dict().items() if v.dtype.is_floating_point}
    return sorted(parameters | (norms & floating if moves_statistics(config) else set()))


def shared_arrays(
    networks: Mapping[str, nn.Module], trained: Mapping[str, RunConfig], batch_norm: str
) -> Arrays:
    """What travels of some networks.

    Args:
        networks: By their names, those of ``trained`` at least.
    """
    made = {}
    for part, config in trained.items():
        state = networks[part].state_dict()
        for name in shared_names(networks[part], config, batch_norm):
            made[f"{part}.{name}"] = state[name].detach().cpu().numpy().astype(np.float32)
    return dict(sorted(made.items()))


def part_of(arrays: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The weights of one network, by their names in it."""
    start = f"{part}."
    return {
        name[len(start) :]: torch.from_numpy(np.array(array, dtype=np.float32))
        for name, array in arrays.items()
        if name.startswith(start)
    }


@torch.no_grad()
def put(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set some of a network's weights.

    Raises:
        UserError: one is unknown, of another shape, or not finite.
    """
    state = network.state_dict()
    for name, tensor in weights.items():
        if name not in state or state[name].shape != tensor.shape:
            raise UserError(
                "weights of another network have arrived; all sites need the model that the server "
                "starts from."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError("weights that are not finite have arrived; they are not used.")
    network.load_state_dict({**state, **weights})


def networks_of(model: Model) -> dict[str, nn.Module]:
    """The heatmap networks of a model."""
    return {part: network for part, (network, _) in model.networks.items()}


def need_same_names(arrays: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Check that just the expected weights have come.

    Raises:
        UserError: some are missing, or others came.
    """
    if set(arrays) != set(expected):
        raise UserError(
            "other weights have arrived than this recipe exchanges; check that site and server "
            "have the same version of brainlandmarks."
        )
