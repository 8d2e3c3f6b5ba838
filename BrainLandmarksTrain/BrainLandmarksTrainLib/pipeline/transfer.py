"""Weights to start from: those of a model, its last layer made anew where the landmarks differ."""

from __future__ import annotations

import torch
from torch import Tensor

from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksLib.protocol import Protocol

_CLASSIFIER = "classifier."


def start_network(
    model: Model, part: str, protocol: Protocol, dropout: float = 0.0, seed: int = 0
) -> HighRes3DNet:
    """A network for a protocol that begins where a model ends.

    All layers but the last are the model's. The last has one row for each landmark: the model's own
    where it knows a landmark of the same label, else a random one, as for a new network.

    Args:
        part: "fine", "locator" or "refinement", a network that the model has.
        dropout: of the new network; it has no weights.
        seed: of the random rows.

    Returns:
        A network of the model's size with ``len(protocol)`` heatmaps.
    """
    source, _ = model.networks[part]
    spec = {**source.spec(), "out_channels": len(protocol), "dropout": dropout}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = HighRes3DNet(**spec)
    weights = source.state_dict()
    if protocol.hash != model.protocol.hash:
        fresh = network.state_dict()
        rows = {label: row for row, label in enumerate(model.protocol.labels)}
        for name in weights:
            if name.startswith(_CLASSIFIER) and fresh[name].ndim:
                weights[name] = _rows(weights[name], fresh[name], protocol, rows)
    network.load_state_dict(weights)
    return network


def _rows(known: Tensor, fresh: Tensor, protocol: Protocol, rows: dict[str, int]) -> Tensor:
    chosen = fresh.clone()
    for row, label in enumerate(protocol.labels):
        if label in rows:
            chosen[row] = known[rows[label]]
    return chosen
