"""Ground truth by rule: the brain88 landmarks placed on the label map of a head.

The rules are those of ``protocols/brain88.json`` in numbers. Anatomy that the map does not contain
gives a missing landmark, never a guess.
"""

from __future__ import annotations

import os

import numpy as np

from BrainLandmarksLib.annotation.anatomy import Anatomy, Points
from BrainLandmarksLib.annotation.labelmap import LabelMap
from BrainLandmarksLib.annotation.rules.axial_boundary import axial_boundary
from BrainLandmarksLib.annotation.rules.brain_boundary import (
    brain_boundary,
    frontal_lobe,
    midline_contour,
)
from BrainLandmarksLib.annotation.rules.brain_stem import brain_stem
from BrainLandmarksLib.annotation.rules.corpus_callosum import corpus_callosum
from BrainLandmarksLib.annotation.rules.eye import eyes
from BrainLandmarksLib.annotation.rules.temporal import temporal_lobe
from BrainLandmarksLib.annotation.schemes import (
    AUTO,
    Scheme,
    detect_scheme,
    load_scheme,
    scheme_names,
)
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

__all__ = ["LabelMap", "Scheme", "annotate", "detect_scheme", "load_scheme", "scheme_names"]

PROTOCOL = "brain88"


def annotate(
    volume: Volume | LabelMap, labels: Scheme | str | os.PathLike[str] = AUTO
) -> LandmarkSet:
    """Landmarks of a head label map, status ``truth`` or ``missing``.

    Example::

        landmarks = annotate(read_image("aseg.mgz"))
        landmarks = annotate(read_image("parcellation.nii.gz"), labels="gif")

    Args:
        volume: The label map, as an image or read already.
        labels: The scheme of the image's numbers, its name or file, or "auto".

    Raises ``UserError`` if the image is no label map, its numbers are of no known scheme, or its
    head frame cannot be found.
    """
    anatomy = Anatomy(volume if isinstance(volume, LabelMap) else LabelMap(volume, labels))
    found: Points = {}
    found |= corpus_callosum(anatomy)
    contour = midline_contour(anatomy)
    found |= frontal_lobe(anatomy, contour, found["CC_G"])
    found |= brain_stem(anatomy)
    found |= brain_boundary(anatomy, contour, found["CC_G"], found["CC_S"])
    found |= eyes(anatomy)
    found |= axial_boundary(anatomy, found["CC_T"])
    found |= temporal_lobe(anatomy)
    protocol = load_protocol(PROTOCOL)
    points = np.full((len(protocol), 3), np.nan)
    for row, landmark in enumerate(protocol.landmarks):
        point = found[landmark.label]
        if point is not None and np.isfinite(point).all():
            ras = anatomy.to_ras(point)
            if anatomy.head.inside(ras):
                points[row] = ras
    status = ["missing" if np.isnan(p).any() else "truth" for p in points]
    return LandmarkSet(protocol, points, status, np.full(len(protocol), np.nan))
