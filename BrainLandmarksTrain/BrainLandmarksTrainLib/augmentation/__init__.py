"""Realistic variations of a scan, with its landmarks: the paper's section III-D.

>>> from BrainLandmarksTrainLib.augmentation import AugmentWithLandmarks
>>> varied = AugmentWithLandmarks()(volume, landmarks, seed=7)

From what is drawn to what is written: `config` (policies and ranges), `patient_side` and
`machine_side` (the transforms), `policies` (which one), `augment` (image and landmarks),
`landmark_transform` (where points go), `faux_volumes` (the paper's Algorithm 1), `record` (doing it
again), `folder` (whole datasets) and `contact_sheet` (the picture).

Settings are read without PyTorch: what needs it is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from BrainLandmarksTrainLib.augmentation.config import AugmentationConfig, load_augmentation
from BrainLandmarksTrainLib.augmentation.record import Record

if TYPE_CHECKING:
    from BrainLandmarksTrainLib.augmentation.augment import (
        Augmented,
        AugmentWithLandmarks,
        regenerate,
    )
    from BrainLandmarksTrainLib.augmentation.faux_volumes import by_faux_volumes

__all__ = [
    "AugmentWithLandmarks",
    "AugmentationConfig",
    "Augmented",
    "Record",
    "by_faux_volumes",
    "load_augmentation",
    "regenerate",
]

_LATER = {
    "AugmentWithLandmarks": ".augment",
    "Augmented": ".augment",
    "by_faux_volumes": ".faux_volumes",
    "regenerate": ".augment",
}


def __getattr__(name: str) -> Any:
    """A name whose module takes seconds to import."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name], __name__), name)
    return value
