"""A model fine-tuned on a dataset: after corrections, on another scanner, for other landmarks.

The recipe is an ordinary one (:mod:`.recipe`) that starts from the model. Where the landmarks are
the model's own, its locator stays and batch norm keeps its statistics: a few scans would spoil
both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.network.model_files import ModelSummary, summarise
from BrainLandmarksTrainLib.settings import from_values

from .recipe import WHAT, Recipe

STEPS = 300
"""Steps of the fine network where the model knows the landmarks."""
STEPS_OF_NEW_LANDMARKS = 2000
"""Steps of the fine network where its last layer starts from nothing."""

_KNOWN = {
    "learning_rate": 5e-4,
    "warmup_steps": 20,
    "freeze_norm_at": 0.0,
    "recalibration_batches": 0,
    "ema_decay": 0.99,
}
_NEW = {"learning_rate": 1e-3, "warmup_steps": 50, "freeze_norm_at": 0.5, "ema_decay": 0.995}
_LOCATOR_SHARE = 0.4
"""Steps of a new locator, as a share of those of the fine network."""
_REFINEMENT_SHARE = 0.5
"""The same for a refinement network. It is always trained as well: one that was not would pull the
points back to where it has learnt them."""
_PRIOR_MM = 3.5


def finetune_recipe(
    model: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    machine: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe that fine-tunes a model.

    Args:
        model: name or folder of the model to start from.
        dataset: folder; its training split is learnt from, all of it if it is not split.
        output: folder of the run.
        name: of the new model; by default the old one's with "-tuned".
        steps: of the fine network; others get a share of it on top.
        minutes: of the fine network; training ends with whichever comes first.
        machine: settings of the machine; None leaves one at its default.

    Raises:
        UserError: there is no such model or dataset, or a setting is wrong.
    """
    old = summarise(model)
    protocol = Dataset.open(dataset).protocol
    known = protocol.hash == old.protocol_hash
    if steps is None and minutes is None:
        steps = STEPS if known else STEPS_OF_NEW_LANDMARKS
    values = {
        "name": name or f"{old.name}-tuned",
        "output": str(Path(output).absolute()),
        "start_from": str(model),
        "scans": {"dataset": str(Path(dataset).absolute())},
        **finetune_values(old, known=known, steps=steps, minutes=minutes),
        "machine": {k: v for k, v in (machine or {}).items() if v is not None},
    }
    return from_values(Recipe, values, WHAT)


def finetune_values(
    old: ModelSummary, *, known: bool, steps: int | None = None, minutes: float | None = None
) -> dict[str, Any]:
    """Settings of the networks that fine-tuning trains: "locator", "fine" and "refinement".

    Args:
        old: The model to start from.
        known: Whether it finds the dataset's landmarks.
        steps: Of the fine network; others get a share of it on top.
        minutes: Of the fine network.
    """
    common = {"sigma": 1.25, "alpha": 0.5, "coordinate_loss": "euclidean"}
    fine = {
        **_cube(old.networks["fine"]), **common, **(_KNOWN if known else _NEW),
        "steps": steps, "minutes": minutes,
    }  # fmt: skip

    def share(part: float) -> dict[str, Any]:
        return {
            "steps": None if steps is None else max(1, round(part * steps)),
            "minutes": None if minutes is None else part * minutes,
        }

    locator = refinement = None
    if not known:
        locator = {
            **_cube(old.networks["locator"]), **common, **_NEW, **share(_LOCATOR_SHARE),
            "sigma": 1.0,
        }  # fmt: skip
    elif "refinement" in old.networks:
        refinement = {
            **_cube(old.networks["refinement"]), **common, **_KNOWN, **share(_REFINEMENT_SHARE),
            "prior_mm": _PRIOR_MM,
        }  # fmt: skip
    return {"locator": locator, "fine": fine, "refinement": refinement}


def _cube(network: Mapping[str, Any]) -> dict[str, Any]:
    """The cube that a network takes, and its width, as settings."""
    return {
        "size": network["size"],
        "field_of_view_mm": network["field_of_view_mm"],
        "features": network["architecture"]["features"],
    }
