"""What is done to a scan: conditions in families, each at several strengths.

The corruptions are the transforms of augmentation with one strength instead of a range; only how
they fall (axes, signs, places in k-space) is drawn. A scan meets the same draw at every strength.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksTrainLib.augmentation import Record, regenerate
from BrainLandmarksTrainLib.augmentation.abnormal_side import Abnormality
from BrainLandmarksTrainLib.augmentation.augment import with_points
from BrainLandmarksTrainLib.augmentation.config import TRANSFORMS
from BrainLandmarksTrainLib.augmentation.record import Step

from .contrasts import RANDOM, SIGNALS, signals
from .scans import GOOD_T1, Rendering, Scan

Strength = float | str

_LEAST_VOXELS = 16
_THICKER = 1.1


class Family(ABC):
    """A kind of condition at several strengths, from the mildest to the worst.

    Args:
        name: Short, unique, for files.
        title: For tables and plots.
        unit: What the strengths are.
        strengths: Numbers, or names.
        panel: Which families are drawn together.
    """

    name: str
    title: str
    unit: str
    strengths: tuple[Strength, ...]
    panel: str
    synthetic: bool = False
    """Whether only rendered scans can be put into these conditions."""

    @abstractmethod
    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """The scan in this condition; landmarks that are no longer in it are missing.

        Raises:
            UserError: this scan cannot be put into it.
        """


@dataclass(frozen=True)
class Corruption(Family):
    """A transform of augmentation; ``both`` ways when its settings reach from -s to s."""

    name: str
    title: str
    unit: str
    settings: tuple[str, ...]
    strengths: tuple[Strength, ...]
    both: bool = False
    panel: str = "corruptions"

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Draw where it falls and apply it."""
        between = (-strength if self.both else strength, strength)  # type: ignore[operator]
        transform = TRANSFORMS[self.name](**dict.fromkeys(self.settings, between))
        return applied(scan, Step(self.name, transform.draw(rng, scan.volume)))


@dataclass(frozen=True)
class Abnormal(Family):
    """Abnormal anatomy of augmentation, of one strength; the truth moves with the tissue."""

    name: str
    title: str
    unit: str
    setting: str
    strengths: tuple[Strength, ...]
    panel: str = "abnormal anatomy"

    def transform(self, strength: Strength) -> Abnormality:
        """The transform of augmentation with this strength alone."""
        made = TRANSFORMS[self.name](**{self.setting: (strength, strength)})
        assert isinstance(made, Abnormality)
        return made

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Draw where it lies and make it; landmarks whose tissue is gone are missing."""
        parameters = self.transform(strength).draw_for(rng, scan.volume, scan.truth)
        return applied(scan, Step(self.name, parameters))


@dataclass(frozen=True)
class Turned(Family):
    """The head turned in the scanner about one of the world's axes, either way."""

    name: str = "rotation"
    title: str = "rotation"
    unit: str = "degrees"
    strengths: tuple[Strength, ...] = (10.0, 20.0, 30.0, 40.0)
    panel: str = "rotation"

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Turn the head by the affine transform of augmentation; what leaves the image is gone."""
        degrees = [0.0, 0.0, 0.0]
        axis, sign = int(rng.integers(3)), (-1.0, 1.0)[rng.integers(2)]
        degrees[axis] = sign * float(strength)
        still = {"scales": [1.0] * 3, "translation": [0.0] * 3}
        return applied(scan, Step("affine", {**still, "degrees": degrees}))


@dataclass(frozen=True)
class ThickSlices(Family):
    """Axial slices as thick as they are apart: each shows the average over its thickness."""

    name: str = "thickness"
    title: str = "slice thickness"
    unit: str = "mm"
    strengths: tuple[Strength, ...] = (2.0, 3.0, 4.0, 5.0, 6.0)
    panel: str = "slice thickness"

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Sample the scan at thicker slices, with the smoothing of `images.resample`."""
        grid = scan.volume.grid
        factor = float(strength) / grid.spacing[2]
        if factor < _THICKER:
            raise UserError(f"the slices are {grid.spacing[2]:.2g} mm thick already")
        affine = grid.affine.copy()
        affine[:3, 2] *= factor
        affine[:3, 3] = grid.ijk_to_ras([0, 0, (factor - 1) / 2])
        slices = int(grid.shape[2] / factor)
        thick = Grid((*grid.shape[:2], slices), affine)
        return within(scan, Volume(resample(scan.volume, thick), thick))


