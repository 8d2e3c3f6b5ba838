"""Globes of the eyes, fitted to the image itself: dark vitreous inside brighter fat.

No network and no segmentation: from a guess of an eye's centre, rays go out in all directions, the
wall is found on each, and an ellipsoid that is nearly a ball is laid through the walls. The lids,
the lens and the optic nerve put some rays off; a robust loss leaves them out. Where there is no
such ball, as in a defaced head, there is no globe.

>>> globe = fit_globe(read_image("head.nii.gz"), [-31, 56, -22], np.eye(3))
>>> eye_points(globe, "L")["EYE_A_L"]
array([-31.2,  68.1, -22.4])
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from BrainLandmarksLib.annotation.anatomy import ANTERIOR, lateral
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.grid import cube
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume

RADIUS_MM = 12.0
"""Mean radius of an adult's globe; it varies by about a millimetre."""

REACH_MM = 16.0
"""How far the guess may be from the centre of the globe."""

# How the ellipsoid is tied to a ball of usual size, and how exact the wall of a single ray is.
_RADIUS_SD_MM, _SHAPE_SD_MM, _WALL_SD_MM = 1.0, 0.6, 0.7
_INDEPENDENT = 60.0
"""Walls that add evidence: neighbouring rays see the same voxels."""

_COARSE_MM, _FINE_MM = 2.0, 1.0
_RAYS = 320
_ROUNDS = 12
_NEAR_MM, _FAR_MM, _BEYOND_MM = 8.0, 16.0, 4.0
_RAY_STEP_MM = 0.5
_LID_COSINE = 0.80

# What a globe must be like to be believed.
_CONTRAST = (0.25, 0.96)  # the inside of a sinus is blacker than vitreous
_SPREAD = {1.0: 0.8, -1.0: 0.4}  # fat is bright, too, but patchy
_WALL_SHARE = 0.45
_WALL_MM = 1.2
_RADII_MM = (9.5, 15.0)
_APART_MM = (48.0, 80.0)

POINTS = ("A", "P", "M", "LAT")
"""Names of the four points of a globe: their labels are EYE_<name>_<side>."""


@dataclass(frozen=True)
class Globe:
    """One eye: an ellipsoid along the axes of the head.

    Args:
        centre: RAS mm, (3,).
        radii: Half axes to the right, forward and up, mm, (3,).
        axes: (3, 3) columns are the head's right, anterior and superior directions in RAS.
        contrast: How much brighter its surroundings are than its inside, as a share of the brighter
            of the two; negative where the inside is the brighter, as on T2.
        share: Share of the rays whose wall lies on the ellipsoid.
    """

    centre: FloatArray
    radii: FloatArray
    axes: FloatArray
    contrast: float
    share: float


def fit_globe(
    volume: Volume, guess: npt.ArrayLike, axes: npt.ArrayLike, *, reach_mm: float = REACH_MM
) -> Globe | None:
    """The globe near a guess, or None where the image shows none.

    Args:
        volume: T1-weighted image with air near 0 (`intensity.subtract_background`); on another
            contrast a globe is found if it is darker, or brighter, than what surrounds it.
        guess: RAS mm, (3,).
        axes: (3, 3) columns are the head's right, anterior and superior directions in RAS.
        reach_mm: How far the guess may be from the centre.
    """
    start, frame = np.asarray(guess, float), np.asarray(axes, float)
    if not volume.grid.contains(start):
        return None
    coarse = _Box.of(volume, start, frame, reach_mm + RADIUS_MM + 6.0, _COARSE_MM)
    if coarse is None:
        return None
    for sign in (1.0, -1.0):
        middle = start + frame @ _start(coarse, sign, reach_mm)
        fine = _Box.of(volume, middle, frame, _FAR_MM + _BEYOND_MM, _FINE_MM)
        fitted = None if fine is None else _fitted(fine, sign)
        if fitted is not None:
            offset, radii, contrast, share = fitted
            return Globe(middle + frame @ offset, radii, frame, contrast, share)
    return None


def fit_globes(
    volume: Volume, guesses: Mapping[str, npt.ArrayLike], pose: npt.ArrayLike
) -> dict[str, Globe | None]:
    """The globes of a head; one that is found tells where to look again for the other.

    Args:
        volume: As for `fit_globe`.
        guesses: RAS mm, (3,), of the sides "L" and "R", or of one of them.
        pose: 4x4 from the upright head, whose middle plane is x = 0, to the image.

    Returns:
        A globe or None for each side of the guesses.
    """
    place = np.asarray(pose, float)
    axes = place[:3, :3] / np.linalg.norm(place[:3, :3], axis=0)
    globes = {side: fit_globe(volume, guess, axes) for side, guess in guesses.items()}
    for side, globe in globes.items():
        other = next((g for s, g in globes.items() if s != side), None)
        if globe is None and other is not None:
            mirrored = apply_affine(np.linalg.inv(place), other.centre) * [-1, 1, 1]
            again = apply_affine(place, mirrored)
            globes[side] = fit_globe(volume, again, axes, reach_mm=REACH_MM / 2)
    found = [globe for globe in globes.values() if globe is not None]
    if len(found) == 2:
        apart = float(np.linalg.norm(found[0].centre - found[1].centre))
        if not _APART_MM[0] <= apart <= _APART_MM[1]:
            uncertain = min(globes, key=lambda side: getattr(globes[side], "share", 0.0))
            globes[uncertain] = None
    return globes


