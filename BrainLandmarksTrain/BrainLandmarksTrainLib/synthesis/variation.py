"""Ranges of everything that varies between rendered scans."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Variation:
    """Ranges of everything that varies between samples (mm, degrees, ratios)."""

    rotation_deg: float = 7.0
    translation_mm: float = 5.0
    scale: float = 0.10
    stretch: float = 0.06
    shear: float = 0.04
    warp_mm: tuple[float, ...] = (6.0, 3.0, 1.5)
    warp_spacing_mm: tuple[float, ...] = (96.0, 48.0, 28.0)
    warp_symmetry: float = 0.5
    """Share of the warps' variance that is symmetric about x = 0: with 0.5 left and right are
    independent, with 1 mirror images. Another value than 0.5 makes sense without a pose only."""
    t1_share: float = 0.5
    bias: float = 0.35
    noise: float = 0.04
    texture: float = 0.06
    thickness_mm: float = 6.0
    thick_share: float = 0.35
    cut_share: float = 0.35
    stripped_share: float = 0.05
    flip_share: float = 0.5
    void_share: float = 0.0
    """Share of the images in which boxes show no signal, as beside metal; what they hide has to be
    distinguished from the rest of the head."""
    void_mm: tuple[float, float] = (20.0, 60.0)
    signals: tuple[float, ...] = ()
    """Signal of each of `TISSUES` where the image is not of random contrast; () is that of a T1."""


ANATOMY = Variation(rotation_deg=0.0, translation_mm=0.0, flip_share=0.0, warp_symmetry=0.85)
"""How heads differ from one another, without pose."""

CANONICAL = Variation(scale=0.05, stretch=0.0, shear=0.0, warp_mm=(), warp_spacing_mm=())
"""What the fine network meets: heads already brought close to the canonical pose."""

ANY_ANATOMY = replace(
    CANONICAL, rotation_deg=9.0, scale=0.08, stretch=0.05, shear=0.04, warp_mm=(4.0, 2.5, 1.2),
    warp_spacing_mm=(96.0, 48.0, 28.0), bias=0.45, noise=0.05, stripped_share=0.08,
)  # fmt: skip
"""What the parcellation network meets: heads close to the canonical pose, warped, which label maps
follow exactly."""

POSED = replace(CANONICAL, rotation_deg=3.0, translation_mm=2.0, scale=0.0, flip_share=0.0)
"""What the parcellation network is measured on: heads as they are, in a pose as it is found."""

ANY_POSE = replace(CANONICAL, rotation_deg=40.0, translation_mm=35.0, thickness_mm=8.0)
"""What the locator meets: any head in any pose."""
