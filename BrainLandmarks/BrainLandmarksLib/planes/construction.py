"""Where the scan planes of a protocol lie, given landmarks.

All of it works on many sets of landmarks at once, since the uncertainty of a plane is that of the
planes of many samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.planes import weighted_plane
from BrainLandmarksLib.protocol import Protocol, ScanPlane
from BrainLandmarksLib.protocol.scan_planes import Line, MeanPoint

_SHORTEST_MM = 1.0
"""A line that is shorter than this says nothing about a direction."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A plane and the way its images are shown, RAS; (..., 3) each.

    Args:
        origin: A point of the plane, mm.
        row: Unit vector from left to right on the screen, along the rows of the image: DICOM's
            first direction.
        column: Unit vector from top to bottom, along the columns: DICOM's second direction.
    """

    origin: FloatArray
    row: FloatArray
    column: FloatArray

    @property
    def normal(self) -> FloatArray:
        """Unit normal, row x column, along which slices follow each other."""
        return np.cross(self.row, self.column)

    @property
    def axes(self) -> FloatArray:
        """(..., 3, 3) whose columns are row, column and normal: a right-handed rotation."""
        return np.stack([self.row, self.column, self.normal], axis=-1)

    def __getitem__(self, index: int) -> Frame:
        return Frame(self.origin[index], self.row[index], self.column[index])


def lacking(protocol: Protocol, points: npt.ArrayLike) -> dict[str, str]:
    """Which planes the landmarks of a head cannot tell, and why: name to half a sentence.

    Args:
        points: (K, 3) RAS mm, NaN for missing ones.
    """
    known = np.isfinite(np.asarray(points, float)).all(1)
    present = {label for label, there in zip(protocol.labels, known, strict=True) if there}
    reasons: dict[str, str] = {}
    for plane in protocol.scan_planes:
        absent = [label for label in plane.landmarks if label not in present]
        if absent:
            reasons[plane.name] = f"missing: {', '.join(absent)}"
        elif plane.left_right in reasons:
            reasons[plane.name] = f"there is no {plane.left_right} plane"
    frames = construct(protocol, np.asarray(points, float), set(reasons))
    for plane in protocol.scan_planes:
        frame = frames.get(plane.name)
        if frame is not None and not (np.isfinite(frame.axes).all()):
            reasons[plane.name] = "its landmarks lie in one place or on one line"
    return reasons


def construct(
    protocol: Protocol, points: FloatArray, without: frozenset[str] | set[str] = frozenset()
) -> dict[str, Frame]:
    """The planes of the protocol, by name.

    Args:
        points: (..., K, 3) RAS mm; the landmarks of the planes are finite.
        without: Names of planes to leave out.

    Returns:
        Frames with the leading dimensions of ``points``; NaN where landmarks lie in one place.
    """
    row = {label: number for number, label in enumerate(protocol.labels)}
    head = _Head(points, row)
    frames: dict[str, Frame] = {}
    for plane in protocol.scan_planes:
        if plane.name not in without:
            frames[plane.name] = _BUILDERS[plane.construction](plane, head, frames)
    return frames


@dataclass(frozen=True)
class _Head:
    """Landmarks of one or many heads, (..., K, 3), and the row of each label."""

    points: FloatArray
    row: dict[str, int]

    def all(self, labels: tuple[str, ...]) -> FloatArray:
        return np.asarray(self.points[..., [self.row[label] for label in labels], :])

    def mean(self, point: MeanPoint) -> FloatArray:
        weights = np.array([weight for _, weight in point.weights])
        return (self.all(point.labels) * weights[:, None]).sum(-2) / weights.sum()

    def direction(self, line: Line) -> FloatArray:
        return self.mean(line.end) - self.mean(line.start)


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.where(length < _SHORTEST_MM, np.nan, vectors) / length)


def _across(vectors: FloatArray, unit: FloatArray) -> FloatArray:
    """What of vectors is perpendicular to a direction, with length one."""
    return _unit(vectors - (vectors * unit).sum(-1, keepdims=True) * unit)


def _through(plane: ScanPlane, head: _Head, _: dict[str, Frame]) -> Frame:
    assert plane.points
    assert plane.rows
    assert plane.columns
    weights = [weight for _, weight in plane.points.weights]
    origin, normal = weighted_plane(head.all(plane.points.labels), weights)
    row = _across(head.direction(plane.rows), normal)
    column = np.cross(normal, row)
    # A plane has two sides; the columns tell which of them the images are seen from.
    agrees = (column * head.direction(plane.columns)).sum(-1, keepdims=True)
    return Frame(origin, row, column * np.sign(agrees))


def _along(plane: ScanPlane, head: _Head, frames: dict[str, Frame]) -> Frame:
    assert plane.line
    assert plane.origin
    row = -frames[plane.left_right].normal
    return Frame(head.mean(plane.origin), row, _across(head.direction(plane.line), row))


def _perpendicular(plane: ScanPlane, head: _Head, frames: dict[str, Frame]) -> Frame:
    assert plane.line
    assert plane.origin
    row = -frames[plane.left_right].normal
    normal = _across(head.direction(plane.line), row)
    return Frame(head.mean(plane.origin), row, np.cross(normal, row))


def _beside(plane: ScanPlane, head: _Head, frames: dict[str, Frame]) -> Frame:
    assert plane.line
    assert plane.origin
    column = _unit(head.direction(plane.line))
    right = frames[plane.left_right].normal
    normal = right - (right * column).sum(-1, keepdims=True) * column
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return Frame(head.mean(plane.origin), np.cross(column, normal), column)


def _reference(plane: ScanPlane, head: _Head, frames: dict[str, Frame]) -> Frame:
    """Least squares in the mid-sagittal plane, of which complex numbers are the points."""
    middle = frames[plane.left_right]
    anterior, superior = -middle.row, -middle.column
    offset = head.all(tuple(r.label for r in plane.reference)) - middle.origin[..., None, :]
    seen = _complex(offset @ anterior[..., None], offset @ superior[..., None])
    target = np.array([complex(r.anterior, r.superior) for r in plane.reference])
    center, middle_of = seen.mean(-1), target.mean()
    arm = target - middle_of
    # seen = center + turn (target - its mean); |turn| is the scale, its angle the rotation.
    turn = (np.conj(arm) * (seen - center[..., None])).sum(-1) / (np.abs(arm) ** 2).sum()
    at = center - turn * middle_of
    with np.errstate(invalid="ignore", divide="ignore"):
        forward = np.where(np.abs(turn) < 1e-6, np.nan, turn / np.abs(turn))
    origin = middle.origin + at.real[..., None] * anterior + at.imag[..., None] * superior
    direction = forward.real[..., None] * anterior + forward.imag[..., None] * superior
    return Frame(origin, -middle.normal, -direction)


def _complex(real: FloatArray, imaginary: FloatArray) -> npt.NDArray[np.complex128]:
    return np.asarray(real[..., 0] + 1j * imaginary[..., 0])


_BUILDERS = {
    "through": _through,
    "along": _along,
    "across": _perpendicular,
    "beside": _beside,
    "reference": _reference,
}
