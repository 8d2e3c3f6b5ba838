"""How far an annotation is from its guidelines: planes, equal spacing, order and sides.

The paper's annotators disagreed most where the points of a group left their common plane or were
not equidistant (section IV-B); these are the measures of both, and of mistakes that a person makes
with names. They know the protocol and the points, no image. Points are RAS mm, NaN where missing.

>>> off_plane(protocol, points).max()           # mm, the point farthest off the plane of its group
>>> [(s.chain.members, s.variation) for s in spacings(protocol, points)]
>>> swapped_sides(protocol, points)           # pairs whose left and right were swapped
[('EYE_A_L', 'EYE_A_R')]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.planes import fitted_plane
from BrainLandmarksLib.protocol import Chain, Protocol
from BrainLandmarksLib.protocol.constraints import chain_rows, outline_steps, plane_mates
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.protocol.measures import midline_frame

TURNED_PAIRS = 3
"""Fewer pairs on each other's side may as well be names that were swapped."""

TURNED_SHARE = 0.85
"""Share of the pairs on each other's side from which on the head lies the other way round."""

HEAD_MM = 1000.0
"""Landmarks that reach over more than this along an axis are no head's in mm."""

_FACING = 0.5
"""Cosine between the mid-sagittal plane's normal and the patient's right from which on left and
right follow from the coordinates: a head turned by more looks to its side."""

_GAIN_STEPS = 0.5
"""Two points of an outline are out of order if swapping them makes it shorter by more than this
many mean steps; two neighbours that were swapped lengthen a straight outline by two."""


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

    It is the robust fit of :func:`~BrainLandmarksLib.geometry.planes.fitted_plane` to all of
    them; None for a landmark that shares no plane with three placed points.

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
    """Pairs of secondary landmarks whose swap puts their outline into order again.

    Args:
        points: (K, 3).

    Returns:
        Labels, in the order in which the pairs are to be swapped; empty if all is in order.
    """
    array = np.array(points, float)
    pairs = []
    for chain in protocol.chains:
        rows = [row for row in chain_rows(protocol, chain) if np.isfinite(array[row]).all()]
        ring = [*rows, rows[0]] if chain.closed and rows else rows
        secondary = [row for row in rows if protocol.landmarks[row].role == "secondary"]
        # A swap puts one point at least in its place, so there are no more than points.
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
    center, right = _midsagittal(protocol, array)
    return np.asarray((array - center) @ right)


def _midsagittal(protocol: Protocol, array: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A point of the mid-sagittal plane and its normal towards the patient's right."""
    try:
        center, axes = midline_frame(protocol, array)
        return center, axes[:, 0]
    except UserError:
        partner = array[protocol.mirror_permutation()]
        pairs = np.isfinite(array).all(1) & np.isfinite(partner).all(1)
        middle = (array + partner)[pairs] / 2
        center = np.median(middle, axis=0) if len(middle) else np.full(3, np.nan)
        return center, np.array([1.0, 0.0, 0.0])


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


def turned_share(protocol: Protocol, points: npt.ArrayLike) -> float:
    """Share of the pairs of which the left one lies to the right of the right one, 0 to 1.

    It is 0, too, with fewer than `TURNED_PAIRS` pairs, and for a head that looks to its side.

    Args:
        points: (K, 3).
    """
    array = np.array(points, float)
    _, right = _midsagittal(protocol, array)
    if right[0] < _FACING:
        return 0.0
    partner = array[protocol.mirror_permutation()]
    left = np.array([landmark.side == "L" for landmark in protocol.landmarks])
    ahead = ((array - partner) @ right)[left]
    ahead = ahead[np.isfinite(ahead)]
    return float((ahead > 0).mean()) if len(ahead) >= TURNED_PAIRS else 0.0


def turned_round(protocol: Protocol, points: npt.ArrayLike) -> str:
    """Half a sentence if the head as a whole lies with its left on the patient's right, else "".

    That is what coordinates in LPS look like that are said to be in RAS, and the other way round:
    a swap of names would only hide it. This is the only test of it.

    Args:
        points: (K, 3).
    """
    share = turned_share(protocol, points)
    if share < TURNED_SHARE:
        return ""
    return (
        f"{'all' if share == 1 else 'most'} left landmarks are on the patient's right; the "
        "coordinates are probably in LPS and said to be in RAS, or the other way round, or the "
        "sides were named as the viewer sees them"
    )


def need_plausible(
    protocol: Protocol, points: npt.ArrayLike, name: str, *, any_pose: bool = False
) -> None:
    """Refuse a set of landmarks that as a whole cannot be right, wherever it comes from.

    Args:
        points: (K, 3).
        name: What to call the set in the sentence.
        any_pose: The head may lie with its left on the patient's right.

    Raises:
        UserError: it is larger than any head, or turned round (`turned_round`).
    """
    array = np.array(points, float)
    known = array[np.isfinite(array).all(axis=1)]
    if len(known) and (extent := float(np.ptp(known, axis=0).max())) > HEAD_MM:
        raise UserError(
            f"{name}: the landmarks reach over {extent:.0f} mm, which is no head in mm; check the "
            "units and the decimal signs."
        )
    turned = "" if any_pose else turned_round(protocol, array)
    if turned:
        raise UserError(f"{name}: {turned}; write the file again in the system that it states.")


def need_one_way_round(files: Sequence[tuple[object, LandmarkSet]]) -> None:
    """Check that a head which was turned as a whole (`turned_round`) was so in all files.

    Args:
        files: What to call each in the sentence, and its landmarks.

    Raises:
        UserError: some are, and some are not.
    """
    turned = [turned_round(landmarks.protocol, landmarks.points) for _, landmarks in files]
    for (name, _), sentence in zip(files, turned, strict=True):
        if sentence and not all(turned):
            raise UserError(f"{name}: {sentence}; write the file again in the system it states.")


def swapped_sides(protocol: Protocol, points: npt.ArrayLike) -> list[tuple[str, str]]:
    """Pairs (left, right) of which each lies on the other's side.

    In a head that lies the other way round as a whole (`turned_round`) no pair is swapped.

    Args:
        points: (K, 3).
    """
    if turned_round(protocol, points):
        return []
    wrong = set(wrong_sides(protocol, points))
    return [
        (landmark.label, landmark.mirror)
        for landmark in protocol.landmarks
        if landmark.side == "L" and {landmark.label, landmark.mirror} <= wrong
    ]
