"""One head's landmarks brought onto another's: rigidly, with scales, or by a smooth map of space.

>>> found = register(moving, fixed, "affine", calibrated, calibrated)
>>> found.carried(moving.points)        # (K, 3) RAS mm, in the fixed head's space
>>> found.target_errors                 # (K,) mm, of the transform where the landmarks are
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import (
    FREEDOMS,
    RobustFit,
    linear_fit,
    rigid_fit,
    robust_fit,
)
from BrainLandmarksLib.geometry.fit_error import residual_covariance, target_error
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.thin_plate import ThinPlate
from BrainLandmarksLib.network.landmark_errors import ExpectedErrors, LandmarkErrors
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration.expected_error import expected_errors

THIN_PLATE = "thin-plate"
KINDS = (*FREEDOMS, THIN_PLATE)
"""Kinds of transforms, from the stiffest to the most flexible."""

FEWEST = {"rigid": 4, "similarity": 4, "affine": 6, THIN_PLATE: 6}
"""Landmarks that both heads must have: a few more than fix the transform, so that one can be
wrong."""

FIELD_MM, MARGIN_MM = 4.0, 40.0
"""Distance of the places where a map of space is sampled, and how far beyond the landmarks."""

EXCHANGED = 0.5
"""Left and right are exchanged if that makes heads fit this many times as far apart."""


@dataclass(frozen=True)
class Registration:
    """How one head lies on another.

    Args:
        kind: One of `KINDS`.
        protocol: The landmarks.
        affine: 4x4, moving to fixed, RAS; of a thin-plate spline the affine that comes nearest.
        plate: From the fixed to the moving space, RAS; None for a linear transform.
        moving, fixed: (K, 3) the landmarks, RAS mm, NaN where missing.
        sigma: (K,) expected error of the two together along each axis, mm.
        used: (K,) which landmarks had a say: both heads have them, and they are not wrong.
        left_out_mm: (K,) how far the fixed landmark lies from where the transform without it
            carries the moving one; NaN where one of them is missing.
        target_errors: (K,) root mean square error of the transform at the fixed landmarks, mm.
        scale: By which factor landmarks are farther apart than expected errors say.
        errors_from: Where the expected errors come from, of the moving and of the fixed head.
    """

    kind: str
    protocol: Protocol
    affine: FloatArray
    plate: ThinPlate | None
    moving: FloatArray
    fixed: FloatArray
    sigma: FloatArray
    used: npt.NDArray[np.bool_]
    left_out_mm: FloatArray
    target_errors: FloatArray
    scale: float
    errors_from: tuple[str, str]

    def carried(self, points: npt.ArrayLike) -> FloatArray:
        """Points (..., 3) of the moving head in the fixed one's space, RAS mm."""
        if self.plate is not None:
            return self.plate.inverse(points)
        return apply_affine(self.affine, points)

    def back(self, points: npt.ArrayLike) -> FloatArray:
        """Points (..., 3) of the fixed head in the moving one's space, RAS mm."""
        if self.plate is not None:
            return self.plate(points)
        return apply_affine(np.linalg.inv(self.affine), points)

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """(K,) which landmarks both heads have."""
        return np.asarray(np.isfinite(self.moving).all(1) & np.isfinite(self.fixed).all(1))

    @property
    def distances(self) -> FloatArray:
        """(K,) mm between fixed landmarks and carried moving ones."""
        return np.linalg.norm(self.fixed - self.carried(self.moving), axis=1)

    @property
    def turn_degrees(self) -> float:
        """By which angle the heads are turned against each other."""
        turn = rigid_fit(self.moving, self.carried(self.moving))[:3, :3]
        return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def register(
    moving: LandmarkSet,
    fixed: LandmarkSet,
    kind: str = "rigid",
    moving_errors: LandmarkErrors | None = None,
    fixed_errors: LandmarkErrors | None = None,
    *,
    smoothing: float | None = None,
) -> Registration:
    """Bring one head's landmarks onto another's.

    Args:
        kind: One of `KINDS`.
        moving_errors, fixed_errors: Of the models that found them; None if unknown.
        smoothing: Of a thin-plate spline; 0 goes through the landmarks, None chooses by itself.

    Raises:
        UserError: they are of different protocols, have too few landmarks in common, or left and
            right are exchanged in one of them.
    """
    need_alike(moving, fixed, FEWEST[kind], f"{kind} registration")
    expected = expected_errors(moving, moving_errors), expected_errors(fixed, fixed_errors)
    try:
        if kind == THIN_PLATE:
            return _by_plate(moving, fixed, *expected, smoothing)
        return _linear(kind, moving, fixed, *expected)
    except ValueError as error:
        raise UserError(
            f"the landmarks that both heads have fix no {kind} transform: they lie on one line or "
            "in one plane; choose a stiffer kind, or place more of them."
        ) from error


