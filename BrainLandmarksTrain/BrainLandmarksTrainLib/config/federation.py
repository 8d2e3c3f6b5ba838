"""Settings of a federation: how often sites and server talk, who takes part, how weights join.

They travel with the recipe to every site, in the Flower app that ``brainlandmarks federate app``
writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import ModelSummary, summarise
from BrainLandmarksTrainLib.engine.config import MachineConfig, RunConfig
from BrainLandmarksTrainLib.settings import from_values, read_settings, setting, to_values

from .finetune import finetune_values
from .recipe import WHAT as RECIPE_SETTING
from .recipe import Recipe

WHAT = "federation setting"

STATISTICS_BATCHES = 30
"""Batches that a site averages its own batch-norm statistics over."""


@dataclass(frozen=True)
class FederationConfig:
    """Settings of a federation. Those about nodes are Flower's own, by the same names.

    >>> FederationConfig(rounds=20, strategy="fedprox").proximal_mu
    0.1

    Raises:
        UserError: two settings exclude each other.
    """

    rounds: int = setting(10, "Rounds of training.", low=1)
    round_minutes: float = setting(
        240.0, "Minutes after which a round goes on without the sites that have not answered; what "
        "they send later is not used.", low=0.05,
    )  # fmt: skip
    evaluate_every: int = setting(
        0, "Rounds after which each site measures the model on its held-out scans; 0: after the "
        "last one only.", low=0,
    )  # fmt: skip

    strategy: str = setting(
        "fedavg", "How the weights of the sites are joined.",
        choices=("fedavg", "fedprox", "fedadam"),
    )  # fmt: skip
    proximal_mu: float = setting(
        0.1, "fedprox: weight of the squared distance from the round's first weights.", low=0
    )
    server_learning_rate: float = setting(
        0.01, "fedadam: learning rate of the server (eta).", low=1e-9
    )
    adaptability: float = setting(0.001, "fedadam: degree of adaptability (tau).", low=1e-12)
    batch_norm: str = setting(
        "shared", "shared: batch norm is joined like all other weights; local: it stays at each "
        "site (FedBN), which ends with a model of its own.", choices=("shared", "local"),
    )  # fmt: skip

    fraction_train: float = setting(1.0, "Share of the sites that train in a round.", low=0, high=1)
    min_train_nodes: int = setting(2, "Fewest sites that train in a round.", low=1)
    min_evaluate_nodes: int = setting(2, "Fewest sites that measure the model.", low=1)
    min_available_nodes: int = setting(
        2, "Sites that have to be connected before a round begins.", low=1
    )

    secure_aggregation: bool = setting(
        False, "SecAgg+: the server learns the weighted mean of the weights, not those of a site."
    )
    most_scans: int = setting(
        1000, "secure_aggregation: no site has more scans than this (max_weight); the weights of "
        "one with far fewer are rounded more.", low=1,
    )  # fmt: skip
    privacy: str = setting(
        "none", "Differential privacy. server: the server limits each site's update and adds noise "
        "to the mean; site: the sites limit it, the server adds the noise; local: each site limits "
        "its update and adds noise before it leaves. server, site: all sites count the same.",
        choices=("none", "server", "site", "local"),
    )  # fmt: skip
    clipping_norm: float = setting(1.0, "Longest update, the L2 norm over all weights.", low=1e-9)
    noise_multiplier: float = setting(
        1.0, "privacy server and site: standard deviation of the noise, as a multiple of "
        "clipping_norm divided by the number of sites.", low=0,
    )  # fmt: skip
    epsilon: float = setting(1.0, "privacy local: the budget of one round.", low=1e-9)
    delta: float = setting(1e-5, "privacy local: the delta of one round.", low=1e-12, high=1)

    def __post_init__(self) -> None:
        if self.secure_aggregation and self.strategy == "fedadam":
            raise UserError(
                "Flower offers secure aggregation for plain averaging; choose the strategy fedavg "
                "or fedprox, or leave secure_aggregation out."
            )
        if self.secure_aggregation and self.privacy != "none":
            raise UserError(
                "secure_aggregation and privacy cannot be combined here: Flower's wrappers of "
                "differential privacy see single sites, which secure aggregation hides; choose one."
            )
        if self.secure_aggregation and self.min_train_nodes < 2:
            raise UserError(
                "secure_aggregation needs two sites at least in every round; set min_train_nodes "
                "to 2 or, better, 3."
            )

    def need_fitting(self, recipe: Recipe) -> None:
        """Check that a recipe can be trained so.

        Raises:
            UserError: running statistics would be treated as weights that may become negative.
        """
        joined_plainly = self.strategy != "fedadam" and self.privacy == "none"
        moving = any(moves_statistics(config) for config in recipe.trained.values())
        if (
            self.batch_norm == "shared"
            and moving
            and (self.secure_aggregation or not joined_plainly)
        ):
            raise UserError(
                "the recipe changes the running statistics of batch norm, of which only a plain "
                "mean makes sense; set freeze_norm_at and recalibration_batches to 0 in the "
                "recipe, or batch_norm to local."
            )


def moves_statistics(config: RunConfig) -> bool:
    """Whether a training changes the running statistics of batch norm."""
    return config.freeze_norm_at > 0 or config.recalibration_batches > 0


@dataclass(frozen=True)
class Federation:
    """What all sites and the server agree on; it travels as the app's run configuration.

    Args:
        model: Name of the model that training starts from.
        recipe: Settings of a `Recipe`, without a path; `steps` of a network are those of a round.
        settings: Of the federation.
    """

    model: str
    recipe: Mapping[str, Any]
    settings: FederationConfig

    def to_run_config(self) -> dict[str, str]:
        """As Flower's run configuration: texts by name."""
        return {
            "model": self.model,
            "recipe": json.dumps(self.recipe, indent=1),
            "federation": json.dumps(to_values(self.settings), indent=1),
        }

    def lasting(self) -> dict[str, Any]:
        """What cannot change while the rounds go on, plain JSON values: recipe and settings."""
        values = to_values(self.settings)
        for name in ("rounds", "round_minutes", "evaluate_every"):
            values.pop(name)
        return {"recipe": self.recipe, "settings": values}

    @classmethod
    def of_run_config(cls, config: Mapping[str, Any]) -> Federation:
        """From Flower's run configuration.

        Raises:
            UserError: it is not one of this program.
        """
        try:
            recipe = json.loads(str(config["recipe"]))
            values = json.loads(str(config["federation"]))
            model = str(config["model"])
        except (KeyError, ValueError):
            raise UserError(
                "the app that the server runs is not one that brainlandmarks federate app writes."
            ) from None
        return cls(model, recipe, from_values(FederationConfig, values, WHAT))

    def at(
        self, model: str | Path, output: str | Path, dataset: str | Path, machine: MachineConfig
    ) -> Recipe:
        """The recipe as it is trained in one place: every path is one of this place.

        Args:
            model: Folder or shipped name of the model to start from.

        Raises:
            UserError: the recipe wants more than a dataset of scans, or names a file.
        """
        for name in ("heads", "parcellation"):
            if self.recipe.get(name):
                raise UserError(
                    f"a federation trains the networks that find landmarks on scans; leave "
                    f"{name!r} out of the recipe."
                )
        values = {
            **self.recipe,
            "start_from": str(model),
            "output": str(output),
            "protocol": None,
            "scans": {**(self.recipe.get("scans") or {}), "dataset": str(dataset)},
            "machine": to_values(machine),
        }
        recipe = from_values(Recipe, values, RECIPE_SETTING)
        for part, config in recipe.trained.items():
            if config.init_from or config.steps is None or config.minutes is not None:
                raise UserError(
                    f"in a federation {part!r} is trained for a number of 'steps' in each round, "
                    "from the model's weights; leave 'minutes' and 'init_from' out."
                )
        return recipe


