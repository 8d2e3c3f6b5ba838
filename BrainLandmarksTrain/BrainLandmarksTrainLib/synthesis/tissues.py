"""Tissues: labels that share an MR signal, and the signal that they have on a T1."""

from __future__ import annotations

# Tissues: FreeSurfer/SynthSeg numbers that share an MR signal, with the signal they have on a T1
# (white matter = 1). Left and right structures share a tissue, so contrast never tells the side.
TISSUES: dict[str, tuple[tuple[int, ...], float]] = {
    "cerebral white matter": ((2, 41, 77, 78, 79, 251, 252, 253, 254, 255), 1.00),
    "cerebral cortex": ((3, 42), 0.68),
    "cerebrospinal fluid": ((24, 4, 5, 14, 15, 43, 44, 72), 0.22),
    "cerebellar white matter": ((7, 46), 0.97),
    "cerebellar cortex": ((8, 47), 0.66),
    "thalamus": ((10, 49), 0.84),
    "caudate": ((11, 50), 0.74),
    "putamen": ((12, 51), 0.78),
    "pallidum": ((13, 52), 0.93),
    "brain stem": ((16,), 0.92),
    "ventral diencephalon": ((28, 60), 0.88),
    "hippocampus and amygdala": ((17, 18, 53, 54), 0.70),
    "accumbens": ((26, 58), 0.74),
    "vessels and choroid plexus": ((30, 62, 31, 63, 25, 57, 136, 137, 163, 164), 0.40),
    "optic chiasm": ((85,), 0.80),
    "eyes": ((506,), 0.25),
    "dura and sinuses": ((514, 530, 502), 0.45),
    "spinal cord": ((512,), 0.90),
    "soft tissue": ((507,), 0.60),
    "skin": ((511,), 0.75),
    "bone": ((515,), 0.15),
    "marrow": ((516,), 0.85),
    "airways": ((509, 508), 0.35),
}
EXTRACEREBRAL = (
    "eyes",
    "dura and sinuses",
    "spinal cord",
    "soft tissue",
    "skin",
    "bone",
    "marrow",
    "airways",
)
NAMES = ("air", *TISSUES)
