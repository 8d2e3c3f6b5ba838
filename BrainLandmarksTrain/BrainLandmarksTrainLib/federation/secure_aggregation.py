"""Rounds with SecAgg+: the server learns the weighted mean of the sites' weights and no more.

Flower 1.42 offers SecAgg+ as a workflow of its older interface, not yet for the strategies of the
newer one; the workflow is used as it is, with the older plain average.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Context
from flwr.common import (
    FitIns,
    FitRes,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import LegacyContext, ServerConfig
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid

from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.config.federation import FederationConfig

from .stage import Stage
from .strategies import ATTEMPTS, Recorded
from .weights import Arrays

SHARES = 1.0
"""Every site holds a share of every other site's key."""
THRESHOLD = 0.6
"""Share of the sites that have to stay to the end of a round: those that leave are unmasked by
them."""

_LEAST_RANGE = 8.0


class _Kept(FedAvg):
    """Flower's older plain average, which keeps every round."""

    def __init__(self, strategy: Recorded, names: list[str], stage: Stage, first: Arrays) -> None:
        settings = strategy.settings
        super().__init__(
            fraction_fit=settings.fraction_train,
            fraction_evaluate=0.0,
            min_fit_clients=settings.min_train_nodes,
            min_evaluate_clients=settings.min_evaluate_nodes,
            min_available_clients=settings.min_available_nodes,
            initial_parameters=ndarrays_to_parameters([first[name] for name in names]),
        )
        self._rounds = strategy.rounds
        self._names = names
        self._stage = stage

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """The messages of the coming round."""
        pairs = super().configure_fit(server_round, parameters, client_manager)
        config: dict[str, Scalar] = {
            "server-round": self._rounds.done + 1,
            **self._stage.to_config(),
        }
        return [(proxy, FitIns(fit.parameters, config)) for proxy, fit in pairs]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Keep the mean, which each of the results holds by now."""
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if parameters is not None:
            arrays = parameters_to_ndarrays(parameters)
            joined = {k: np.asarray(v, np.float32) for k, v in zip(self._names, arrays)}
            sites = [{"num-examples": r.num_examples, **r.metrics} for _, r in results]
            self._rounds.add(joined, {"sites": sites, "failed": len(failures)})
        return parameters, metrics


def train_secretly(
    grid: Grid, context: Context, strategy: Recorded, arrays: Arrays, stage: Stage
) -> None:
    """Train the rounds that are left with SecAgg+.

    Raises:
        UserError: several rounds in a row have failed, or the disk is full.
    """
    settings, rounds = strategy.settings, strategy.rounds
    unanswered = 0
    while rounds.done < settings.rounds:
        done = rounds.done
        present = rounds.arrays or arrays
        names = sorted(present)
        legacy = LegacyContext(
            context=context,
            config=ServerConfig(num_rounds=1),
            strategy=_Kept(strategy, names, stage, present),
        )
        workflow = DefaultWorkflow(
            fit_workflow=_masked(settings, present), evaluate_workflow=_no_evaluation
        )
        workflow(grid, legacy)
        unanswered = 0 if rounds.done > done else unanswered + 1
        if unanswered >= ATTEMPTS:
            raise UserError(
                f"secure aggregation of round {done + 1} has failed {ATTEMPTS} times: too few "
                "sites have stayed to its end, or they have refused; their logs say why."
            )


def _masked(settings: FederationConfig, arrays: Arrays) -> SecAggPlusWorkflow:
    largest = max((float(np.abs(array).max()) for array in arrays.values()), default=0.0)
    return SecAggPlusWorkflow(
        num_shares=SHARES,
        reconstruction_threshold=THRESHOLD,
        max_weight=float(settings.most_scans),
        # Twice the largest weight: training a round does not double it.
        clipping_range=max(_LEAST_RANGE, 2.0 * largest),
        timeout=60 * settings.round_minutes,
    )


def _no_evaluation(_grid: Any, _context: Any) -> None:
    """The model is measured when all rounds are done."""
