"""Realistic variations of a scan, with its landmarks: the paper's section III-D.

>>> from BrainLandmarksTrainLib.augmentation import AugmentWithLandmarks
>>> varied = AugmentWithLandmarks()(volume, landmarks, seed=7)

From what is drawn to what is written: `config` (policies and ranges), `patient_side` and
`machine_side` (the transforms), `policies` (which one), `augment` (image and landmarks), `moving`
(where points go), `algorithm1` (the paper's literal way), `record` (doing it again), `folder`
(whole datasets) and `contact_sheet` (the picture).
"""

from .algorithm1 import algorithm1
from .augment import Augmented, AugmentWithLandmarks, regenerate
from .config import AugmentationConfig, load_augmentation
from .record import Record

__all__ = [
    "AugmentWithLandmarks",
    "AugmentationConfig",
    "Augmented",
    "Record",
    "algorithm1",
    "load_augmentation",
    "regenerate",
]
