"""How the server joins the sites' weights: Flower's strategies, and a record of every round."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedProx,
    Strategy,
)

from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.config.federation import FederationConfig

from .rounds import Rounds
from .weights import Arrays

ATTEMPTS = 3
"""Rounds in a row that no site has answered, after which the server gives up."""

SCANS = "num-examples"
"""What a site's answer is weighted by, where no differential privacy is asked for."""

_log = logging.getLogger("flwr")


def base_strategy(settings: FederationConfig) -> FedAvg:
    """The strategy by its name, with Flower's own settings of who takes part."""
    nodes: dict[str, Any] = {
        "fraction_train": settings.fraction_train,
        "min_train_nodes": settings.min_train_nodes,
        "min_evaluate_nodes": settings.min_evaluate_nodes,
        "min_available_nodes": settings.min_available_nodes,
        "weighted_by_key": SCANS,
    }
    if settings.strategy == "fedprox":
        return FedProx(**nodes, proximal_mu=settings.proximal_mu)
    if settings.strategy == "fedadam":
        return FedAdam(**nodes, eta=settings.server_learning_rate, tau=settings.adaptability)
    return FedAvg(**nodes)


def with_privacy(strategy: FedAvg, settings: FederationConfig) -> Strategy:
    """The strategy in Flower's wrapper of differential privacy, where one is asked for."""
    wrappers = {
        "server": DifferentialPrivacyServerSideFixedClipping,
        "site": DifferentialPrivacyClientSideFixedClipping,
    }
    wrapper = wrappers.get(settings.privacy)
    if wrapper is None:
        return strategy
    return wrapper(
        strategy, settings.noise_multiplier, settings.clipping_norm, settings.min_train_nodes
    )


class Recorded(Strategy):
    """A strategy whose rounds are kept one by one, and which goes on after the last that is kept.

    >>> strategy = Recorded(settings, rounds)
    >>> strategy.start(grid, to_record(arrays), num_rounds=settings.rounds - rounds.done)

    Flower counts the rounds of a start from 1; the inner strategy is told the federation's own
    number. A round that no site has answered is kept by nobody and does not count.
    """

    def __init__(self, settings: FederationConfig, rounds: Rounds) -> None:
        self.settings = settings
        self.rounds = rounds
        self.base = base_strategy(settings)
        self.inner = with_privacy(self.base, settings)
        self._measured: tuple[int, list[dict[str, float]]] = (0, [])
        self._unanswered = 0
        self._private = self.inner is not self.base
        # The noise is for a mean of so many sites.
        self._fewest = settings.min_train_nodes if self._private else 1
        if isinstance(self.base, FedAdam) and rounds.optimizer:
            self.base.m_t = dict(rounds.optimizer["m"])
            self.base.v_t = dict(rounds.optimizer["v"])

    @property
    def measured(self) -> list[dict[str, float]]:
        """What each site has measured after the last round that is kept; empty if none has."""
        number, sites = self._measured
        return sites if number == self.rounds.done else []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of the coming round."""
        if self.rounds.done >= self.settings.rounds:
            return []
        return self.inner.configure_train(self.rounds.done + 1, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Join the answers of a round and keep it.

        Raises:
            UserError: nobody has answered for several rounds, or the disk is full.
        """
        answers = list(replies)
        number = self.rounds.done + 1
        if number > self.settings.rounds:
            return None, None
        good = _good(answers)
        said_by_sites = [metrics_of(message) for message in good]
        arrays, metrics = None, None
        if len(good) >= self._fewest:
            if self._private:
                _weigh_equally(good)
            # Flower's wrappers of differential privacy drop a round in which one site has failed.
            arrays, metrics = self.inner.aggregate_train(number, good)
        if arrays is None:
            self._unanswered += 1
            if self._unanswered >= ATTEMPTS:
                fewest = self._fewest
                who = f"only {len(good)} of {fewest} sites have" if good else "no site has"
                raise UserError(f"{who} trained round {number}: {_reasons(answers)}")
            return None, None
        self._unanswered = 0
        said = {
            "sites": said_by_sites,
            "failed": len(answers) - len(good),
            "mean": dict(metrics or {}),
        }
        optimizer = {}
        if isinstance(self.base, FedAdam) and self.base.m_t and self.base.v_t:
            optimizer = {"m": dict(self.base.m_t), "v": dict(self.base.v_t)}
        self.rounds.add(to_arrays(arrays), said, optimizer)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of a measurement, in the rounds that have one."""
        done, every = self.rounds.done, self.settings.evaluate_every
        if done == 0 or not (done >= self.settings.rounds or (every and done % every == 0)):
            return []
        return self.inner.configure_evaluate(done, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Note what the sites have measured."""
        good = _good(list(replies))
        if not good:
            return None
        self._measured = self.rounds.done, [metrics_of(message) for message in good]
        return self.inner.aggregate_evaluate(self.rounds.done, good)

    def summary(self) -> None:
        """What Flower logs of it."""
        self.inner.summary()


def to_record(arrays: Arrays) -> ArrayRecord:
    """Weights as a record of a message, in alphabetical order."""
    return ArrayRecord({name: Array(arrays[name]) for name in sorted(arrays)})


def to_arrays(record: ArrayRecord) -> Arrays:
    """Weights of a record of a message."""
    return {name: np.asarray(array.numpy(), np.float32) for name, array in sorted(record.items())}


def metrics_of(message: Message) -> dict[str, float]:
    """The numbers that a site has sent."""
    numbers: dict[str, float] = {}
    for record in message.content.metric_records.values():
        for name, value in record.items():
            # Where nothing was found there is no error: JSON has no NaN.
            if isinstance(value, (int, float)) and math.isfinite(value):
                numbers[name] = value
    return numbers


def _good(answers: list[Message]) -> list[Message]:
    """The answers that are none of an error; the others go to the server's log."""
    failed = [message for message in answers if message.has_error()]
    if failed:
        _log.warning("%d of %d sites failed: %s", len(failed), len(answers), _reasons(failed))
    return [message for message in answers if not message.has_error()]


def _weigh_equally(answers: Iterable[Message]) -> None:
    """Let every site count the same; a site with more scans would outweigh the noise."""
    for message in answers:
        for record in message.content.metric_records.values():
            record[SCANS] = 1


def _reasons(answers: Iterable[Message]) -> str:
    reasons = {message.error.reason for message in answers if message.has_error()}
    texts = sorted(str(reason).rstrip(".") for reason in reasons if reason)
    return "; ".join(texts) + "." if texts else "none has answered in time."
