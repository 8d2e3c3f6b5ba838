"""What the modules remember of a user: Slicer's own settings, and the models that were added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import slicer
import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import ModelSummary, list_models, summarise

_MODULE = "BrainLandmarks"
_MODELS = "models"


def preference(name: str, *value: Any) -> Any:
    """Read what the user last chose, preference(name), or remember it, preference(name, value)."""
    key = f"{_MODULE}/{name}"
    if value:
        slicer.app.settings().setValue(key, str(value[0]))
        return value[0]
    return slicer.util.settingsValue(key, "")


def usable_models() -> list[ModelSummary]:
    """The models that ship, then those that were added and are still there."""
    models = list_models()
    for folder in _added():
        try:
            models.append(summarise(folder))
        except UserError:
            continue  # it was moved, or its disk is not there now
    return models


def add_model(folder: Path) -> ModelSummary:
    """Offer a model folder from now on, in both modules, and let Detect choose it.

    Raises:
        UserError: it is no model.
    """
    model = summarise(folder.absolute())
    folders = [known for known in _added() if known != str(model.folder)]
    preference(_MODELS, json.dumps([*folders, str(model.folder)]))
    preference("model", model.key)
    return model


def title_of(model: ModelSummary) -> str:
    """How a list calls a model: its name, and where an added one lies."""
    return model.name if model.key == model.name else f"{model.name} ({model.folder})"


def _added() -> list[str]:
    try:
        folders = json.loads(preference(_MODELS) or "[]")
    except ValueError:
        return []
    return [str(folder) for folder in folders] if isinstance(folders, list) else []
