"""How the learning rate goes down, and when a run has learnt all that it can."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .config import RunConfig

_PLATEAU_FACTOR = 1 / 3


@dataclass
class PlateauMonitor:
    """Follows the validation error over epochs (Prechelt, Neural Networks 11:761, 1998).

    >>> watch = PlateauMonitor()
    >>> watch.see(2.9), watch.see(3.1)
    (True, False)
    """

    best: float = math.inf
    """Lowest validation error, mm."""
    waiting: int = 0
    """Epochs since then."""
    reductions: int = 0
    """How often the learning rate has been reduced."""

    def see(self, error: float, plateau_patience: int | None = None) -> bool:
        """Take an epoch's error; whether it is the best so far.

        Args:
            plateau_patience: epochs without a better error that reduce the learning rate.
        """
        better = error < self.best
        self.best = min(self.best, error)
        self.waiting = 0 if better else self.waiting + 1
        if plateau_patience and self.waiting and self.waiting % plateau_patience == 0:
            self.reductions += 1
        return better

    def exhausted(self, patience: int | None) -> bool:
        """Whether there has been no better error for ``patience`` epochs."""
        return patience is not None and self.waiting >= patience

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; before the first epoch there is no best error."""
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "waiting": self.waiting, "reductions": self.reductions}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PlateauMonitor:
        """The same from plain JSON values."""
        best = math.inf if values["best"] is None else values["best"]
        return cls(best, values["waiting"], values["reductions"])


def learning_rate(config: RunConfig, step: int, progress: float, watch: PlateauMonitor) -> float:
    """Learning rate of a step.

    Args:
        step: the step about to be taken, from 0.
        progress: how much of the run is done, 0 to 1.
    """
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    low = config.final_learning_rate
    if config.schedule == "plateau":
        level = max(low, _PLATEAU_FACTOR**watch.reductions)
    else:
        level = low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * warm * level
