"""From an image of a head to its landmarks.

`detector` reads like the way of an image; what it uses of its own lies beside it.
"""

from BrainLandmarksLib.detection.detector import (
    FINE_PASSES,
    LOCATOR_PASSES,
    QUALITIES,
    Detection,
    DetectionProgress,
    Detector,
    Quality,
    choose_quality,
    fit_pose,
    head_center,
)
from BrainLandmarksLib.detection.parcellation import Parcellation

__all__ = [
    "FINE_PASSES",
    "LOCATOR_PASSES",
    "QUALITIES",
    "Detection",
    "DetectionProgress",
    "Detector",
    "Parcellation",
    "Quality",
    "choose_quality",
    "fit_pose",
    "head_center",
]
