"""The curves of a training as charts of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from BrainLandmarksTrainLib.pipeline.progress import TrainingProgress

from .plots import Chart, Line

LOSS = "BrainLandmarks training loss"
ERROR = "BrainLandmarks training error"


class TrainingPlots:
    """Loss and errors over the steps, one line for each network; `show` brings them up to date."""

    def __init__(self) -> None:
        self._loss = Chart(LOSS, "step", "loss")
        self._error = Chart(ERROR, "step", "radial error, mm, or Dice loss")
        self._shown: Sequence[TrainingProgress] = ()

    @property
    def charts(self) -> tuple[Any, Any]:
        """The chart nodes: loss and error; None where there is none yet."""
        return self._loss.node, self._error.node

    def show(self, progress: Sequence[TrainingProgress]) -> None:
        """Show the curves; the same ones again cost nothing."""
        if progress == self._shown and None not in self.charts:
            return
        self._shown = progress
        self._loss.show([Line(p.part, p.loss.steps, p.loss.values) for p in progress])
        lines = []
        for p in progress:
            lines.append(Line(f"{p.part}, training", p.error.steps, p.error.values))
            if p.validation.steps:
                lines.append(Line(f"{p.part}, validation", p.validation.steps, p.validation.values))
        self._error.show(lines)
