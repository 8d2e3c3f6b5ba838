"""What abnormal anatomy is made of: smooth maps, irregular bodies and curves, all analytic.

TorchIO has none of these. A `Change` is called with a TorchIO image like its transforms, and says
where points go itself. Everything is in mm in the image's world, whose origin is the middle of the
image (`augment.centred_image`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.float32]

_KNOT_MM = 6.0
_STILL_MM = 1e-3
_SLAB = 16


class Change(ABC):
    """Something that is done to an image, and to the points in it."""

    def __call__(self, image: Any) -> Any:
        """The changed image, a TorchIO image as was given."""
        import torch

        grid = Grid(image.spatial_shape, image.affine)
        data = np.ascontiguousarray(image.data[0].numpy(), np.float32)
        changed = self.change(Volume(data, grid))
        return type(image)(tensor=torch.from_numpy(changed)[None], affine=image.affine)

    @abstractmethod
    def change(self, volume: Volume) -> Image:
        """The changed grey values, on the same grid."""

    def backward(self, grid: Grid) -> Callable[[FloatArray], FloatArray] | None:
        """The map from the new image to the old one, (n, 3) to (n, 3) mm; None moves nothing."""
        return None

    def gone(self, points: FloatArray) -> Mask:
        """(n,) which points of the new image lie where their tissue is no more."""
        return np.zeros(len(points), dtype=bool)


class Warp:
    """A displacement field of cubic B-splines on a lattice along the voxel axes.

    The image and the points go through the very same map: both sum up the same few coefficients.

    Args:
        grid: Of the image.
        displacement: (n, 3) positions to (n, 3) mm, from the new image to the old one; sampled
            every `_KNOT_MM`, so it should not vary within less.
    """

    def __init__(self, grid: Grid, displacement: Callable[[FloatArray], FloatArray]) -> None:
        self._grid = grid
        self._step = _KNOT_MM / grid.spacing
        counts = np.ceil((np.array(grid.shape) - 1) / self._step).astype(int) + 4
        knots = (np.moveaxis(np.indices(counts.tolist()), 0, -1).reshape(-1, 3) - 1) * self._step
        self._knots = displacement(grid.ijk_to_ras(knots)).reshape(*counts, 3)

    def __call__(self, points: FloatArray) -> FloatArray:
        """Positions in the old image of (n, 3) positions in the new one; NaN rows stay NaN."""
        moved = np.array(points, dtype=np.float64)
        known = np.isfinite(moved).all(axis=1)
        places = self._grid.ras_to_ijk(moved[known]) / self._step + 1
        # Beyond the lattice the last displacement goes on, so that Newton's method can come back.
        places = np.clip(places, 1, np.array(self._knots.shape[:3]) - 2 - 1e-9)
        first = np.floor(places).astype(int) - 1
        weights = _cubic(places - np.floor(places))
        i, j, k = (first[:, axis, None] + np.arange(4) for axis in range(3))
        near = self._knots[i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]]
        share = np.moveaxis(weights, 1, 0)
        moved[known] += np.einsum("nabcd,na,nb,nc->nd", near, *share, optimize=True)
        return moved

    def resampled(self, data: Image) -> Image:
        """The image seen through the map, linearly interpolated; untouched where nothing moves."""
        from scipy.ndimage import map_coordinates

        along = [_basis(n, step) for n, step in zip(data.shape, self._step, strict=True)]
        to_voxels = np.linalg.inv(self._grid.affine[:3, :3])
        knots = self._knots @ to_voxels.T
        # (J, K, a, 3) once, then slab by slab along the first axis.
        plane = np.einsum("abcd,jb,kc->jkad", knots, along[1], along[2], optimize=True)
        result = data.copy()
        across = np.indices(data.shape[1:], dtype=np.float32)
        for start in range(0, data.shape[0], _SLAB):
            rows = along[0][start : start + _SLAB]
            shift = np.einsum("jkad,ia->dijk", plane, rows, optimize=True).astype(np.float32)
            if np.abs(shift).max() < _STILL_MM:
                continue
            i = np.arange(start, start + len(rows), dtype=np.float32)[:, None, None]
            where = [i + shift[0], across[0] + shift[1], across[1] + shift[2]]
            result[start : start + len(rows)] = map_coordinates(
                data, where, order=1, mode="nearest"
            )
        return result


def _cubic(t: FloatArray) -> FloatArray:
    """(..., 4) weights of the four nearest knots at t, 0 to 1, past the second."""
    s = 1 - t
    weights = (s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3)
    return np.stack(weights, axis=-1) / 6


def _basis(count: int, step: float) -> FloatArray:
    """(count, knots) weights of every knot at every voxel along one axis."""
    knots = int(np.ceil((count - 1) / step)) + 4
    places = np.arange(count) / step + 1
    places = np.clip(places, 1, knots - 2 - 1e-9)
    first = np.floor(places).astype(int) - 1
    result = np.zeros((count, knots))
    for offset, share in enumerate(_cubic(places - np.floor(places)).T):
        result[np.arange(count), first + offset] = share
    return result


@dataclass(frozen=True)
class Body:
    """A smooth irregular body round a centre: a sphere with waves.

    Args:
        centre: mm.
        radius: mm.
        waves: (n, 5) rows of a direction (3), a phase and a height, as a share of the radius.
        stretch: Lengths along the axes, as multiples of the radius.
    """

    centre: tuple[float, float, float]
    radius: float
    waves: tuple[tuple[float, ...], ...] = ()
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def random(
        cls, rng: np.random.Generator, centre: FloatArray, radius: float, roughness: float
    ) -> Body:
        """A body with eight waves of random directions."""
        rows = []
        for _ in range(8):
            direction = rng.normal(size=3)
            direction *= rng.uniform(1.5, 4.5) / np.linalg.norm(direction)
            rows.append((*direction, rng.uniform(0, 2 * np.pi), roughness * rng.uniform(0, 1) / 2))
        waves = tuple(tuple(float(round(v, 4)) for v in row) for row in rows)
        x, y, z = (float(round(v, 3)) for v in centre)
        a, b, c = (float(round(v, 3)) for v in np.exp(rng.uniform(-0.2, 0.2, 3)))
        return cls((x, y, z), float(round(radius, 3)), waves, (a, b, c))

    def depth(self, points: FloatArray) -> FloatArray:
        """(n,) mm below the surface along the ray from the centre; negative outside."""
        relative = (points - np.array(self.centre)) / np.array(self.stretch)
        distance = np.linalg.norm(relative, axis=-1)
        direction = relative / np.maximum(distance, 1e-6)[..., None]
        reach = np.full(distance.shape, 1.0)
        for *wave, phase, height in self.waves:
            reach += height * np.sin(direction @ np.array(wave) + phase)
        depth: FloatArray = self.radius * reach - distance
        return depth

    def box(self, grid: Grid, margin: float = 0.0) -> tuple[slice, slice, slice]:
        """The voxels that the body can reach."""
        most = 1 + sum(abs(wave[-1]) for wave in self.waves)
        reach = self.radius * most * max(self.stretch) + margin
        return box(grid, np.array([self.centre]), reach)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "centre": list(self.centre), "radius": self.radius,
            "waves": [list(wave) for wave in self.waves], "stretch": list(self.stretch),
        }  # fmt: skip

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Body:
        """Read plain values."""
        waves = tuple(tuple(wave) for wave in values["waves"])
        x, y, z = values["centre"]
        a, b, c = values["stretch"]
        return cls((x, y, z), values["radius"], waves, (a, b, c))


def box(grid: Grid, points: FloatArray, margin: float) -> tuple[slice, slice, slice]:
    """The voxels within a margin, mm, of the bounding box of points."""
    ijk = grid.ras_to_ijk(points)
    reach = margin / grid.spacing
    low = np.clip(np.floor(ijk.min(0) - reach), 0, grid.shape).astype(int)
    high = np.clip(np.ceil(ijk.max(0) + reach) + 1, 0, grid.shape).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def positions(grid: Grid, part: Sequence[slice]) -> FloatArray:
    """(I, J, K, 3) mm of the voxels of a box."""
    axes = [np.arange(s.start, s.stop) for s in part]
    ijk = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid.ijk_to_ras(ijk)


def ramp(depth: FloatArray, width: float) -> FloatArray:
    """0 outside, 1 inside, smooth over a width in mm about the surface."""
    t = np.clip(depth / width + 0.5, 0, 1)
    result: FloatArray = t * t * (3 - 2 * t)
    return result


def blend(data: Image, part: Sequence[slice], share: FloatArray, value: Any) -> None:
    """Mix a value into a box of an image, in place."""
    window = data[tuple(part)]
    window += (share * (value - window)).astype(np.float32)
