"""Do the maps depend on what the network learned? The check of Adebayo et al.

J. Adebayo, J. Gilmer, M. Muelly, I. Goodfellow, M. Hardt, B. Kim, "Sanity Checks for Saliency
Maps", NeurIPS 2018, arXiv:1810.03292. The weights are replaced by random ones, layer after layer
from the heatmaps down to the image (cascading randomisation). A map that shows what the network
learned must change; one that stays shows the image, or the architecture.
"""

from __future__ import annotations

import copy
import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.gradcam.explanation import Explanation
from BrainLandmarksLib.gradcam.maps import observe
from BrainLandmarksLib.imaging.foreground import foreground
from BrainLandmarksLib.imaging.volume import ImageArray
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.protocol import Protocol


@dataclass(frozen=True)
class SanityCheck:
    """Rank correlations of maps with those of the trained network.

    >>> check = randomise(explanation, range(88))
    >>> check.write("report", "head")
    """

    protocol: Protocol
    layer: str
    rows: tuple[int, ...]
    """The landmarks, from 0; n of them."""
    steps: tuple[str, ...]
    """Part of the network that each step randomised, besides all before it."""
    correlations: FloatArray
    """(steps, n) Spearman's rank correlation over the voxels of the head; NaN for an empty map."""
    between: float
    """For comparison: the mean rank correlation between the trained network's own maps of
    different landmarks; NaN if there is but one."""

    def markdown(self) -> str:
        """Means per step and group, as Markdown."""
        groups = {
            group.name: [n for n, row in enumerate(self.rows) if row + 1 in group.indices]
            for group in self.protocol.groups
        }
        groups = {name: places for name, places in groups.items() if places}
        names = ["random down to", "all", "sd", "empty maps", *groups]
        rows = []
        for step, values in zip(self.steps, self.correlations, strict=True):
            known = values[np.isfinite(values)]
            rows.append(
                [
                    step,
                    _mean(values),
                    f"{known.std():.2f}" if len(known) else "–",
                    str(len(values) - len(known)),
                    *(_mean(values[places]) for places in groups.values()),
                ]
            )
        lines = [
            f"Spearman's rank correlation of Grad-CAM maps (layer {self.layer}, "
            f"{len(self.rows)} landmarks, voxels of the head) with those of the trained network, "
            "mean over the landmarks. Weights are randomised from the heatmaps downwards; each "
            "line includes the ones above it.",
            "",
            Table(names, rows, words=1).markdown(),
        ]
        if np.isfinite(self.between):
            lines += [
                "",
                "For comparison, the trained network's own maps of different landmarks correlate "
                f"by {self.between:.2f} on average.",
            ]
        return "\n".join(lines)

    def write(self, folder: str | os.PathLike[str], image: str) -> list[Path]:
        """Write the table (.md) and every number (.csv); returns the files.

        Args:
            image: name of the image without suffix; the files' names begin with it.

        Raises:
            UserError: they cannot be written.
        """
        names = file_names(image)
        with atomic_writes(folder) as unfinished:
            (unfinished / names[0]).write_text(self.markdown() + "\n", encoding="utf-8")
            with (unfinished / names[1]).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["random_down_to", "index", "label", "group", "correlation"])
                for step, values in zip(self.steps, self.correlations, strict=True):
                    for row, value in zip(self.rows, values, strict=True):
                        x = self.protocol.landmarks[row]
                        text = f"{value:.4f}" if np.isfinite(value) else ""
                        writer.writerow([step, x.index, x.label, x.group, text])
        return [Path(folder) / name for name in names]


def file_names(image: str) -> list[str]:
    """Names of the files that `SanityCheck.write` writes."""
    return [f"{image}_gradcam_sanity.md", f"{image}_gradcam_sanity.csv"]


def randomise(
    explanation: Explanation,
    rows: Sequence[int],
    *,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> SanityCheck:
    """Randomise the network of an explanation step by step and compare the maps.

    Every step asks the same: the heatmap is read where the trained network's was. The random
    weights are those with which training begins, batch norm statistics included.

    Args:
        rows: the landmarks (from 0).
        seed: of the random weights.
        progress: called before each step with its name and the fraction done.
    """
    trained, seen = explanation.model.network, explanation.seen
    input_cube = explanation.detection.input_cube
    head = torch.from_numpy(foreground(input_cube).ravel())
    device = seen.points.device
    cube = torch.from_numpy(input_cube.data)[None, None].to(device)

    def ranks(maps: torch.Tensor) -> FloatArray:
        values = maps.flatten(1).cpu()[:, head].float().numpy()
        return _standardised_ranks(values)

    original = ranks(seen.maps(rows))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = HighRes3DNet(**trained.spec()).eval().state_dict()
    network = copy.deepcopy(trained).to(device)
    steps = parts_from_the_top(trained)
    correlations = []
    for number, step in enumerate(steps):
        if progress is not None:
            progress(step, number / len(steps))
        weights = {k: v for k, v in fresh.items() if k.startswith((f"{step}.", "norm."))}
        network.load_state_dict(weights, strict=False)
        again = observe(network, cube, seen.layer, target=seen.target, points=seen.points)
        correlations.append((original * ranks(again.maps(rows))).sum(axis=1))
    pairs = (original @ original.T)[np.triu_indices(len(original), 1)]
    known = pairs[np.isfinite(pairs)]
    return SanityCheck(
        explanation.protocol,
        seen.layer,
        tuple(rows),
        tuple(steps),
        np.array(correlations),
        float(known.mean()) if len(known) else float("nan"),
    )


def parts_from_the_top(network: HighRes3DNet) -> list[str]:
    """The parts of the network that hold weights, from the heatmaps down to the image."""
    blocks = [
        f"stages.{stage}.{number}"
        for stage, (_, members) in enumerate(network.residual_stages())
        for number in range(len(members))
    ]
    return ["classifier", "penultimate", *reversed(blocks), "first"]


def _standardised_ranks(values: ImageArray) -> FloatArray:
    """Ranks along the rows, centred and of length 1: their products are rank correlations.

    Equal values share the mean of their ranks. A constant row has no rank correlation: NaN.
    """
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)


def _mean(values: FloatArray) -> str:
    # A sum with 0.0 has no negative zero.
    return f"{np.nanmean(values).round(2) + 0.0:.2f}" if np.isfinite(values).any() else "–"
