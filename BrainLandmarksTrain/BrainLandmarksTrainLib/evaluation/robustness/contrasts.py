"""Signals of the tissues in other sequences than T1.

Like the T1 signals of `generator.TISSUES` these are typical values that fix the order of the
tissues; every scan spreads them at random. Bright on T2 is fluid; FLAIR is T2 without fluid.
"""

from __future__ import annotations

import numpy as np

from BrainLandmarksTrainLib.synthesis.tissues import TISSUES

RANDOM = "random"
"""A signal of its own, anything from 0 to 1, for every tissue: no scanner makes such images."""

SIGNALS: dict[str, dict[str, float]] = {
    "T2": {
        "cerebral white matter": 0.30,
        "cerebral cortex": 0.45,
        "cerebrospinal fluid": 1.00,
        "cerebellar white matter": 0.32,
        "cerebellar cortex": 0.45,
        "thalamus": 0.37,
        "caudate": 0.40,
        "putamen": 0.36,
        "pallidum": 0.22,
        "brain stem": 0.33,
        "ventral diencephalon": 0.33,
        "hippocampus and amygdala": 0.47,
        "accumbens": 0.40,
        "vessels and choroid plexus": 0.35,
        "optic chiasm": 0.30,
        "eyes": 0.95,
        "dura and sinuses": 0.10,
        "spinal cord": 0.35,
        "soft tissue": 0.20,
        "skin": 0.50,
        "bone": 0.05,
        "marrow": 0.60,
        "airways": 0.50,
    },
    "FLAIR": {
        "cerebral white matter": 0.50,
        "cerebral cortex": 0.65,
        "cerebrospinal fluid": 0.08,
        "cerebellar white matter": 0.48,
        "cerebellar cortex": 0.60,
        "thalamus": 0.58,
        "caudate": 0.63,
        "putamen": 0.58,
        "pallidum": 0.42,
        "brain stem": 0.52,
        "ventral diencephalon": 0.52,
        "hippocampus and amygdala": 0.70,
        "accumbens": 0.62,
        "vessels and choroid plexus": 0.15,
        "optic chiasm": 0.50,
        "eyes": 0.10,
        "dura and sinuses": 0.15,
        "spinal cord": 0.50,
        "soft tissue": 0.30,
        "skin": 0.50,
        "bone": 0.05,
        "marrow": 0.65,
        "airways": 0.45,
    },
}
"""Tissue to signal, of each sequence."""


def signals(contrast: str, rng: np.random.Generator) -> tuple[float, ...]:
    """Signal of every tissue, in the order of `generator.TISSUES`.

    Args:
        contrast: "T2", "FLAIR" or "random".
        rng: What a random contrast is drawn from.
    """
    if contrast == RANDOM:
        return tuple(float(x) for x in rng.uniform(0, 1, len(TISSUES)))
    return tuple(SIGNALS[contrast][tissue] for tissue in TISSUES)
