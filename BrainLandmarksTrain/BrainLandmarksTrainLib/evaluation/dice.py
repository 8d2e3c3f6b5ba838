"""How far a parcellation agrees with label maps that training has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.inference import fold_batch_norm
from BrainLandmarksTrainLib.engine.segmentation import dice_scores, overlap


@torch.no_grad()
def measured_dice(
    network: HighRes3DNet,
    samples: Iterable[tuple[torch.Tensor, ...]],
    classes: int,
    device: torch.device,
) -> FloatArray:
    """Dice of each class over all samples together, (C,); NaN where the label maps lack it.

    Args:
        network: With so many classes; its running statistics are used.
        samples: Cube, labels and readings of each (`engine.segmentation`).
    """
    folded = fold_batch_norm(network).to(device)
    counts = torch.zeros(3, classes, dtype=torch.float64)
    for cube, labels, readings in samples:
        found = folded(cube[None].to(device)).argmax(1)[0].cpu()
        counts += overlap(found, labels, readings)
    return dice_scores(counts).numpy()


def dice_table(measured: Mapping[str, FloatArray], names: Sequence[str]) -> Table:
    """A row for each structure and their mean, a column for each set of scans.

    Args:
        measured: Name of a set to Dice of each class, background first.
        names: Of the classes.
    """
    header = ("structure", *(name.replace("_", " ") for name in measured))
    rows = [(name, *(float(d[k]) for d in measured.values())) for k, name in enumerate(names)]
    known = [d[1:][np.isfinite(d[1:])] for d in measured.values()]
    mean = ("mean", *(float(d.mean()) if len(d) else math.nan for d in known))
    return Table(header, [*rows[1:], mean], digits=3)
