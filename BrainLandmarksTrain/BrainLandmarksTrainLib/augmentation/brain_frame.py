"""Where the parts of a brain lie in a scan: a reference brain, carried over by the landmarks.

The reference is the sample head, Colin27, whose coordinates are those of MNI space (AC near the
origin). An affine map from its landmarks to those of the scan says where the ventricles, the
hemispheres and the sinuses are, to a few mm; grey values say the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import affine_fit
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

REFERENCE_PROTOCOL = "brain88"
"""The protocol whose landmarks the reference has."""

CEREBRUM = (np.array([0.0, -17.0, 14.0]), np.array([67.0, 88.0, 64.0]))
"""Centre and half axes of an ellipsoid along the surface of the cerebrum, reference mm."""

VENTRICLES = np.array(
    [
        [12, 30, 5], [12, 24, 10], [11, 17, 14], [11, 10, 17], [11, 3, 19], [12, -4, 20],
        [13, -11, 21], [15, -18, 21], [18, -25, 20], [22, -32, 17], [25, -38, 12], [26, -44, 9],
        [26, -52, 8], [26, -60, 7], [28, -36, 3], [31, -31, -4], [33, -24, -10], [33, -16, -16],
    ],
    dtype=float,
)  # fmt: skip
"""Along the right lateral ventricle: frontal horn, body, atrium, occipital and temporal horn."""

THIRD_VENTRICLE = np.array([[0, -4, -4], [0, -9, 0], [0, -15, 2], [0, -21, 2]], float)
"""Along the third ventricle, from the foramina to the aqueduct."""

WHITE_MATTER = np.array(
    [[27, -8, 32], [26, -25, 34], [27, 10, 28], [24, 28, 22], [27, -40, 32], [30, -60, 20]], float
)
"""In the right white matter, away from grey matter and the ventricles."""

GREY_MATTER = np.array([[12, -20, 8], [11, -14, 6], [27, 3, 2], [27, -4, 4]], float)
"""In the right thalamus and putamen."""

SINUSES = (
    np.array(
        [
            [0, 73, 10], [0, 70, 26], [0, 62, 42], [0, 48, 57], [0, 28, 70], [0, 8, 77],
            [0, -12, 79], [0, -34, 78], [0, -56, 71], [0, -78, 58], [0, -94, 40], [0, -102, 20],
            [0, -104, -2],
        ],
        dtype=float,
    ),
    np.array(
        [[0, -104, -2], [22, -98, -14], [42, -84, -22], [54, -64, -30], [52, -50, -38]],
        dtype=float,
    ),
    np.array([[0, -36, 2], [0, -48, 14], [0, -62, 10], [0, -84, 2], [0, -104, -2]], float),
)  # fmt: skip
"""Along the superior sagittal sinus, the right transverse sinus and the straight sinus."""

ARTERIES = (
    np.array([[0, -22, -48], [0, -22, -36], [0, -20, -24], [0, -18, -16]], float),
    np.array([[12, 2, -30], [12, 4, -20], [15, 6, -16], [28, 4, -16], [40, 4, -10], [46, -4, 0],
              [48, -18, 8]], float),
    np.array([[3, 14, -14], [3, 28, -6], [3, 38, 6], [3, 34, 18], [3, 20, 28]], float),
)  # fmt: skip
"""Along the basilar artery, the right middle and the right anterior cerebral artery."""

DENTAL = np.array([22.0, 66.0, -72.0])
"""At the teeth on the right."""

_LEAST_PAIRS = 8


def both_sides(points: FloatArray) -> FloatArray:
    """Points of the right side, and the same of the left."""
    return np.concatenate([points, points * [-1, 1, 1]])


@dataclass(frozen=True)
class BrainFrame:
    """The map from the reference to a scan.

    >>> frame = BrainFrame.of(landmarks, centre)
    >>> frame.to_scan(VENTRICLES)          # mm, the middle of the image as the origin

    Args:
        affine: 4x4.
    """

    affine: FloatArray

    @classmethod
    def of(cls, landmarks: LandmarkSet, centre: FloatArray) -> BrainFrame:
        """By the landmarks that the reference has as well.

        Args:
            landmarks: Of the scan, RAS mm.
            centre: The middle of the image, RAS mm.

        Raises:
            UserError: there are too few of them.
        """
        known = _reference()
        labels = [item.label for item in landmarks.protocol]
        pairs = [
            (known[label], point)
            for label, point in zip(labels, landmarks.points - centre, strict=True)
            if label in known and np.isfinite(point).all()
        ]
        if len(pairs) < _LEAST_PAIRS:
            raise UserError(
                f"abnormal anatomy needs {_LEAST_PAIRS} landmarks of {REFERENCE_PROTOCOL} to find "
                f"its way, and there are {len(pairs)}; leave out its policy."
            )
        source, target = (np.array(side) for side in zip(*pairs, strict=True))
        try:
            return cls(affine_fit(source, target))
        except ValueError:
            raise UserError(
                "abnormal anatomy needs landmarks that are not in one plane; leave out its policy."
            ) from None

    def to_scan(self, points: FloatArray) -> FloatArray:
        """Reference mm to mm of the centred image, (..., 3)."""
        return apply_affine(self.affine, points)

    def to_reference(self, points: FloatArray) -> FloatArray:
        """The other way."""
        return apply_affine(np.linalg.inv(self.affine), points)

    def cerebral_radius(self, points: FloatArray) -> FloatArray:
        """How far positions in the scan are from the middle of the cerebrum, (..., 3) to (...).

        About 1 at its surface.
        """
        centre, axes = CEREBRUM
        radius: FloatArray = np.linalg.norm((self.to_reference(points) - centre) / axes, axis=-1)
        return radius

    def to_json(self) -> list[list[float]]:
        """Three rows."""
        rows: list[list[float]] = self.affine[:3].round(5).tolist()
        return rows

    @classmethod
    def of_json(cls, rows: list[list[float]]) -> BrainFrame:
        """Read three rows."""
        return cls(np.array([*rows, [0, 0, 0, 1]], dtype=float))


@cache
def _reference() -> dict[str, Any]:
    protocol = load_protocol(REFERENCE_PROTOCOL)
    path = resources.folder("sample") / "ch2_brain88.mrk.json"
    points = read_landmarks(path, protocol).points
    return {item.label: point for item, point in zip(protocol, points, strict=True)}


@dataclass(frozen=True)
class Levels:
    """Grey values of the tissues in a scan, which say what contrast it has."""

    white: float
    grey: float
    fluid: float

    @classmethod
    def of(cls, volume: Volume, frame: BrainFrame) -> Levels:
        """Read where the reference has each of the tissues.

        Args:
            volume: Whose middle is the origin.
        """
        white = _middle(_values(volume, frame, WHITE_MATTER))
        grey = _middle(_values(volume, frame, GREY_MATTER))
        inside = _values(volume, frame, VENTRICLES[:13])
        # The ventricles are narrow: of what lies there, what is least like white matter.
        low, high = (float(v) for v in np.percentile(inside, [8, 92])) if len(inside) else (0, 0)
        fluid = low if white - low >= high - white else high
        return cls(white, grey, fluid)

    @property
    def lesion(self) -> float:
        """Of a white-matter lesion: dark on T1, bright on T2 and on FLAIR."""
        if self.fluid > self.white:
            return self.white + 0.55 * (self.fluid - self.white)
        if self.grey > self.white:
            return self.white + 0.6 * (self.white - self.fluid)
        return self.white - 0.45 * (self.white - self.fluid)


def _values(volume: Volume, frame: BrainFrame, points: FloatArray) -> FloatArray:
    """Grey values within 2 mm of reference points on both sides."""
    shifts = np.stack(np.meshgrid(*[[-2.0, 0.0, 2.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
    places = frame.to_scan(both_sides(points))[:, None] + shifts
    ijk = np.rint(volume.grid.ras_to_ijk(places.reshape(-1, 3))).astype(int)
    inside = ((ijk >= 0) & (ijk < volume.grid.shape)).all(axis=1)
    values: FloatArray = volume.data[tuple(ijk[inside].T)].astype(np.float64)
    return values


def _middle(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def brain_mask(volume: Volume, frame: BrainFrame, levels: Levels) -> tuple[FloatArray, Grid]:
    """Where the brain and the fluid in its folds are, 0 to 1, on voxels of about 2 mm.

    The tissue between the grey values of fluid and white matter that hangs together with the white
    matter, closed; found by its grey values, kept near the reference's ellipsoid.

    Returns:
        (share, its grid).
    """
    from scipy import ndimage

    step = np.maximum(1, np.round(2.0 / volume.grid.spacing)).astype(int)
    small = ndimage.uniform_filter(volume.data, step.tolist())
    small = small[:: step[0], :: step[1], :: step[2]]
    grid = volume.grid.coarser(step, small.shape)
    where = np.moveaxis(np.indices(grid.shape), 0, -1)
    radius = frame.cerebral_radius(grid.ijk_to_ras(where))
    floor = 0.5 * (levels.fluid + levels.grey) if levels.fluid < levels.grey else 0.4 * levels.grey
    tissue = (small > floor) & (radius < 1.12)
    core = ndimage.binary_erosion(tissue, iterations=1)
    parts, count = ndimage.label(core)
    if count == 0:
        return (radius < 1).astype(float), grid
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    brain = ndimage.binary_dilation(parts == largest, iterations=1)
    closed = ndimage.binary_closing(np.pad(brain, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    return ndimage.gaussian_filter(closed.astype(float), 0.6), grid


def beyond_envelope(share: FloatArray, grid: Grid) -> FloatArray:
    """Of every voxel the distance from the smooth outline of a brain mask, mm; negative inside."""
    from scipy import ndimage

    wide = (5.0 / grid.spacing).tolist()
    hull = ndimage.gaussian_filter(share, wide) > 0.4
    hull |= share > 0.5
    outside = ndimage.distance_transform_edt(~hull, sampling=grid.spacing.tolist())
    inside = ndimage.distance_transform_edt(hull, sampling=grid.spacing.tolist())
    distance: FloatArray = ndimage.gaussian_filter(outside - inside, (2.0 / grid.spacing).tolist())
    return distance
