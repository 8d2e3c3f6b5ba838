"""What every rule needs: the label map in its head frame, the midline, and ways to pick points.

All points here are head-frame millimetres (x right of the mid-sagittal plane, y anterior,
z superior); ``Anatomy.to_ras`` is applied once, at the very end.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from BrainLandmarksLib.annotation.frame import HeadFrame, fit_head_frame
from BrainLandmarksLib.annotation.labelmap import (
    CEREBRAL_CORTEX,
    CEREBRAL_WHITE,
    CORPUS_CALLOSUM,
    HEMISPHERE,
    Field,
    LabelMap,
)
from BrainLandmarksLib.annotation.outline import PlaneSection, SectionPlane, exit_along

RIGHT, ANTERIOR, SUPERIOR = np.eye(3)
SIDES = ("L", "R")

LOBE_SIGMA_MM = 5.0
"""Smoothing that leaves a lobe's shape and takes its gyri away."""

LEAST_SHARE = 0.15
"""A hemisphere of which less than this is white matter, or cortex, is not whole."""

Points = dict[str, "np.ndarray | None"]
"""Landmark label -> head-frame point, or None where the anatomy is absent."""


class Anatomy:
    """A label map seen in its own head frame."""

    def __init__(self, head: LabelMap) -> None:
        self.head = head
        self.frame: HeadFrame = fit_head_frame(head)
        self.msp = SectionPlane(self.frame.origin, self.frame.axes[:, 1], self.frame.axes[:, 2])

    def to_ras(self, point: np.ndarray) -> np.ndarray:
        """Head frame -> RAS mm."""
        return self.frame.to_ras(point)

    def value(self, field: Field, points: np.ndarray) -> np.ndarray:
        """Field at head-frame points."""
        return field.at(self.frame.to_ras(points))

    def midline(self, labels: Iterable[int], sigma_mm: float = 1.0) -> PlaneSection:
        """Section of a field on the mid-sagittal plane; its (u, v) are head-frame (y, z)."""
        return PlaneSection.of(
            self.msp, self.head.field(labels, sigma_mm), (-100, 100), (-100, 100)
        )

    def slab(
        self, labels: Iterable[int], half_width_mm: float, step_mm: float = 2.0
    ) -> PlaneSection:
        """Silhouette on the mid-sagittal plane of everything within ``half_width_mm`` of it."""
        field = self.head.field(labels)
        right = self.frame.axes[:, 0]
        offsets = np.arange(-half_width_mm, half_width_mm + 1e-6, step_mm)

        def highest(ras: np.ndarray) -> np.ndarray:
            return np.max([field.at(ras + x * right) for x in offsets], axis=0)

        return PlaneSection.of(self.msp, highest, (-110, 100), (-100, 110))

    def exit(
        self,
        field: Field,
        start: np.ndarray,
        direction: np.ndarray,
        reach_mm: float,
        *,
        last: bool = False,
    ) -> np.ndarray | None:
        """Where a ray in the head frame leaves a structure."""
        return exit_along(
            lambda points: self.value(field, points), start, direction, reach_mm, last=last
        )

    def pole(
        self,
        labels: Iterable[int],
        direction: np.ndarray,
        low: Iterable[float],
        high: Iterable[float],
        cap_mm: float = 2.5,
    ) -> np.ndarray | None:
        """Surface point of a lobe farthest along a head axis, inside a box (mm).

        Two gyri often reach equally far. So the lobe's shape without its gyri decides where the
        pole is: the middle of the cap within ``cap_mm`` of the extreme of a strongly smoothed
        field, of its largest connected part in the box. From there the point is carried along
        ``direction`` to the surface itself.
        """
        low, high = np.asarray(list(low), float), np.asarray(list(high), float)
        reach = 4 * LOBE_SIGMA_MM
        corners = np.array([*itertools.product(*zip(low - reach, high + reach))])
        near = self.frame.to_ras(corners)
        shape = self.head.field_near(labels, LOBE_SIGMA_MM, near)
        surface = self.head.field_near(labels, 1.5, near)
        step = 1.0
        axes = [np.arange(a, b + step / 2, step) for a, b in zip(low, high)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        solid = self.value(shape, lattice) >= 0.5
        parts, count = ndimage.label(solid)
        if count == 0:
            return None
        sizes = ndimage.sum_labels(solid, parts, np.arange(1, count + 1))
        points = lattice[parts == 1 + int(np.argmax(sizes))]
        height = points @ direction
        # Weights fall to zero at the edge of the cap, so the answer moves smoothly with the shape.
        weight = np.clip(height - (height.max() - cap_mm - step), 0, None)
        middle = np.average(points, axis=0, weights=weight)
        return self.exit(surface, middle - LOBE_SIGMA_MM * direction, direction, reach, last=True)

    def inside(self, points: np.ndarray) -> bool:
        """Whether head-frame points all lie where the map is not cut."""
        return bool(self.head.inside(self.to_ras(points)).all())

    def complete(self, side: str) -> bool:
        """Whether a hemisphere has its white matter and its cortex, so that its outline is real.

        A structure that is gone, or less than a third of the other side's, leaves a surface inside
        the brain.
        """
        other = "R" if side == "L" else "L"
        for structure in (CEREBRAL_WHITE, CEREBRAL_CORTEX):
            volume = self.head.volume(structure[side])
            whole = self.head.volume(HEMISPHERE[side])
            opposite = self.head.volume(structure[other])
            if volume < LEAST_SHARE * whole or volume < opposite / 3 or volume == 0:
                return False
        return True

    @functools.cached_property
    def cerebrum(self) -> tuple[int, ...]:
        """Labels of cerebral white matter and cortex, both sides, and of what joins them."""
        return HEMISPHERE["L"] + HEMISPHERE["R"] + CORPUS_CALLOSUM


def lateral(side: str) -> np.ndarray:
    """Unit vector pointing away from the midline on a side."""
    return -RIGHT if side == "L" else RIGHT


def on_midline(points: np.ndarray) -> np.ndarray:
    """(…, 2) points (y, z) of a mid-sagittal outline -> (…, 3) head-frame points."""
    points = np.asarray(points, float)
    return np.concatenate([np.zeros((*points.shape[:-1], 1)), points], -1)