def field_grid(fixed: FloatArray, image: Grid | None = None) -> Grid:
    """Where a map of space is sampled: over an image, or some way round landmarks.

    Args:
        fixed: (K, 3) landmarks of the fixed head, RAS mm.
        image: The voxels of its image; None if there is none.
    """
    if image is not None:
        factors = np.maximum(FIELD_MM / image.spacing, 1.0)
        # One voxel more than fits, so that the field covers the image.
        shape = np.ceil((np.array(image.shape) - 1) / factors).astype(int) + 1
        return image.coarser(factors, shape)
    there = fixed[np.isfinite(fixed).all(axis=1)]
    low, high = there.min(axis=0) - MARGIN_MM, there.max(axis=0) + MARGIN_MM
    affine = np.diag([FIELD_MM] * 3 + [1.0])
    affine[:3, 3] = low
    i, j, k = (int(n) for n in np.ceil((high - low) / FIELD_MM) + 1)
    return Grid((i, j, k), affine)


def together(first: ExpectedErrors, second: ExpectedErrors) -> FloatArray:
    """(K,) expected error of the difference of two heads' landmarks along each axis, mm."""
    return np.hypot(first.sigma, second.sigma)


def need_alike(moving: LandmarkSet, fixed: LandmarkSet, fewest: int, what: str) -> None:
    """Check that two heads can be brought onto each other.

    Raises:
        UserError: as `register`.
    """
    if moving.protocol.hash != fixed.protocol.hash:
        raise UserError(
            f"one head has the landmarks of {moving.protocol.name}, the other those of "
            f"{fixed.protocol.name}; give two of the same protocol."
        )
    common = ~moving.missing & ~fixed.missing
    if common.sum() < fewest:
        raise UserError(
            f"the two heads have {common.sum()} landmarks in common, and {what} needs {fewest}; "
            "place more of them."
        )
    mirror = moving.protocol.mirror_permutation()
    if _apart(moving.points[mirror], fixed.points) < EXCHANGED * _apart(
        moving.points, fixed.points
    ):
        raise UserError(
            "left and right are exchanged in one of the two heads: they fit only as mirror images; "
            "check how the sides were named, and the header of the image."
        )


def _apart(moving: FloatArray, fixed: FloatArray) -> float:
    """Usual distance of landmarks after a rigid fit, mm; infinite where there is no fit."""
    try:
        carried = apply_affine(rigid_fit(moving, fixed), moving)
    except ValueError:
        return float("inf")
    return float(np.nanmedian(np.linalg.norm(fixed - carried, axis=1)))


def _linear(
    kind: str,
    moving: LandmarkSet,
    fixed: LandmarkSet,
    first: ExpectedErrors,
    second: ExpectedErrors,
) -> Registration:
    sigma = together(first, second)
    fit = robust_fit(moving.points, fixed.points, sigma, kind)
    scale, covariance = measured_errors(kind, fit, moving.points, first, second)
    rows = np.flatnonzero(fit.used)
    carried = apply_affine(fit.affine, moving.points)
    errors = np.full(len(sigma), np.nan)
    seen = np.isfinite(fixed.points).all(axis=1)
    errors[seen] = target_error(
        kind, carried[rows], fit.weights[rows], covariance, fixed.points[seen]
    )
    return Registration(
        kind, moving.protocol, fit.affine, None, moving.points, fixed.points, sigma, fit.used,
        _left_out(kind, moving.points, fixed.points, fit), errors, scale,
        (first.source, second.source),
    )  # fmt: skip


