"""How far a site is, in a small file in its folder; needs neither PyTorch nor Flower.

>>> read_progress(Path("runs/joined")).sentence
'Round 3 of 10: training the fine network, loss 0.41.'
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.json_file import json_object

PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class SiteProgress:
    """What a site is doing.

    Args:
        number: The round, from 1.
        rounds: How many there are.
        doing: In words, such as "training the fine network", "waiting", "finished".
        loss: Of the last steps, if it has one.
        error_mm: Mean radial error of the last steps, if it has one.
    """

    number: int
    rounds: int
    doing: str
    loss: float | None = None
    error_mm: float | None = None

    @property
    def done(self) -> int:
        """Rounds that this site has finished."""
        finished = self.doing in ("waiting", "measuring", "finished")
        return self.number if finished else self.number - 1

    @property
    def sentence(self) -> str:
        """It in words."""
        loss = f", loss {self.loss:.3g}" if self.loss is not None else ""
        return f"Round {self.number} of {self.rounds}: {self.doing}{loss}."


def write_progress(folder: Path, progress: SiteProgress) -> None:
    """Say how far a site is.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    values = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in asdict(progress).items()
    }
    with atomic_write(folder / PROGRESS_FILE) as unfinished:
        unfinished.write_text(json.dumps(values) + "\n", encoding="utf-8")


def read_progress(folder: Path) -> SiteProgress | None:
    """How far the site is that works in a folder; None before its first round."""
    values = json_object(folder / PROGRESS_FILE)
    try:
        return SiteProgress(**values) if values else None
    except TypeError:  # of another version
        return None
