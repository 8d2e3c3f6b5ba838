"""From weights that were joined to a model folder like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from BrainLandmarksLib import __version__
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksTrainLib.config.federation import Federation
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.settings import to_values
from BrainLandmarksTrainLib.versions import installed_versions

from .weights import part_of, put

_PACKAGES = ("torch", "numpy", "safetensors", "lightning-fabric", "torchio", "flwr")


def federated_model(
    base: Model,
    federation: Federation,
    recipe: Recipe,
    rounds: int,
    arrays: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Model:
    """The start model with the weights of some rounds.

    What was fitted to the networks before (a correction by `calibrate`) is left out; the meaning of
    confidence is the start model's.

    Args:
        rounds: Done so far.
        arrays: The weights that travel.
        own: Weights of each network that stay at a site, such as its batch norm.

    Raises:
        UserError: the weights are of another network.
    """
    networks: dict[str, HighRes3DNet] = {}
    for part in recipe.trained:
        network = fresh_network(base, part)
        put(network, part_of(arrays, part))
        put(network, (own or {}).get(part, {}))
        networks[part] = network.eval().requires_grad_(False)
    earlier = base.spec.training
    training = {
        "recipe": federation.recipe,
        "federation": to_values(federation.settings),
        "rounds": rounds,
        "before": [*earlier.get("before", ()), {"model": base.spec.name}],
        "software": {"brainlandmarks": __version__, **installed_versions(_PACKAGES)},
    }
    spec = replace(
        base.spec,
        name=recipe.name,
        training=json.loads(json.dumps(training)),
        held_out={},
        command="brainlandmarks federate",
    )
    return replace(
        base,
        spec=spec,
        network=networks.get("fine", base.network),
        locator=networks.get("locator", base.locator),
        refinement=networks.get("refinement", base.refinement),
        correction=None,
    )


def fresh_network(base: Model, part: str) -> HighRes3DNet:
    """A copy of one of a model's networks, to be changed."""
    source, _ = base.networks[part]
    network = HighRes3DNet(**source.spec())
    network.load_state_dict(source.state_dict())
    return network
