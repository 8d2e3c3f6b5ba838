"""Eyes: four points on each globe in the axial plane through its centre."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .anatomy import ANTERIOR, RIGHT, SIDES, Anatomy, Points, lateral
from .labelmap import EYES


def eyes(anatomy: Anatomy) -> Points:
    """Anterior and posterior pole, medial and lateral extreme of both globes."""
    found: Points = {
        f"EYE_{name}_{side}": None for name in ("A", "P", "M", "LAT") for side in SIDES
    }
    mask = anatomy.head.mask(EYES)
    if not mask.any():
        return found
    field = anatomy.head.field(EYES, 1.5)
    parts, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, parts, np.arange(1, count + 1))
    for part in 1 + np.flatnonzero(sizes * anatomy.voxel_mm3 > 1500.0):
        ijk = np.argwhere(parts == part).astype(float)
        points = anatomy.frame.to_head(anatomy.head.grid.ijk_to_ras(ijk))
        centre = np.median(points, axis=0)
        side = "L" if centre @ RIGHT < 0 else "R"
        out = lateral(side)
        for name, direction in (("A", ANTERIOR), ("P", -ANTERIOR), ("M", -out), ("LAT", out)):
            found[f"EYE_{name}_{side}"] = anatomy.exit(field, centre, direction, 20.0, last=True)
    return found
