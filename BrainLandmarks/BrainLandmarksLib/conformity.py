"""How far an annotation is from its guidelines: planes, equal spacing, order and sides.

The paper's annotators disagreed most where the points of a group left their common plane or were
not equidistant (section IV-B); these are the measures of both, and of mistakes that a person makes
with names. They know the protocol and the points, no image. Points are RAS mm, NaN where missing.

>>> off_plane(protocol, points).max()           # mm, the point farthest off the plane of its group
>>> [(s.chain.members, s.variation) for s in spacings(protocol, points)]
>>> exchanged_sides(protocol, points)           # pairs whose left and right were exchanged
[('EYE_A_L', 'EYE_A_R')]
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.correction import chain_rows, fitted_plane, outline_steps, plane_mates
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import FloatArray
from BrainLandmarksLib.measures import midline_frame
from BrainLandmarksLib.protocol import Chain, Protocol

_GAIN_STEPS = 0.5
"""Two points of an outline are out of order if exchanging them makes it shorter by more than this
many mean steps; two neighbours that were exchanged lengthen a straight outline by two."""


@dataclass(frozen=True)
class Spacing:
    """The steps of an outline from landmark to landmark; a closed one returns to its first.

    Args:
        chain: The chain of the protocol.
        steps_mm: Arc lengths between neighbours along a smooth curve through the chain's points.
    """

    chain: Chain
    steps_mm: FloatArray

    @property
    def variation(self) -> float:
        """Coefficient of variation of the steps: standard deviation over mean."""
        return float(self.steps_mm.std() / self.steps_mm.mean())


def shared_planes(
    protocol: Protocol, points: npt.ArrayLike
) -> list[tuple[FloatArray, FloatArray] | None]:
    """The plane, (point, unit normal), that each landmark shares with others by definition.

    It is the robust fit of :func:`~BrainLandmarksLib.correction.fitted_plane` to all of them; None
    for a landmark that shares no plane with three placed points.

    Args:
        points: (K, 3).
    """
    array = np.array(points, float)
    planes: dict[tuple[int, ...], tuple[FloatArray, FloatArray] | None] = {}
    result = []
    for landmark in protocol.landmarks:
        mates = tuple(plane_mates(protocol, landmark))
        if mates not in planes:
            try:
                planes[mates] = fitted_plane(array[list(mates)])
            except UserError:
                planes[mates] = None
        result.append(planes[mates])
    return result


def off_plane(protocol: Protocol, points: npt.ArrayLike) -> FloatArray:
    """Distance of every point from the plane that it shares with others by definition.

    Args:
        points: (K, 3).

    Returns:
        (K,) mm; NaN where the point is missing or shares no plane with three placed points.
    """
    array = np.array(points, float)
    result = np.full(len(protocol), np.nan)
    for row, plane in enumerate(shared_planes(protocol, array)):
        if plane is not None:
            result[row] = abs(float((array[row] - plane[0]) @ plane[1]))
    return result


def spacings(protocol: Protocol, points: npt.ArrayLike) -> list[Spacing]:
    """The steps of the protocol's chains; those of which a point is missing are left out.

    Args:
        points: (K, 3).
    """
    array = np.array(points, float)
    found = []
    for chain in protocol.chains:
        on_chain = array[chain_rows(protocol, chain)]
        if np.isfinite(on_chain).all():
            found.append(Spacing(chain, outline_steps(on_chain, chain)))
    return found


def out_of_order(protocol: Protocol, points: npt.ArrayLike) -> list[tuple[str, str]]:
    """Pairs of secondary landmarks whose exchange puts their outline into order again.

    Args:
        points: (K, 3).

    Returns:
        Labels, in the order in which the pairs are to be exchanged; empty if all is in order.
    """
    array = np.array(points, float)
    pairs = []
    for chain in protocol.chains:
        rows = [row for row in chain_rows(protocol, chain) if np.isfinite(array[row]).all()]
        ring = [*rows, rows[0]] if chain.closed and rows else rows
        secondary = [row for row in rows if protocol.landmarks[row].role == "secondary"]
        # An exchange puts one point at least in its place, so there are no more than points.
        for _ in secondary:
            before = _length(array[ring])
            gains = {
                (i, j): before - _length(_swapped(array, i, j)[ring])
                for i, j in combinations(secondary, 2)
            }
            best = max(gains, key=gains.__getitem__, default=None)
            if best is None or not gains[best] > _GAIN_STEPS * before / (len(ring) - 1):
                break
            array = _swapped(array, *best)
            pairs.append((protocol.labels[best[0]], protocol.labels[best[1]]))
    return pairs


def _length(points: FloatArray) -> float:
    """Length of the polygon through points (n, 3) in their order."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def _swapped(points: FloatArray, i: int, j: int) -> FloatArray:
    result = points.copy()
    result[[i, j]] = points[[j, i]]
    return result


def sideways(protocol: Protocol, points: npt.ArrayLike) -> FloatArray:
    """How far each point lies to the patient's right of the mid-sagittal plane, (K,) mm.

    Without three midline landmarks the plane is upright, half-way between the pairs.

    Args:
        points: (K, 3).
    """
    array = np.array(points, float)
    try:
        center, axes = midline_frame(protocol, array)
    except UserError:
        partner = array[protocol.mirror_permutation()]
        pairs = np.isfinite(array).all(1) & np.isfinite(partner).all(1)
        middle = (array + partner)[pairs] / 2
        center = np.median(middle, axis=0) if len(middle) else np.full(3, np.nan)
        axes = np.eye(3)
    return np.asarray((array - center) @ axes[:, 0])


def wrong_sides(protocol: Protocol, points: npt.ArrayLike) -> list[str]:
    """Labels of left landmarks that lie on the right of the mid-sagittal plane, and vice versa.

    Args:
        points: (K, 3).
    """
    right = sideways(protocol, points)
    return [
        landmark.label
        for landmark in protocol.landmarks
        if (landmark.side == "L" and right[landmark.index - 1] > 0)
        or (landmark.side == "R" and right[landmark.index - 1] < 0)
    ]


def exchanged_sides(protocol: Protocol, points: npt.ArrayLike) -> list[tuple[str, str]]:
    """Pairs (left, right) of which each lies on the other's side.

    Args:
        points: (K, 3).
    """
    wrong = set(wrong_sides(protocol, points))
    return [
        (landmark.label, landmark.mirror)
        for landmark in protocol.landmarks
        if landmark.side == "L" and {landmark.label, landmark.mirror} <= wrong
    ]