def joint_covariance(
    first: ExpectedErrors, second: ExpectedErrors, affine: FloatArray
) -> FloatArray:
    """(3 K, 3 K) mm^2 of the difference of two heads' landmarks, in the second one's space.

    Args:
        affine: 4x4, from the first to the second.
    """
    turn = np.kron(np.eye(len(first.sigma)), affine[:3, :3])
    return np.asarray(turn @ first.covariance @ turn.T + second.covariance)


def measured_errors(
    kind: str, fit: RobustFit, moving: FloatArray, first: ExpectedErrors, second: ExpectedErrors
) -> tuple[float, FloatArray]:
    """By which factor errors are larger than expected, and their covariance for the used points.

    What errors have in common is lost in the fit, so that what it leaves says how large they are
    only together with how they go together.
    """
    rows = np.flatnonzero(fit.used)
    triples = (3 * rows[:, None] + np.arange(3)).ravel()
    expected = joint_covariance(first, second, fit.affine)[np.ix_(triples, triples)]
    carried = apply_affine(fit.affine, moving[rows])
    weights = fit.weights[rows]
    left = np.diag(residual_covariance(kind, carried, weights, expected)).reshape(-1, 3).sum(1)
    found = (fit.residuals[rows] ** 2).sum(axis=1)
    total = float(weights @ left)
    scale = float(np.sqrt(weights @ found / total)) if total > 0 else 1.0
    return scale, scale**2 * expected


def _left_out(kind: str, moving: FloatArray, fixed: FloatArray, fit: RobustFit) -> FloatArray:
    """Distances after a fit without each landmark, (K,) mm; NaN where it is missing."""
    result = np.linalg.norm(fit.residuals, axis=1)
    for row in np.flatnonzero(fit.weights > 0):
        weights = fit.weights.copy()
        weights[row] = 0.0
        try:
            affine = linear_fit(kind, moving, fixed, weights)
        except ValueError:  # nothing is left that fixes it
            result[row] = np.nan
            continue
        result[row] = float(np.linalg.norm(fixed[row] - apply_affine(affine, moving[row])))
    return result


def _by_plate(
    moving: LandmarkSet,
    fixed: LandmarkSet,
    first: ExpectedErrors,
    second: ExpectedErrors,
    smoothing: float | None,
) -> Registration:
    sigma = together(first, second)
    plate = ThinPlate.fit(fixed.points, moving.points, sigma, smoothing)
    rough = robust_fit(moving.points, fixed.points, sigma, "affine")
    left_out = np.full(len(sigma), np.nan)
    # Left out distances are in the moving head; the affine brings them to the fixed one's size.
    size = float(np.cbrt(abs(np.linalg.det(rough.affine[:3, :3]))))
    left_out[plate.used] = size * plate.left_out_mm
    lost = ~plate.used & np.isfinite(moving.points).all(1) & np.isfinite(fixed.points).all(1)
    if lost.any():
        apart = plate(fixed.points[lost]) - moving.points[lost]
        left_out[lost] = size * np.linalg.norm(apart, axis=1)
    errors = np.full(len(sigma), np.nan)
    seen = np.isfinite(fixed.points).all(axis=1)
    errors[seen] = size * _plate_errors(plate, sigma[plate.used], fixed.points[seen])
    return Registration(
        THIN_PLATE, moving.protocol, rough.affine, plate, moving.points, fixed.points, sigma,
        plate.used, left_out, errors, rough.scale, (first.source, second.source),
    )  # fmt: skip


def _plate_errors(plate: ThinPlate, sigma: FloatArray, targets: FloatArray) -> FloatArray:
    """Root mean square change at targets, (m,) mm, when landmarks err as expected."""
    share = plate.influence(targets)
    return np.asarray(np.sqrt(3 * share**2 @ sigma**2))
