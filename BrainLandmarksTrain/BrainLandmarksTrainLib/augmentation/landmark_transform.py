"""Where points go when TorchIO transforms an image: exactly, not by looking at the result.

An image is resampled with a map from the new image to the old one: for every new voxel it says
where to look. A point travels the other way, from the old image to the new one, so it moves with
the inverse of that map. The map itself is asked from TorchIO's transform, never rebuilt here; it is
a SimpleITK transform and counts in LPS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray, lps_to_ras, ras_to_lps
from BrainLandmarksLib.geometry.grid import Grid

from .change import Change
from .transform import tio

if TYPE_CHECKING:
    import torchio

TOLERANCE_MM = 1e-3
"""A point that a B-spline moves is found to this; it is marked as lost otherwise."""

FOLD_LIMIT = 1 / 2.479472335
"""Displacements of control points below this share of their distance cannot fold space (Choi and
Lee, Graphical Models 62:411-427, 2000, three dimensions)."""

_STEPS = 50
_DIFFERENCE_MM = 1e-3
_FINER = 8
_NEARLY_FOLDED = 0.1
_GUESSES = 4


@dataclass(frozen=True)
class Moved:
    """Points after a transform.

    Args:
        points: (n, 3) RAS mm; NaN where the point has no single place in the new image.
        folded: (n,) True where the transform folds space at the point, so the new image shows it
            more than once or as in a mirror.
        gone: (n,) True where the point's tissue has been replaced; NaN in ``points``.
    """

    points: FloatArray
    folded: npt.NDArray[np.bool_]
    gone: npt.NDArray[np.bool_]


def moved_points(
    transform: torchio.Transform | Change, image: torchio.Image, points: npt.ArrayLike
) -> Moved:
    """Where points of an image lie after one of TorchIO's transforms.

    The affine map is inverted in closed form, the B-spline and the smooth maps of abnormal anatomy
    by Newton's method to `TOLERANCE_MM`; every other transform leaves anatomy where it is. A point
    whose tissue a `Change` replaces is lost.

    Args:
        transform: Without chance: `torchio.Affine`, not `torchio.RandomAffine`.
        image: The image before the transform.
        points: (n, 3) RAS mm in the image's world; NaN rows stay NaN.
    """
    start = np.array(points, dtype=np.float64)
    steady = np.zeros(len(start), dtype=bool)
    if isinstance(transform, tio().Affine):
        inverse = transform.get_affine_transform(image).GetInverse()
        return Moved(lps_to_ras(_mapper(inverse)(ras_to_lps(start))), steady, steady)
    if isinstance(transform, tio().ElasticDeformation):
        spline = transform.get_bspline_transform(image.as_sitk(force_3d=True))
        points_lps, folded = inverted_spline(spline, ras_to_lps(start))
        return Moved(lps_to_ras(points_lps), folded, steady)
    if isinstance(transform, Change):
        return _changed(transform, Grid(image.spatial_shape, image.affine), start)
    return Moved(start, steady, steady)


def _changed(change: Change, grid: Grid, start: FloatArray) -> Moved:
    backward = change.backward(grid)
    points, folded = start, np.zeros(len(start), dtype=bool)
    if backward is not None:
        points, determinants = _inverse(backward, start, start)
        known = np.isfinite(start).all(axis=1)
        folded = known & ~(determinants > 0)
        points[folded] = np.nan
    there = np.isfinite(points).all(axis=1)
    gone = np.zeros(len(start), dtype=bool)
    gone[there] = change.gone(points[there])
    return Moved(np.where(gone[:, None], np.nan, points), folded, gone)


def inverted_spline(spline: Any, targets: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The points that a B-spline transform carries onto the targets.

    Where the control points are so far displaced that space may fold, a lattice eight times finer
    than theirs shows where it is turned inside out, and the search starts there as well. A target
    with several answers always has one of that kind, because the transform is the identity far
    away and so of degree 1.

    Args:
        spline: `SimpleITK.BSplineTransform`, 3-D.
        targets: (n, 3) in the transform's own frame (LPS), mm; NaN rows stay NaN.

    Returns:
        (points, folded): (n, 3) with |spline(point) - target| below `TOLERANCE_MM`, NaN where there
        is no such point or more than one; (n,) which of them are folds.
    """
    forward = _mapper(spline)
    points, determinants = _inverse(forward, targets, targets)
    folded = np.asarray(determinants <= 0)
    if _fold_share(spline) > FOLD_LIMIT:
        for guess in _other_guesses(spline, targets):
            others, determinants = _inverse(forward, targets, guess)
            folded |= determinants <= 0
            missing = np.isnan(points).any(axis=1)
            points[missing] = others[missing]
    points[folded] = np.nan
    return points, folded


def _fold_share(spline: Any) -> float:
    """Largest displacement of a control point, as a share of their distance."""
    import SimpleITK as sitk

    images = spline.GetCoefficientImages()
    vectors = np.stack([sitk.GetArrayFromImage(image).ravel() for image in images], axis=1)
    axes = np.reshape(images[0].GetDirection(), (3, 3))
    return float((np.abs(vectors @ axes).max(axis=0) / images[0].GetSpacing()).max())