def eye_points(globe: Globe, side: str) -> dict[str, FloatArray]:
    """The four points of a side's globe by rule (:mod:`.eye`), label -> RAS mm, (3,)."""
    out = lateral(side)
    directions = {"A": ANTERIOR, "P": -ANTERIOR, "M": -out, "LAT": out}
    return {
        f"EYE_{name}_{side}": globe.centre + globe.axes @ (globe.radii * direction)
        for name, direction in directions.items()
    }


@dataclass(frozen=True)
class _Box:
    """The surroundings of an eye in cubic voxels along the head's axes; about 1 is bright."""

    values: npt.NDArray[np.float32]
    voxel_mm: float

    @classmethod
    def of(
        cls, volume: Volume, centre: FloatArray, axes: FloatArray, half_mm: float, voxel_mm: float
    ) -> _Box | None:
        """None where there is nothing but air."""
        size = 2 * int(np.ceil(half_mm / voxel_mm)) + 1
        values = resample(volume, cube(centre, size * voxel_mm, size, axes))
        top = float(np.percentile(values, 95))
        return None if top <= 0 else cls(np.clip(values / top, 0, 1.2), voxel_mm)

    def at(self, points: FloatArray) -> FloatArray:
        """Values at points (..., 3), mm from the middle along the head's axes."""
        ijk = points / self.voxel_mm + (self.values.shape[0] - 1) / 2
        values = ndimage.map_coordinates(self.values, np.moveaxis(ijk, -1, 0), order=1)
        return np.asarray(values, dtype=np.float64)


@functools.cache
def _directions() -> FloatArray:
    """Unit vectors spread evenly over the sphere, (n, 3): a Fibonacci lattice."""
    number = np.arange(_RAYS) + 0.5
    height = 1 - 2 * number / _RAYS
    turn = np.pi * (1 + 5**0.5) * number
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), height], -1)


