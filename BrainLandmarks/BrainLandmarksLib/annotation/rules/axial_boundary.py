"""Brain axial boundary: ten points at equal arc length in one axial plane of the head frame."""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.annotation.anatomy import SIDES, Anatomy, Points
from BrainLandmarksLib.annotation.outline import (
    PlaneSection,
    SectionPlane,
    along,
    length,
    resampled,
)
from BrainLandmarksLib.geometry.curves import arc_lengths

LEVEL_MM = 10.0
"""Height of the plane above the highest point of the corpus callosum."""

CLOSING_MM = 25.0
"""Fissures narrower than twice this are bridged, the longitudinal and the Sylvian ones among them:
their depth varies from head to head, and would shift every point by its share of the way."""

LABELS = (
    "AX_1_L",
    "AX_2_L",
    "AX_3_L",
    "AX_4_L",
    "AX_5_L",
    "AX_5_R",
    "AX_4_R",
    "AX_3_R",
    "AX_2_R",
    "AX_1_R",
)
"""In the order of the contour: from the anterior midline down the left side and back."""


def axial_boundary(anatomy: Anatomy, highest_callosum: np.ndarray | None) -> Points:
    """Points of the axial ring; needs the highest point of the corpus callosum for its level."""
    found: Points = dict.fromkeys(LABELS)
    if highest_callosum is None or not all(anatomy.complete(side) for side in SIDES):
        return found
    level = highest_callosum[2] + LEVEL_MM
    frame = anatomy.frame
    plane = SectionPlane(
        frame.to_ras(np.array([0.0, 0.0, level])), frame.axes[:, 0], frame.axes[:, 1]
    )
    section = PlaneSection.of(plane, anatomy.head.field(anatomy.cerebrum), (-95, 95), (-120, 105))
    ring = section.closed(CLOSING_MM).component(len).outline()
    if len(ring) < 50 or not np.allclose(ring[0], ring[-1]):
        return found
    ring = resampled(ring)
    if not anatomy.inside(np.column_stack([ring, np.full(len(ring), level)])):
        return found
    total, s = length(ring), arc_lengths(ring)
    # Start where the ring crosses the midline in front; go down the patient's left side first.
    crossing = np.flatnonzero((ring[:-1, 0] * ring[1:, 0] <= 0) & (ring[:-1, 1] > 0))
    if len(crossing) == 0:
        return found
    k = int(crossing[np.argmax(ring[crossing, 1])])
    fraction = ring[k, 0] / (ring[k, 0] - ring[k + 1, 0] + 1e-12)
    start = s[k] + fraction * (s[k + 1] - s[k])
    leftwards = along(ring, (start + 5.0) % total)[0] < 0
    steps = total * (np.arange(len(LABELS)) + 0.5) / len(LABELS)
    at = (start + (steps if leftwards else -steps)) % total
    for label, point in zip(LABELS, along(ring, at)):
        found[label] = np.array([point[0], point[1], level])
    return found
