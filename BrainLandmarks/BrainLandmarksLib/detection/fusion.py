"""One answer from heatmaps and rules: what the rules find on the parcellation of the scan.

The networks of heatmaps and the parcellation network see the same head in different ways. Where a
landmark stands in the middle of things, heatmaps are exact; where it lies on a boundary, the
boundary is (`geometry.correction.Correction.fused` weighs the two). What the parcellation cannot
know is left out here: structures that are far too small or too large for a head's were not seen
right, and the rules that read them say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.annotation import PROTOCOL, LabelMap, annotate
from BrainLandmarksLib.annotation.labelmap import (
    AMYGDALA,
    BRAIN_STEM,
    CORPUS_CALLOSUM,
    HEMISPHERE,
    HIPPOCAMPUS,
    THALAMUS,
)
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.protocol import Protocol, load_protocol

HEATMAP = "from the heatmap"
BOTH = "from heatmap and rule"
"""Remarks at a landmark that say where it comes from."""

SIZES_ML: tuple[tuple[str, tuple[int, ...], float, float], ...] = (
    ("CC_", CORPUS_CALLOSUM, 1.0, 60.0),
    ("HIP_", HIPPOCAMPUS["L"], 1.0, 12.0),
    ("HIP_", HIPPOCAMPUS["R"], 1.0, 12.0),
    ("TO", HIPPOCAMPUS["L"], 1.0, 12.0),
    ("TO", HIPPOCAMPUS["R"], 1.0, 12.0),
    ("AMY_", AMYGDALA["L"], 0.4, 7.0),
    ("AMY_", AMYGDALA["R"], 0.4, 7.0),
    ("", BRAIN_STEM, 8.0, 60.0),
    ("", THALAMUS["L"], 2.0, 20.0),
    ("", THALAMUS["R"], 2.0, 20.0),
    ("", HEMISPHERE["L"], 200.0, 1000.0),
    ("", HEMISPHERE["R"], 200.0, 1000.0),
)
"""First letters of landmarks, the structure that their rules read, and its least and greatest
volume, with room for what the network draws too large; the rules of all landmarks lean on some."""


def has_rules(protocol: Protocol) -> bool:
    """Whether there are rules that place the landmarks of a protocol."""
    return protocol.hash == load_protocol(PROTOCOL).hash


def rule_points(protocol: Protocol, parcellation: LabelMap) -> FloatArray:
    """Where the rules place the landmarks on a parcellation, (K, 3) RAS mm, NaN where they cannot.

    Args:
        protocol: One that `has_rules`.
    """
    points = np.full((len(protocol), 3), np.nan)
    try:
        points = annotate(parcellation).points
    except UserError:  # no head is to be seen in it
        return points
    labels = np.array(protocol.labels)
    for start, structure, least, most in SIZES_ML:
        if not least <= parcellation.volume(structure) / 1000 <= most:
            points[np.char.startswith(labels, start)] = np.nan
    return points


def remarks(by_rule: npt.NDArray[np.bool_], said: Iterable[str]) -> list[str]:
    """What is said of each landmark, or else where it comes from.

    Args:
        by_rule: (K,) where a rule had a say.
        said: K remarks, "" where there is nothing to say.
    """
    return [text or (BOTH if rule else HEATMAP) for rule, text in zip(by_rule, said, strict=True)]
