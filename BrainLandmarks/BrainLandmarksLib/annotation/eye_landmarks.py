"""The eye points of a protocol on the globes that an image shows.

A label map seldom has eyes, and a network places their points with the error of its voxels. The
globe itself, dark inside bright fat, is seen to a fraction of a millimetre (:mod:`.globe`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.annotation.globe import POINTS, Globe, eye_points, fit_globes
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import Protocol

Globes = Mapping[str, "Globe | None"]
"""Side, "L" or "R", to its globe, or to None where the image shows none."""

_AGREE_COSINE = 0.96


def eye_rows(protocol: Protocol) -> dict[str, npt.NDArray[np.intp]]:
    """Rows of the points on the globe of each side, of protocols that have all of them."""
    place = {label: row for row, label in enumerate(protocol.labels)}
    found = {}
    for side in ("L", "R"):
        labels = [f"EYE_{name}_{side}" for name in POINTS]
        if all(label in place for label in labels):
            found[side] = np.array([place[label] for label in labels])
    return found


def globes_of(
    protocol: Protocol,
    head: Volume,
    points: FloatArray,
    mean_shape: FloatArray,
    *,
    unguided: bool = False,
) -> dict[str, Globe | None]:
    """The globes near the eye points of a set; nothing for a protocol without such points.

    Args:
        head: Image with air near 0 (`intensity.subtract_background`).
        points: (K, 3) RAS millimetres, NaN where missing.
        mean_shape: (K, 3) mean landmarks of upright heads whose middle plane is x = 0.
        unguided: Whether an eye whose points are missing is looked for as well, where the other
            points lead to expect it.
    """
    every = eye_rows(protocol)
    found = {side: rows for side, rows in every.items() if np.isfinite(points[rows]).all()}
    wanted = every if unguided else found
    if not wanted:
        return {}
    others = points.copy()
    # Eyes that are not there are no witnesses of where the head is.
    others[np.concatenate(list(every.values()))] = np.nan
    try:
        pose = rigid_fit(mean_shape, others)
    except ValueError:  # too few other points to say how the head lies
        return {}
    expected = apply_affine(pose, mean_shape)
    guesses = {
        side: (points if side in found else expected)[rows].mean(0) for side, rows in wanted.items()
    }
    usual = pose[:3, :3] @ _forward(mean_shape, every)
    return fit_globes(head, guesses, _upright(pose, usual, _forward(points, found)))


def on_globes(protocol: Protocol, points: FloatArray, globes: Globes) -> FloatArray:
    """The points with those of the eyes on the globes that were found, (K, 3) RAS millimetres."""
    moved = points.copy()
    for side, rows in eye_rows(protocol).items():
        globe = globes.get(side)
        if globe is not None:
            moved[rows] = list(eye_points(globe, side).values())
    return moved


def without_lost_eyes(protocol: Protocol, points: FloatArray, globes: Globes) -> FloatArray:
    """The points without those of eyes that the image does not show: they witness nothing."""
    kept = points.copy()
    for side, rows in eye_rows(protocol).items():
        if globes.get(side) is None:
            kept[rows] = np.nan
    return kept


def _forward(points: FloatArray, eyes: Mapping[str, npt.NDArray[np.intp]]) -> FloatArray:
    """Where some eyes look, a unit vector; zeros if there is none."""
    front, back = POINTS.index("A"), POINTS.index("P")
    total = np.sum([points[rows[front]] - points[rows[back]] for rows in eyes.values()], axis=0)
    length = np.linalg.norm(total)
    return np.asarray(total / length) if length > 0 else np.zeros(3)


def _upright(pose: FloatArray, usual: FloatArray, found: FloatArray) -> FloatArray:
    """The pose nodded so that its forward direction is where eyes look.

    How far a head is nodded is known better from both: where the eyes of the mean head look, and
    the eye points that were found, if they agree.
    """
    anterior = usual + found if usual @ found > _AGREE_COSINE else usual
    anterior = anterior / np.linalg.norm(anterior)
    right = pose[:3, 0] - (pose[:3, 0] @ anterior) * anterior
    right /= np.linalg.norm(right)
    upright = pose.copy()
    upright[:3, :3] = np.stack([right, anterior, np.cross(right, anterior)], 1)
    return upright
