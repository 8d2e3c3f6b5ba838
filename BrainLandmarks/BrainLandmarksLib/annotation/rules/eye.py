"""Eyes: four points on each globe in the axial plane through its centre."""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.annotation.anatomy import ANTERIOR, RIGHT, SIDES, Anatomy, Points, lateral
from BrainLandmarksLib.annotation.labelmap import EYES


def eyes(anatomy: Anatomy) -> Points:
    """Anterior and posterior pole, medial and lateral extreme of both globes."""
    found: Points = {
        f"EYE_{name}_{side}": None for name in ("A", "P", "M", "LAT") for side in SIDES
    }
    field = anatomy.head.field(EYES, 1.5)
    for piece in anatomy.head.pieces(EYES):
        if len(piece) * anatomy.head.voxel_mm3 <= 1500.0:
            continue
        points = anatomy.frame.to_head(piece)
        centre = np.median(points, axis=0)
        side = "L" if centre @ RIGHT < 0 else "R"
        out = lateral(side)
        for name, direction in (("A", ANTERIOR), ("P", -ANTERIOR), ("M", -out), ("LAT", out)):
            found[f"EYE_{name}_{side}"] = anatomy.exit(field, centre, direction, 20.0, last=True)
    return found
