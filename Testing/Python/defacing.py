"""Ways in which public scans lose the face, or all but the brain; made-up copies of known tools.

A ``frame`` is the 4x4 affine from the upright head (RAS millimetres, x = 0 the middle plane,
the eyes about 76 in front of the middle of the brain and 20 below it) to the image.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.imaging.volume import Volume

WAYS = ("box", "plane", "mask")


def deface(volume: Volume, frame: np.ndarray, way: str, fill: float = 0.0) -> Volume:
    """The image without its face.

    Args:
        way: "box": a block in front and below, as mri_deface leaves it. "plane": all in front of an
            oblique plane, as quickshear does it. "mask": eyes, nose and mouth by a smooth mask, as
            pydeface warps one onto the head.
        fill: What is left in the place.
    """
    ijk = np.moveaxis(np.indices(volume.grid.shape, dtype=np.float32), 0, -1)
    x, y, z = np.moveaxis(apply_affine(np.linalg.inv(frame) @ volume.grid.affine, ijk), -1, 0)
    if way == "box":
        gone = (y > 62) & (z < -2) & (np.abs(x) < 60)
    elif way == "plane":
        gone = 0.8 * y - 0.6 * z > 60
    elif way == "mask":
        eyes = ((np.abs(x) - 32) / 24) ** 2 + ((y - 80) / 22) ** 2 + ((z + 22) / 22) ** 2 < 1
        nose = (x / 40) ** 2 + ((y - 90) / 34) ** 2 + ((z + 55) / 48) ** 2 < 1
        gone = eyes | nose
    else:
        raise ValueError(way)
    return Volume(np.where(gone, np.float32(fill), volume.data), volume.grid)


def strip(volume: Volume, points: np.ndarray, margin: float = 1.08) -> Volume:
    """The brain alone: what lies in the hull of points on its outline, widened a little."""
    middle = points.mean(0)
    hull = Delaunay(volume.grid.ras_to_ijk(middle + margin * (points - middle)))
    ijk = np.moveaxis(np.indices(volume.grid.shape), 0, -1).reshape(-1, 3)
    inside = (hull.find_simplex(ijk) >= 0).reshape(volume.grid.shape)
    return Volume(np.where(inside, volume.data, np.float32(0)), volume.grid)
