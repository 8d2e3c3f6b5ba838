"""What every rule needs: the label map in its head frame, the midline, and ways to pick points.

All points here are head-frame millimetres (x right of the mid-sagittal plane, y anterior,
z superior); ``Anatomy.to_ras`` is applied once, at the very end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from .frame import HeadFrame, fit_head_frame
from .labelmap import HEMISPHERE, Field, LabelMap
from .outline import Plane, Section, exit_along

RIGHT, ANTERIOR, SUPERIOR = np.eye(3)
SIDES = ("L", "R")

Points = dict[str, "np.ndarray | None"]
"""Landmark label -> head-frame point, or None where the anatomy is absent."""


class Anatomy:
    """A label map seen in its own head frame."""

    def __init__(self, head: LabelMap) -> None:
        self.head = head
        self.frame: HeadFrame = fit_head_frame(head)
        self.msp = Plane(self.frame.origin, self.frame.axes[:, 1], self.frame.axes[:, 2])

    def to_ras(self, point: np.ndarray) -> np.ndarray:
        """Head frame -> RAS mm."""
        return self.frame.to_ras(point)

    def value(self, field: Field, points: np.ndarray) -> np.ndarray:
        """Field at head-frame points."""
        return field.at(self.frame.to_ras(points))

    def midline(self, labels: Iterable[int], sigma_mm: float = 1.0) -> Section:
        """Section of a field on the mid-sagittal plane; its (u, v) are head-frame (y, z)."""
        return Section.of(self.msp, self.head.field(labels, sigma_mm), (-100, 100), (-100, 100))

    def slab(self, labels: Iterable[int], half_width_mm: float, step_mm: float = 2.0) -> Section:
        """Silhouette on the mid-sagittal plane of everything within ``half_width_mm`` of it."""
        field = self.head.field(labels)
        right = self.frame.axes[:, 0]
        offsets = np.arange(-half_width_mm, half_width_mm + 1e-6, step_mm)

        def highest(ras: np.ndarray) -> np.ndarray:
            return np.max([field.at(ras + x * right) for x in offsets], axis=0)

        return Section.of(self.msp, highest, (-110, 100), (-100, 110))

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

    def farthest(
        self,
        labels: Iterable[int],
        direction: np.ndarray,
        low: Iterable[float],
        high: Iterable[float],
        cap_mm: float = 1.5,
        sigma_mm: float = 1.5,
    ) -> np.ndarray | None:
        """Boundary point of a structure farthest along a head axis, inside a box (mm).

        Only the largest connected part in the box counts. As for outlines, the middle of the cap
        within ``cap_mm`` of the extreme is taken, then carried along ``direction`` to the surface.
        """
        field = self.head.field(labels, sigma_mm)
        low, high = np.asarray(list(low), float), np.asarray(list(high), float)
        step = 1.0
        axes = [np.arange(a, b + step / 2, step) for a, b in zip(low, high)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        values = self.value(field, lattice)
        solid = values >= 0.5
        parts, count = ndimage.label(solid)
        if count == 0:
            return None
        sizes = ndimage.sum_labels(solid, parts, np.arange(1, count + 1))
        part = parts == 1 + int(np.argmax(sizes))
        points = lattice[part]
        height = points @ direction
        near = height >= height.max() - cap_mm - step
        # The cap may fall into several gyri: the one that holds the extreme counts.
        cap = np.zeros_like(part)
        cap[part] = near
        pieces, _ = ndimage.label(cap, structure=np.ones((3, 3, 3)))
        top = np.unravel_index(
            np.argmax(np.where(cap, lattice @ direction + 0.5 * values, -np.inf)), cap.shape
        )
        chosen = pieces == pieces[top]
        weight = np.maximum(lattice[chosen] @ direction - (height.max() - cap_mm - step), 1e-6)
        middle = np.average(lattice[chosen], axis=0, weights=weight * values[chosen])
        # From inside the part outwards, so that the point lies on the surface itself.
        inside = middle - 3.0 * direction
        start = inside if self.value(field, inside) >= 0.5 else middle
        return self.exit(field, start, direction, 12.0)

    @functools.cached_property
    def cerebrum(self) -> tuple[int, ...]:
        """Labels of cerebral white matter and cortex, both sides."""
        return HEMISPHERE["L"] + HEMISPHERE["R"]


def lateral(side: str) -> np.ndarray:
    """Unit vector pointing away from the midline on a side."""
    return -RIGHT if side == "L" else RIGHT


def on_midline(point: np.ndarray) -> np.ndarray:
    """(y, z) of a mid-sagittal outline -> head-frame point."""
    return np.array([0.0, point[0], point[1]])
