"""The head frame: mid-sagittal plane and bicommissural-like axes of a label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.annotation.labelmap import (
    ACCUMBENS,
    AMYGDALA,
    CAUDATE,
    HEMISPHERE,
    HIPPOCAMPUS,
    PALLIDUM,
    PUTAMEN,
    THALAMUS,
    VENTRAL_DC,
    LabelMap,
)
from BrainLandmarksLib.errors import UserError


@dataclass(frozen=True)
class HeadFrame:
    """Right-handed axes fixed to the head.

    ``axes`` (3, 3): columns are the head's right, anterior and superior directions in RAS.
    ``origin`` (3,): RAS mm, on the mid-sagittal plane, amid the deep grey nuclei.
    """

    origin: np.ndarray
    axes: np.ndarray

    def to_head(self, points: np.ndarray) -> np.ndarray:
        """RAS mm -> head-frame mm (x right of the MSP, y anterior, z superior)."""
        return (np.asarray(points, float) - self.origin) @ self.axes

    def to_ras(self, points: np.ndarray) -> np.ndarray:
        """Head-frame mm -> RAS mm."""
        return np.asarray(points, float) @ self.axes.T + self.origin


# Midpoints of the left and right nuclei in the head frame (y, z in mm): the mean of the 20 SynthSeg
# training label maps after generalised Procrustes alignment without scaling, turned to the AC-PC
# direction (docs/annotation.md says how, and how well).
REFERENCE_MIDPOINTS: dict[str, tuple[float, float]] = {
    "thalamus": (-12.96, 8.08),
    "caudate": (11.95, 13.81),
    "putamen": (5.10, 4.33),
    "pallidum": (1.61, 2.66),
    "hippocampus": (-14.75, -10.14),
    "amygdala": (2.51, -12.91),
    "accumbens": (15.70, -0.78),
    "ventral_dc": (-9.17, -5.05),
}

_NUCLEI = {
    "thalamus": THALAMUS,
    "caudate": CAUDATE,
    "putamen": PUTAMEN,
    "pallidum": PALLIDUM,
    "hippocampus": HIPPOCAMPUS,
    "amygdala": AMYGDALA,
    "accumbens": ACCUMBENS,
    "ventral_dc": VENTRAL_DC,
}


MISFIT_MM = 7.0
"""How far (root mean square) the midpoints of the nuclei may be from the reference."""

SHARED_MM2 = 200.0
"""Surface between the hemispheres below which no plane is fitted to it."""


def fit_mid_sagittal_plane(head: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """Plane between the left and right hemisphere labels.

    Returns (point, normal), RAS mm; the normal points to the patient's right. The two hemispheres'
    smooth fields are equal on the surface that separates them; a plane is fitted to that surface
    with Cauchy weights, so that places where a hemisphere bulges over the midline do not turn it.

    Raises ``UserError`` if the hemispheres are missing or never meet.
    """
    if not (head.has(HEMISPHERE["L"]) and head.has(HEMISPHERE["R"])):
        raise UserError(
            "The label map has no left and right cerebral hemisphere (its numbers were read as "
            f"{head.scheme.name}): give a segmentation of a whole head, or name its scheme."
        )
    left = head.field(HEMISPHERE["L"], 2.0)
    right = head.field(HEMISPHERE["R"], 2.0)
    # Both fields on the array region of the left one; the midline lies inside its margin.
    l_values, r_values = left.values, right.on(left)
    difference = l_values - r_values
    both = np.minimum(l_values, r_values) > 0.04
    crossing = (difference[:-1] > 0) & (difference[1:] <= 0) & both[:-1] & both[1:]
    index = np.argwhere(crossing)
    if len(index) * np.prod(head.grid.spacing) ** (2 / 3) < SHARED_MM2:
        raise UserError(
            "The left and right hemispheres of the label map do not touch along a midline, so "
            "the mid-sagittal plane cannot be found."
        )
    first = difference[:-1][crossing]
    second = difference[1:][crossing]
    sub = index.astype(float)
    sub[:, 0] += first / (first - second)
    points = left.grid.ijk_to_ras(sub)
    weights = np.ones(len(points))
    for _ in range(50):
        centre = np.average(points, axis=0, weights=weights)
        scatter = (points - centre).T @ ((points - centre) * weights[:, None])
        normal = np.linalg.eigh(scatter)[1][:, 0]
        distance = (points - centre) @ normal
        weights = 1.0 / (1.0 + (distance / 0.7) ** 2)
    towards_right = right.centre() - left.centre()
    if normal @ towards_right < 0:
        normal = -normal
    return centre, normal


def nuclei_midpoints(head: LabelMap) -> dict[str, np.ndarray]:
    """RAS midpoint of each pair of deep nuclei of which both sides are there as a whole."""
    midpoints = {}
    for name, labels in _NUCLEI.items():
        if head.cut(labels["L"]) or head.cut(labels["R"]):
            continue
        left, right = head.centre(labels["L"]), head.centre(labels["R"])
        if left is not None and right is not None:
            midpoints[name] = (left + right) / 2
    return midpoints


def fit_head_frame(head: LabelMap) -> HeadFrame:
    """Head frame of a label map: MSP normal, AC-PC-like y, superior z.

    Raises ``UserError`` if the hemispheres or at least three pairs of deep nuclei are missing, or
    the nuclei do not lie as in a head.
    """
    point, right = fit_mid_sagittal_plane(head)
    midpoints = nuclei_midpoints(head)
    names = [name for name in REFERENCE_MIDPOINTS if name in midpoints]
    if len(names) < 3:
        raise UserError(
            "The label map lacks the deep grey nuclei (thalamus, caudate, putamen, ...) that give "
            f"the head's pitch (its numbers were read as {head.scheme.name}): give a segmentation "
            "of a whole head, or name its scheme."
        )
    nuclei = np.array([midpoints[name] for name in names])
    nuclei -= ((nuclei - point) @ right)[:, None] * right
    reference = np.array([REFERENCE_MIDPOINTS[name] for name in names])
    # Any in-plane basis, then the turn that brings the nuclei onto the reference.
    forward = np.cross([0.0, 0.0, 1.0], right)
    forward /= np.linalg.norm(forward)
    upward = np.cross(right, forward)
    flat = np.stack([nuclei @ forward, nuclei @ upward], 1)
    flat_centre = flat.mean(0)
    target = reference - reference.mean(0)
    a = flat - flat_centre
    angle = np.arctan2(
        np.sum(a[:, 0] * target[:, 1] - a[:, 1] * target[:, 0]),
        np.sum(a[:, 0] * target[:, 0] + a[:, 1] * target[:, 1]),
    )
    turned = np.stack(
        [
            np.cos(angle) * a[:, 0] - np.sin(angle) * a[:, 1],
            np.sin(angle) * a[:, 0] + np.cos(angle) * a[:, 1],
        ],
        1,
    )
    if np.sqrt(np.mean(np.sum((turned - target) ** 2, 1))) > MISFIT_MM:
        raise UserError(
            "The deep grey nuclei of the label map do not lie as in a head (its numbers were read "
            f"as {head.scheme.name}): the map is damaged, or of another scheme."
        )
    anterior = np.cos(angle) * forward - np.sin(angle) * upward
    superior = np.sin(angle) * forward + np.cos(angle) * upward
    axes = np.stack([right, anterior, superior], 1)
    offset = reference.mean(0)
    origin = nuclei.mean(0) - axes @ np.array([0.0, offset[0], offset[1]])
    return HeadFrame(origin, axes)
