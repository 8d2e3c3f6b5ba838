"""How far planes from found landmarks are from those of the true ones, over many heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.planes import angle_degrees
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes.construction import construct, lacking
from BrainLandmarksLib.planes.prescription import prescribe
from BrainLandmarksLib.planes.uncertainty import LEVEL, Deviation
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet


@dataclass(frozen=True)
class PlaneErrors:
    """The errors of one plane on n heads.

    Args:
        name: Of the plane.
        heads: Names of the heads that have it.
        angle: (n,) degrees between the found and the true normal.
        offset: (n,) mm from the found origin to the true plane.
        ranks: (n, 2) share of the planes that were thought possible that are nearer than the true
            one, by angle and by offset; NaN where no uncertainty is known.
    """

    name: str
    heads: tuple[str, ...]
    angle: FloatArray
    offset: FloatArray
    ranks: FloatArray

    @property
    def inside(self) -> tuple[float, float]:
        """Share of the heads on which the true plane lies inside the interval: angle, offset."""
        known = self.ranks[np.isfinite(self.ranks).all(1)]
        angle, offset = (known <= LEVEL).mean(0) if len(known) else (np.nan, np.nan)
        return float(angle), float(offset)


def plane_errors(
    protocol: Protocol,
    pairs: Mapping[str, tuple[LandmarkSet, LandmarkSet]],
    errors: LandmarkErrors,
) -> list[PlaneErrors]:
    """The errors of every plane, from the found and the true landmarks of heads, by name.

    A head counts for the planes that both have.
    """
    rows: dict[str, list[tuple[float, ...]]] = {plane.name: [] for plane in protocol.scan_planes}
    heads: dict[str, list[str]] = {plane.name: [] for plane in protocol.scan_planes}
    for head, (found, true) in pairs.items():
        for one, other in zip(prescribe(found, errors), prescribe(true), strict=True):
            if one.frame is None or other.frame is None:
                continue
            away = Deviation.between(one.frame, other.frame)
            ranks = (np.nan, np.nan) if one.uncertainty is None else one.uncertainty.rank(away)
            rows[one.plane.name].append((float(away.angle), abs(float(away.offset)), *ranks))
            heads[one.plane.name].append(head)
    measured = []
    for name, values in rows.items():
        table = np.array(values, float).reshape(-1, 4)
        measured.append(
            PlaneErrors(name, tuple(heads[name]), table[:, 0], table[:, 1], table[:, 2:])
        )
    return measured


def plane_angles(protocol: Protocol, points: FloatArray, expected: FloatArray) -> FloatArray:
    """Degrees between the planes of landmarks and of others, (P,); NaN where one is not there.

    Args:
        points, expected: (K, 3) RAS mm, NaN for missing ones.
    """
    one, other = (
        construct(protocol, each, set(lacking(protocol, each))) for each in (points, expected)
    )
    return np.array(
        [
            float(angle_degrees(one[name].normal, other[name].normal))
            if name in one and name in other
            else np.nan
            for name in (plane.name for plane in protocol.scan_planes)
        ]
    )