def federation_of(
    model: str | Path,
    settings: FederationConfig,
    *,
    steps: int | None,
    name: str | None = None,
    recipe: str | Path | None = None,
) -> Federation:
    """A federation that trains a model further.

    Args:
        model: Shipped name or folder of the model.
        steps: Of the fine network in a round; None for those of the recipe.
        recipe: A recipe file instead of the one that fine-tuning takes.

    Raises:
        UserError: there is no such model, or the recipe does not fit a federation or the model.
    """
    old = summarise(model)
    if recipe is None:
        values: dict[str, Any] = finetune_values(old, known=True, steps=steps)
    else:
        values = {k: v for k, v in read_settings(recipe).items() if k != "$schema"}
        if steps is not None:
            if not isinstance(values.get("fine"), Mapping):
                raise UserError(
                    "the recipe trains no fine network, whose steps could be set; leave the number "
                    "of steps out."
                )
            values["fine"] = {**values["fine"], "steps": steps}
    values["name"] = name or values.get("name") or f"{old.name}-federated"
    for key in ("output", "start_from", "machine", "protocol"):
        values.pop(key, None)
    values["scans"] = {k: v for k, v in (values.get("scans") or {}).items() if k != "dataset"}
    made = Federation(old.name, values, settings)
    whole = made.at(model, "run", "dataset", MachineConfig())
    _need_networks_of(old, whole)
    settings.need_fitting(whole)
    kept = to_values(whole)
    for key in ("output", "start_from", "machine", "protocol", "heads", "parcellation"):
        kept.pop(key)
    kept["scans"].pop("dataset")
    return replace(made, recipe=kept)


def _need_networks_of(model: ModelSummary, recipe: Recipe) -> None:
    """Check that a recipe describes networks as the model has them; a federation trains those.

    Raises:
        UserError: the model lacks one, or has it otherwise.
    """
    for part, config in recipe.trained.items():
        network = model.networks.get(part)
        if network is None:
            raise UserError(
                f"{model.name} has no {part} network, and a federation trains those that the model "
                f"has; leave {part!r} out of the recipe."
            )
        there = {**_PLAIN, **network["architecture"], **network}
        for name in ("size", "field_of_view_mm", "features", *_PLAIN):
            asked = getattr(config, name)
            if asked != there[name]:
                raise UserError(
                    f"the recipe has the {name} {asked} for {part!r} and {model.name} has "
                    f"{there[name]}; a federation trains the model's own networks: change the "
                    "recipe."
                )


_PLAIN = {"long_skips": False, "attention": "none"}
"""What the description of a network leaves out where it is plain."""
