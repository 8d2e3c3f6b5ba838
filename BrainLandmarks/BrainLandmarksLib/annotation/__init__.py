"""Ground truth by rule: the brain88 landmarks placed on a FreeSurfer-numbered label map.

The rules are those of ``protocols/brain88.json`` in numbers. Anatomy that the map does not contain
gives a missing landmark, never a guess.
"""

from __future__ import annotations

import numpy as np

from ..images import Volume
from ..landmarks import LandmarkSet
from ..protocol import load_protocol
from .anatomy import Anatomy, Points
from .axial_boundary import axial_boundary
from .brain_boundary import brain_boundary, frontal_lobe, midline_contour
from .brain_stem import brain_stem
from .corpus_callosum import corpus_callosum
from .eye import eyes
from .labelmap import LabelMap
from .temporal import temporal_lobe

__all__ = ["annotate"]

PROTOCOL = "brain88"


def annotate(volume: Volume) -> LandmarkSet:
    """Landmarks of a head label map, status ``truth`` or ``missing``.

    Example::

        landmarks = annotate(read_image("aseg.mgz"))

    Raises ``UserError`` if the image is no label map or its head frame cannot be found.
    """
    anatomy = Anatomy(LabelMap(volume))
    found: Points = {}
    found |= corpus_callosum(anatomy)
    contour = midline_contour(anatomy)
    found |= frontal_lobe(anatomy, contour, found["CC_G"])
    found |= brain_stem(anatomy)
    found |= brain_boundary(contour, found["CC_G"], found["CC_S"])
    found |= eyes(anatomy)
    found |= axial_boundary(anatomy, found["CC_T"])
    found |= temporal_lobe(anatomy)
    protocol = load_protocol(PROTOCOL)
    points = np.full((len(protocol), 3), np.nan)
    for row, landmark in enumerate(protocol.landmarks):
        point = found[landmark.label]
        if point is not None and np.isfinite(point).all():
            points[row] = anatomy.to_ras(point)
    status = ["missing" if np.isnan(p).any() else "truth" for p in points]
    return LandmarkSet(protocol, points, status, np.full(len(protocol), np.nan))
