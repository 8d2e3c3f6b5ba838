"""An image as its file holds it, before its axes are put in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray


@dataclass(eq=False)
class Stored:
    """An image whose header is read, and whose voxels can be.

    Args:
        name: What to call it in a sentence.
        shape: Voxels along i, j, k.
        affine: ijk -> RAS millimetres, 4x4.
        voxels: Reads the values in i, j, k order, with the header's scaling applied: in the
            precision that is asked for, where the file has it.
        assumed: Whether the orientation is the user's assumption.
        notes: Clauses on what of the header was uncertain, without a full stop.
    """

    name: str
    shape: tuple[int, int, int]
    affine: FloatArray
    voxels: Callable[[type[np.floating]], np.ndarray]
    assumed: bool = False
    notes: tuple[str, ...] = ()
