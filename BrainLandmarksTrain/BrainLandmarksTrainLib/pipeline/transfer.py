"""Weights to start from: those of a model, its last layer made anew where the landmarks differ."""

from __future__ import annotations

import math
import pickle
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from BrainLandmarksLib.annotation.schemes import load_scheme
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksTrainLib.config.parcellation import TransferConfig
from BrainLandmarksTrainLib.data.classes import Classes
from BrainLandmarksTrainLib.engine.config import TrainingConfig

_CLASSIFIER = "classifier."
_ENDS = ("first.0.weight", "classifier.weight")


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
    if protocol.hash == model.protocol.hash:
        network.load_state_dict(source.state_dict())
    else:
        labels = model.protocol.labels, protocol.labels
        network.load_state_dict(new_rows(source, network, *labels))
    return network


def untrained(config: TrainingConfig, landmarks: int) -> HighRes3DNet:
    """A network as its settings say, with random weights."""
    return HighRes3DNet(
        out_channels=landmarks,
        features=config.features,
        dropout=config.dropout,
        long_skips=config.long_skips,
        attention=config.attention,
    )


def new_rows(
    source: HighRes3DNet, network: HighRes3DNet, known: Sequence[Hashable], new: Sequence[Hashable]
) -> dict[str, Tensor]:
    """Weights of a network; in its last layer what is new keeps the row of another network.

    Args:
        known: What the rows of the last layer of ``source`` are.
        new: What those of ``network`` are.
    """
    weights, fresh = source.state_dict(), network.state_dict()
    rows = [(row, known.index(what)) for row, what in enumerate(new) if what in known]
    for name in weights:
        if name.startswith(_CLASSIFIER) and fresh[name].ndim:
            chosen = fresh[name].clone()
            for row, before in rows:
                chosen[row] = weights[name][before]
            weights[name] = chosen
    return weights


# A published parcellation network -----------------------------------------------------------------


def transferred(config: TransferConfig, classes: Classes, network: HighRes3DNet) -> HighRes3DNet:
    """A parcellation network that begins where a published one ends.

    The published network's intensities are folded into the first layer, its last batch norm into
    the last one. There a class is the mean of those that it is made of; the logarithm of their
    number makes its probability about their sum.

    Args:
        network: of the same size, with our classes; filled in place.

    Raises:
        UserError: the weights cannot be read, are of another size, or lack a class.
    """
    published = read_published(Path(config.weights))
    theirs, weights = published.state_dict(), network.state_dict()
    for name in weights:
        if name.startswith((_CLASSIFIER, "norm.")):
            continue
        if weights[name].shape != theirs[name].shape:
            raise UserError(
                f"the network in {config.weights} is of another size than 'parcellation' "
                "describes; leave 'features' at 16."
            )
        weights[name] = theirs[name]
    kernel, mean = weights["first.0.weight"], weights["first.1.running_mean"]
    # Their image is gain * ours + offset, and a constant in the image shifts what the norm sees.
    weights["first.1.running_mean"] = mean - config.offset * kernel.sum((1, 2, 3, 4))
    weights["first.0.weight"] = kernel * config.gain
    rows = theirs["classifier.weight"]
    if published.classifier_norm:
        scale = theirs["norm.weight"] / (theirs["norm.running_var"] + published.norm.eps).sqrt()
        rows = rows * scale[:, None, None, None, None]
        bias = theirs["norm.bias"] - theirs["norm.running_mean"] * scale
    else:
        bias = theirs["classifier.bias"]
    for row, members in enumerate(_members(config, classes, len(rows))):
        weights["classifier.weight"][row] = rows[members].mean(0)
        weights["classifier.bias"][row] = bias[members].mean() + math.log(len(members))
    network.load_state_dict(weights)
    return network


def _members(config: TransferConfig, classes: Classes, count: int) -> list[np.ndarray]:
    """The published classes, of so many, that each of ours is made of.

    Raises:
        UserError: one has none.
    """
    table = np.full(count, -1)
    given = load_scheme(config.labels).table[:count]
    table[: len(given)] = given
    ours = set(classes.structures) - {0}
    # A number that stands for either side (-2 and less) tells nothing of one of them.
    table[~np.isin(table, list(ours)) & (table >= -1)] = 0
    made = []
    for number, name in zip(classes.structures, classes.names):
        members = np.flatnonzero(table == number)
        if not len(members):
            whole = [classes.structures[k] for k in classes.whole(number)]
            members = np.flatnonzero(np.isin(table, whole))
        if not len(members):
            raise UserError(f"no class of {config.labels} is {name}; leave this structure out.")
        made.append(members)
    return made


def read_published(path: Path) -> HighRes3DNet:
    """A HighRes3DNet from its weights alone, in eval mode.

    Raises:
        UserError: the file cannot be read or holds no such network.
    """
    by_name = path.suffix == ".safetensors"
    try:
        found = load_file(path) if by_name else _torch_file(path)
        tensors = {k: v for k, v in found.items() if v.dtype.is_floating_point}
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, AttributeError):
        raise UserError(f"the published weights {path} cannot be read; check the path.") from None
    try:
        kernels = [tensors[n] for n in _ENDS] if by_name else list(tensors.values())
        first, *_, last = [kernel for kernel in kernels if kernel.ndim == 5]
        outputs, penultimate = last.shape[:2]
        network = HighRes3DNet(
            first.shape[1], outputs, features=len(first), penultimate=penultimate,
            classifier_norm=not by_name or "norm.weight" in tensors,
        )  # fmt: skip
        ours = [k for k, v in network.state_dict().items() if v.dtype.is_floating_point]
        if not by_name:  # the published implementations list their layers in the same order
            tensors = dict(zip(ours, tensors.values(), strict=True))
        missing = set(ours) ^ set(tensors)
        if missing:
            raise KeyError(min(missing))
        network.load_state_dict(tensors, strict=False)
    except (KeyError, IndexError, ValueError, RuntimeError):
        raise UserError(
            f"{path} holds no weights of a HighRes3DNet; choose another file."
        ) from None
    return network.eval()


def _torch_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a PyTorch file that holds nothing else, in order."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    return dict(found.get("state_dict", found))
