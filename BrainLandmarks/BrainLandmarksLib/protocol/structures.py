"""Structures of the brain that label maps name, and the number that each has in the library.

The numbers are FreeSurfer's. They stand here, away from the rules that read them, because panels
need the names before the packages of the rules are installed.
"""

from __future__ import annotations

PAIRED: dict[str, tuple[int, int]] = {
    "cerebral white matter": (2, 41),
    "cerebral cortex": (3, 42),
    "lateral ventricle": (4, 43),
    "temporal horn": (5, 44),
    "cerebellar white matter": (7, 46),
    "cerebellar cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbens": (26, 58),
    "ventral diencephalon": (28, 60),
}
"""Structures of which there are two -> the library's numbers, left and right."""

MIDLINE: dict[str, int] = {
    "third ventricle": 14,
    "fourth ventricle": 15,
    "brain stem": 16,
    "cerebrospinal fluid": 24,
    "optic chiasm": 85,
    "pons": 174,
    "corpus callosum": 251,
    "eye": 506,
    "spinal cord": 512,
}
"""Structures without sides -> the library's number. The pons is what a scheme sets apart from the
rest of the brain stem."""
