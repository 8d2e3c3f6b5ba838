"""Which anatomy an image does not show: cut away, stripped, defaced, or outside it.

A network gives a point for every landmark, also where public scans have lost the face. A point is
taken for absent

* outside the voxels of the image;
* where there is no tissue: next to none within 10 mm, or all voxels within 6 mm are equally black,
  as programs leave it that cut something away;
* on an eye of which no globe can be fitted to the image and whose surroundings are mostly air, or
  are filled with one value;
* on a globe that can be fitted but is cut, where no tissue is left at the point itself.

The measures are shares of voxels, so noise in the air and dark bone, vitreous and sinuses do not
matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.annotation.eye_landmarks import Globes, eye_rows
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.foreground import foreground
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import Protocol

OUTSIDE = "outside the image"
NO_TISSUE = "no tissue here: cut away or defaced"
NO_EYE = "no eye here: cut away or defaced"

_VOXEL_MM = 2.0
_NEAR_MM, _NEAR_SHARE = 10.0, 0.03
_CONSTANT_MM = 6.0
_EYE_MM, _EYE_SHARE = 16.0, 0.6
_WALL_MM, _WALL_SHARE = 5.0, 0.05


def reasons(
    protocol: Protocol, head: Volume, points: FloatArray, globes: Globes | None = None
) -> list[str]:
    """Why each point is absent, K sentences without a full stop; "" for those that are there.

    Args:
        head: Image with air near 0 (`intensity.subtract_background`).
        points: (K, 3) RAS millimetres; NaN means outside the image.
        globes: Of `eye_landmarks.globes_of`.
    """
    known = np.asarray(np.isfinite(points).all(1))
    notes = ["" if seen else OUTSIDE for seen in known]
    if not known.any():
        return notes
    tissue = _Tissue.of(head)
    places = np.where(known[:, None], points, head.grid.center_ras)
    empty = tissue.share(places, _NEAR_MM) < _NEAR_SHARE
    constant = tissue.constant(places, _CONSTANT_MM)
    empty |= constant & (tissue.share(places, _CONSTANT_MM) == 0)
    cut = tissue.share(places, _WALL_MM) < _WALL_SHARE
    for row in np.flatnonzero(empty & known):
        notes[row] = NO_TISSUE
    for side, rows in eye_rows(protocol).items():
        if globes is None or side not in globes:
            continue
        if globes[side] is not None:
            for row in rows[cut[rows]]:
                notes[row] = NO_TISSUE
        else:
            around = tissue.share(places[rows].mean(0, keepdims=True), _EYE_MM)[0]
            if around < _EYE_SHARE or (constant | empty)[rows].any():
                for row in rows:
                    notes[row] = NO_EYE
    return notes


@dataclass(frozen=True)
class _Tissue:
    """Every few millimetres of a head: its brightness, and whether that is tissue."""

    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    grid: Grid

    @classmethod
    def of(cls, head: Volume) -> _Tissue:
        thin = head.downsampled(_VOXEL_MM)
        values = np.ascontiguousarray(thin.data)
        return cls(values, foreground(Volume(values, thin.grid)), thin.grid)

    def share(self, points: FloatArray, radius_mm: float) -> FloatArray:
        """How much of a ball round each point is tissue, (n,); outside the image nothing is."""
        index, inside = self._ball(points, radius_mm)
        return np.asarray((self.mask[index] & inside).mean(1))

    def constant(self, points: FloatArray, radius_mm: float) -> npt.NDArray[np.bool_]:
        """Where all voxels of a ball round a point have one value, (n,)."""
        index, inside = self._ball(points, radius_mm)
        values = self.values[index]
        first = values[:, :1]
        return np.asarray(((values == first) | ~inside).all(1))

    def _ball(
        self, points: FloatArray, radius_mm: float
    ) -> tuple[tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.bool_]]:
        """Indices of the voxels of a ball round each point, each (n, m), and which exist."""
        axis = np.arange(-radius_mm, radius_mm + 0.1, _VOXEL_MM)
        offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        offsets = offsets[np.linalg.norm(offsets, axis=1) <= radius_mm]
        ijk = np.rint(self.grid.ras_to_ijk(points[:, None] + offsets)).astype(np.intp)
        last = np.array(self.grid.shape) - 1
        inside = np.asarray(((ijk >= 0) & (ijk <= last)).all(-1))
        return tuple(np.moveaxis(np.clip(ijk, 0, last), -1, 0)), inside
