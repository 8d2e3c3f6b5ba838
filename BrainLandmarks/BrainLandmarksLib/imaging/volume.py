"""An image in memory: values on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.geometry.grid import Grid

ImageArray = npt.NDArray[np.float32]


@dataclass(eq=False)
class Volume:
    """One image of a head: float32 voxel values and the grid they lie on.

    >>> volume = read_image("head.nii.gz")
    >>> cube = geometry.cube(volume.grid.center_ras, field_of_view_mm=208, size=64)
    >>> resample(volume, cube).shape
    (64, 64, 64)

    Args:
        data: Values, (I, J, K).
        grid: Where they lie.
        notes: What of the file was uncertain, as clauses for the user, without a full stop.
        stored: The same voxels as the file counts them; None if they are as here.
        assumed: Directions of the file's voxel axes, such as "RAS", that were assumed because the
            file states none; None if it does.
    """

    data: ImageArray
    grid: Grid
    notes: tuple[str, ...] = ()
    stored: Grid | None = None
    assumed: str | None = None

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise ValueError(f"data of shape {self.data.shape} on a grid of {self.grid.shape}")

    @property
    def file_grid(self) -> Grid:
        """The voxels in the file's order of axes, for what is laid over the image in a file."""
        return self.grid if self.stored is None else self.stored

    def downsampled(self, voxel_mm: float) -> Volume:
        """Single voxels (a view), about so far apart; all along axes with coarser ones.

        Unlike means, as `resample` makes them, single voxels keep what is constant constant.
        """
        step = np.maximum(1, np.round(voxel_mm / self.grid.spacing)).astype(int)
        data = self.data[:: step[0], :: step[1], :: step[2]]
        return Volume(data, self.grid.coarser(step, data.shape))