@functools.cache
def _templates() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights that sum to one in a globe, and in the shell behind and beside it; coarse voxels."""
    half = int(np.ceil((RADIUS_MM + 4) / _COARSE_MM))
    axis = np.arange(-half, half + 1) * _COARSE_MM
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    inside = (distance < RADIUS_MM - 2).astype(np.float32)
    shell = (distance > RADIUS_MM + 0.5) & (distance < RADIUS_MM + 4)
    outside = (shell & (y < 0.5 * distance)).astype(np.float32)  # in front are the lids and air
    return inside / inside.sum(), outside / outside.sum()


def _start(box: _Box, sign: float, reach_mm: float) -> FloatArray:
    """Where a dark ball in a bright shell fits best, mm from the guess, (3,)."""
    inside, outside = _templates()
    values = box.values
    dark = signal.fftconvolve(values, inside, mode="same")
    deviation = signal.fftconvolve(values**2, inside, mode="same") - dark**2
    bright = signal.fftconvolve(values, outside, mode="same")
    score = sign * (bright - dark) - np.sqrt(np.clip(deviation, 0, None))
    axis = (np.arange(values.shape[0]) - (values.shape[0] - 1) / 2) * box.voxel_mm
    far = np.sqrt(sum(np.square(np.meshgrid(axis, axis, axis, indexing="ij"))))
    # A little dearer the farther away: sinuses are dark balls, too.
    score = np.where(far <= reach_mm, score - 0.1 * (far / REACH_MM) ** 2, -np.inf)
    best = np.unravel_index(int(np.argmax(score)), score.shape)
    return axis[list(best)]


def _fitted(box: _Box, sign: float) -> tuple[FloatArray, FloatArray, float, float] | None:
    """Centre (mm from the box's), radii, contrast and share of good rays; None without a globe."""
    centre, radii = np.zeros(3), np.full(3, RADIUS_MM)
    for _ in range(_ROUNDS):
        walls, trust = _walls(box, sign, centre, radii)
        move, growth = _step(radii, walls, trust)
        centre, radii = centre + move, radii + growth
        if np.linalg.norm(centre) > 2 * _BEYOND_MM or radii.min() < _RADII_MM[0] - 2:
            return None
        if np.linalg.norm(move) + np.linalg.norm(growth) < 0.01:
            break
    walls, trust = _walls(box, sign, centre, radii)
    share = float(((trust > 0) & (np.abs(walls - _surface(radii)) < _WALL_MM)).mean())
    inside, outside, spread = _levels(box, centre, radii)
    contrast = (outside - inside) / max(outside, inside, 1e-6)
    even = spread <= _SPREAD[sign] * abs(outside - inside)
    believed = even and share >= _WALL_SHARE and _CONTRAST[0] <= sign * contrast <= _CONTRAST[1]
    usual = _RADII_MM[0] <= radii.min() and radii.max() <= _RADII_MM[1]
    return (centre, radii, contrast, share) if believed and usual else None


def _levels(box: _Box, centre: FloatArray, radii: FloatArray) -> tuple[float, float, float]:
    """Typical brightness inside a globe, and behind and beside it, and how patchy the inside is.

    The lens lies farther out than the inside that is looked at.
    """
    rays = _directions()
    within = np.concatenate([share * rays * radii for share in (0.3, 0.5, 0.65)])
    behind = rays[rays[:, 1] < 0.3]
    around = np.concatenate([behind * (radii + more) for more in (1.5, 2.5, 3.5)])
    low, inside, high = np.quantile(box.at(centre + within), [0.1, 0.5, 0.9])
    return float(inside), float(np.median(box.at(centre + around))), float(high - low)


def _walls(
    box: _Box, sign: float, centre: FloatArray, radii: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Distance of the wall along each ray, (n,) mm, and how far to trust it, 0 to 1.

    The wall is where the brightness is half way from the vitreous to what lies beyond: of such
    places the one next to the surface as it is known.
    """
    rays, expected = _directions(), _surface(radii)
    steps = np.arange(_NEAR_MM, _FAR_MM + _BEYOND_MM, _RAY_STEP_MM)
    inside, outside, _ = _levels(box, centre, radii)
    usual = max(sign * (outside - inside), 1e-3)
    rise = sign * (box.at(centre + rays[:, None] * steps[:, None]) - inside) / usual
    beyond = np.abs(steps - expected[:, None] - 1.25) < 2.75
    plateau = np.where(beyond, rise, 0).max(1)
    half = np.clip(plateau, 0.35, 1.5)[:, None] / 2
    crossing = (rise[:, :-1] < half) & (rise[:, 1:] >= half) & (steps[:-1] <= _FAR_MM)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip((half - rise[:, :-1]) / (rise[:, 1:] - rise[:, :-1]), 0, 1)
    at = steps[:-1] + _RAY_STEP_MM * part
    gap = np.where(crossing, np.abs(at - expected[:, None]), np.inf)
    chosen = gap.argmin(1)
    found = np.isfinite(gap.min(1)) & (plateau >= 0.35)
    trust = np.where(found, np.clip(1.5 * plateau, 0.5, 1.0), 0.0)
    # Straight ahead are the lens, the cornea and the lids.
    trust[rays[:, 1] > _LID_COSINE] *= 0.3
    return np.where(found, at[np.arange(len(rays)), chosen], expected), trust


def _surface(radii: FloatArray) -> FloatArray:
    """Distance of the ellipsoid from its centre along each ray, (n,) mm."""
    return np.asarray(1 / np.linalg.norm(_directions() / radii, axis=1))


def _step(radii: FloatArray, walls: FloatArray, trust: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How centre and radii move towards the walls: one round of robust least squares."""
    rays = _directions()
    gap = walls - _surface(radii)
    # Cauchy weights: walls far off are those of lids, nerve and muscle.
    weight = trust / (1 + (gap / _WALL_SD_MM) ** 2)
    weight *= _INDEPENDENT / _WALL_SD_MM**2 / len(rays)
    # Nearly a ball: moving it by d moves its surface along a ray by ray . d, and growing a half
    # axis does so by the square of the ray's component.
    slope = np.concatenate([rays, rays**2], 1)
    normal = (slope * weight[:, None]).T @ slope
    target = (slope * weight[:, None]).T @ gap
    mean, shape = np.full((3, 3), 1 / 3), np.eye(3) - 1 / 3
    normal[3:, 3:] += mean / 3 / _RADIUS_SD_MM**2 + shape / _SHAPE_SD_MM**2
    target[3:] += (RADIUS_MM - radii.mean()) / 3 / _RADIUS_SD_MM**2
    target[3:] -= shape @ radii / _SHAPE_SD_MM**2
    normal[:3, :3] += 1e-6 * np.eye(3)
    moved = np.linalg.solve(normal, target)
    return moved[:3], moved[3:]