def _other_guesses(spline: Any, targets: FloatArray) -> Iterator[FloatArray]:
    """Where else to look: lattice points that are carried near the targets, and folded ones."""
    import SimpleITK as sitk
    from scipy.spatial import cKDTree

    size = _FINER * np.array(spline.GetTransformDomainMeshSize()) + 1
    spacing = np.array(spline.GetTransformDomainPhysicalDimensions()) / (size - 1)
    direction = spline.GetTransformDomainDirection()
    axes = np.reshape(direction, (3, 3)) * spacing
    field = sitk.TransformToDisplacementField(
        spline, sitk.sitkVectorFloat64, size.tolist(), spline.GetTransformDomainOrigin(),
        spacing.tolist(), direction,
    )  # fmt: skip
    lattice = (
        np.moveaxis(np.indices(size.tolist()), 0, -1) @ axes.T + spline.GetTransformDomainOrigin()
    )
    carried = lattice + sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3)
    # ITK's transform is the identity from the last layer of its domain on.
    inner = (slice(1, -1),) * 3
    gradient = np.stack(np.gradient(carried, axis=(0, 1, 2)), axis=-1)[inner]
    lattice, carried = lattice[inner].reshape(-1, 3), carried[inner].reshape(-1, 3)
    turned = (np.linalg.det(gradient) / np.linalg.det(axes)).ravel() < _NEARLY_FOLDED
    known = np.isfinite(targets).all(axis=1)
    for places, wanted in ((np.arange(len(lattice)), 1), (np.flatnonzero(turned), _GUESSES)):
        count = min(wanted, len(places))
        if count == 0 or not known.any():
            continue
        _, nearest = cKDTree(carried[places]).query(targets[known], k=np.arange(1, count + 1))
        for column in nearest.T:
            guess = np.array(targets)
            guess[known] = lattice[places[column]]
            yield guess


def _mapper(transform: Any) -> Callable[[FloatArray], FloatArray]:
    """A SimpleITK transform as a function of (n, 3) points; NaN rows stay NaN."""

    def mapped(points: FloatArray) -> FloatArray:
        result = np.full(points.shape, np.nan)
        for row in np.flatnonzero(np.isfinite(points).all(axis=1)):
            result[row] = transform.TransformPoint(points[row].tolist())
        return result

    return mapped


def _inverse(
    forward: Callable[[FloatArray], FloatArray], targets: FloatArray, guess: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Newton's method from a guess: (points, determinants of the Jacobian there).

    Convergence is judged by the last Newton step, which is the distance still to go; points that
    do not come within `TOLERANCE_MM` are NaN, and so is their determinant.
    """
    points = np.array(guess)
    missing = targets - forward(points)
    # Solved much closer than asked for: the rest is for the finite differences.
    for _ in range(_STEPS):
        step = _solved(_jacobian(forward, points), missing)
        going = np.linalg.norm(step, axis=1) > TOLERANCE_MM / 100
        if not going.any():
            break
        # Half the step, and half again, while it leads further away.
        share = np.where(going, 1.0, 0.0)
        for _ in range(6):
            trial = points + share[:, None] * np.nan_to_num(step)
            left = targets - forward(trial)
            worse = np.linalg.norm(left, axis=1) > np.linalg.norm(missing, axis=1)
            if not worse.any():
                break
            share[worse] /= 2
        points, missing = trial, left
    jacobian = _jacobian(forward, points)
    lost = ~(np.linalg.norm(_solved(jacobian, missing), axis=1) <= TOLERANCE_MM)
    lost |= ~(np.linalg.norm(missing, axis=1) <= TOLERANCE_MM)
    points[lost] = np.nan
    return points, np.where(lost, np.nan, _determinants(jacobian))


def _jacobian(forward: Callable[[FloatArray], FloatArray], points: FloatArray) -> FloatArray:
    """(n, 3, 3) central differences; column j is the derivative along axis j."""
    columns = [
        (forward(points + offset) - forward(points - offset)) / (2 * _DIFFERENCE_MM)
        for offset in _DIFFERENCE_MM * np.eye(3)
    ]
    return np.stack(columns, axis=-1)


def _determinants(jacobian: FloatArray) -> FloatArray:
    """(n,) determinants; NaN rows stay NaN."""
    result = np.full(len(jacobian), np.nan)
    known = np.isfinite(jacobian).all(axis=(1, 2))
    result[known] = np.linalg.det(jacobian[known])
    return result


def _solved(jacobian: FloatArray, right: FloatArray) -> FloatArray:
    """The Newton step, (n, 3); NaN where the Jacobian is singular."""
    result = np.full(right.shape, np.nan)
    regular = np.abs(_determinants(jacobian)) > 1e-9
    if regular.any():
        result[regular] = np.linalg.solve(jacobian[regular], right[regular][..., None])[..., 0]
    return result