@dataclass(frozen=True)
class Cut(Family):
    """The image ends early: a neck or a top that was not scanned.

    A strength is how far the end reaches into the space of the landmarks; below zero, how far
    beyond the last one it still reaches.
    """

    name: str
    title: str
    top: bool
    unit: str = "mm into the landmarks"
    strengths: tuple[Strength, ...] = (-10.0, 10.0, 30.0)
    panel: str = "field of view"

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Crop the image along its voxel axis from bottom to top."""
        grid = scan.volume.grid
        heights = grid.ras_to_ijk(scan.truth.points[~scan.truth.missing])[:, 2]
        inward = float(strength) / grid.spacing[2]
        low, high = 0, grid.shape[2]
        if self.top:
            high = min(high, int(np.floor(heights.max() - inward)) + 1)
        else:
            low = max(low, int(np.ceil(heights.min() + inward)))
        if high - low == grid.shape[2]:
            raise UserError("the image ends there already")
        if high - low < _LEAST_VOXELS:
            raise UserError("nothing of the image would be left")
        window = grid.window([0, 0, low], (*grid.shape[:2], high - low))
        return within(scan, Volume(np.ascontiguousarray(scan.volume.data[:, :, low:high]), window))


@dataclass(frozen=True)
class Contrast(Family):
    """Another sequence than T1."""

    name: str = "contrast"
    title: str = "contrast"
    unit: str = ""
    strengths: tuple[Strength, ...] = (*SIGNALS, RANDOM)
    panel: str = "contrast"
    synthetic: bool = True

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Render the head with other signals."""
        volume, _ = _rendering(scan).scan(replace(GOOD_T1, signals=signals(str(strength), rng)))
        return replace(scan, volume=volume)


@dataclass(frozen=True)
class Stripped(Family):
    """Skull-stripped: only the brain and the fluid around it are left."""

    name: str = "stripped"
    title: str = "skull-stripped"
    unit: str = ""
    strengths: tuple[Strength, ...] = ("brain only",)
    panel: str = "contrast"
    synthetic: bool = True

    def vary(self, scan: Scan, strength: Strength, rng: np.random.Generator) -> Scan:
        """Render the head without what is outside the brain."""
        volume, _ = _rendering(scan).scan(replace(GOOD_T1, stripped_share=1.0))
        return replace(scan, volume=volume)


FAMILIES: tuple[Family, ...] = (
    Corruption("ghosting", "ghosts", "intensity", ("intensity",), (0.5, 0.75, 1.0)),
    Corruption("spikes", "spikes", "height", ("intensity",), (1.0, 2.0, 3.0)),
    Corruption(
        "bias_field", "bias field", "largest coefficient", ("coefficients",), (0.2, 0.35, 0.5),
        both=True,
    ),
    Corruption("noise", "noise", "share of bright tissue", ("level",), (0.04, 0.08, 0.12)),
    Corruption(
        "motion", "motion", "up to mm and degrees", ("rotation_deg", "translation_mm"),
        (2.5, 5.0, 10.0), both=True,
    ),
    Corruption("blur", "blur", "standard deviation, mm", ("std_mm",), (0.5, 1.0, 2.0)),
    Corruption("anisotropy", "anisotropy", "mm between slices", ("slice_mm",), (2.0, 4.0, 6.0)),
    Turned(),
    ThickSlices(),
    Contrast(),
    Stripped(),
    Cut("neck", "neck missing", top=False),
    Cut("top", "top missing", top=True),
    Abnormal(
        "ventricles", "enlarged ventricles", "share at the axis", "enlargement", (0.25, 0.45, 0.65)
    ),
    Abnormal("atrophy", "atrophy", "mm at the surface", "shrinkage_mm", (1.0, 2.5, 4.0)),
    Abnormal("mass", "space-occupying lesion", "mm radius", "radius_mm", (8.0, 14.0, 20.0)),
    Abnormal("cavity", "resection cavity", "mm radius", "radius_mm", (12.0, 19.0, 26.0)),
    Abnormal("white_matter_lesions", "white-matter lesions", "spots", "count", (10, 25, 40)),
    Abnormal("void", "metal", "mm radius", "radius_mm", (10.0, 19.0, 28.0)),
    Abnormal("enhancement", "contrast agent", "x white matter", "level", (1.1, 1.4, 1.7)),
)  # fmt: skip
"""All of them; the corruptions' strengths lie within the ranges of ``augmentation/paper.json``."""


def applied(scan: Scan, step: Step) -> Scan:
    """The scan after one step of augmentation, landmarks along with it."""
    made = regenerate(Record(0, "robustness", (step,)), scan.volume, scan.truth)
    return replace(scan, volume=made.volume, truth=made.landmarks)


def within(scan: Scan, volume: Volume) -> Scan:
    """The scan as another image of the same head; landmarks outside of it are missing."""
    points = scan.truth.points
    inside = volume.grid.contains(points)
    points = np.where(inside[:, None], points, np.nan)
    return replace(scan, volume=volume, truth=with_points(scan.truth, points))


def _rendering(scan: Scan) -> Rendering:
    if scan.rendering is None:
        raise UserError("the contrast of a scan cannot be changed afterwards")
    return scan.rendering
