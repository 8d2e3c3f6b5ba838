"""What the server keeps of each round: the joined weights, and what the sites said of them.

A round is a checkpoint of the engine: a folder that is there whole or not at all, so a server that
was killed, or whose disk was full, goes on after the last whole one.

>>> rounds = Rounds(Path("federation"), stage, federation)
>>> rounds.done, rounds.arrays is None
(0, True)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksTrainLib.config.federation import Federation
from BrainLandmarksTrainLib.engine.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

from .stage import Stage
from .weights import Arrays

FOLDER, HISTORY = "rounds", "rounds.json"
KEPT = 3
"""Rounds whose weights are kept, the newest ones."""


class Rounds:
    """The rounds of a federation in the server's folder.

    Args:
        folder: Of the server.
        stage: Where training starts.
        federation: The app's settings. The number of rounds may grow, and so may the waiting time.

    Raises:
        UserError: the folder holds the rounds of another federation.
    """

    def __init__(self, folder: Path, stage: Stage, federation: Federation) -> None:
        self.folder = folder
        self.done = 0
        """Rounds that were joined."""
        self.arrays: Arrays | None = None
        """The weights after the last of them; None before any."""
        self.optimizer: dict[str, Arrays] = {}
        """What the server's strategy remembers, such as the moments of fedadam."""
        self.history: list[dict[str, Any]] = []
        self._about = _identity(stage, federation)
        newest = latest_checkpoint(folder / FOLDER)
        if newest is None:
            return
        kept = read_checkpoint(newest)
        if kept.state["about"] != self._about:
            raise UserError(
                f"{folder} holds the rounds of another federation; choose another --output."
            )
        self.done = int(kept.state["round"])
        self.history = list(kept.state["history"])
        self.arrays = _to_arrays(kept.part("weights"))
        for name in kept.state["optimizer"]:
            self.optimizer[name] = _to_arrays(kept.part(f"optimizer.{name}"))

    def add(
        self,
        arrays: Arrays,
        said: Mapping[str, Any],
        optimizer: Mapping[str, Arrays] | None = None,
    ) -> None:
        """Keep a round that was joined; it counts when this returns.

        Args:
            arrays: The joined weights.
            said: What the sites have said of the round, plain JSON values.
            optimizer: What the strategy needs to go on.

        Raises:
            UserError: the disk is full or cannot be written to; the rounds before are untouched.
        """
        number = self.done + 1
        history = [*self.history, {"round": number, **said}]
        tensors = {f"weights.{k}": torch.from_numpy(np.array(v)) for k, v in arrays.items()}
        for name, values in (optimizer or {}).items():
            tensors |= {
                f"optimizer.{name}.{k}": torch.from_numpy(np.array(v, np.float32))
                for k, v in values.items()
            }
        state = {
            "round": number,
            "about": self._about,
            "history": history,
            "optimizer": sorted(optimizer or {}),
        }
        write_checkpoint(self.folder / FOLDER, number, Checkpoint(state, tensors), KEPT)
        self.done, self.history, self.arrays = number, history, dict(arrays)
        self.optimizer = {k: dict(v) for k, v in (optimizer or {}).items()}

    def write_history(self, **more: Any) -> None:
        """Write what there is to read of the rounds, ``rounds.json``.

        Raises:
            UserError: it cannot be written.
        """
        content = {"rounds": self.history, **more}
        with atomic_write(self.folder / HISTORY) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _identity(stage: Stage, federation: Federation) -> str:
    content = {**stage.to_config(), **federation.lasting()}
    return sha256([json.dumps(content, sort_keys=True)])


def _to_arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in sorted(tensors.items())}
