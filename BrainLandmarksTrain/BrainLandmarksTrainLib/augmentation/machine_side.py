"""Machine side (Table II): what the scanner and the acquisition add to the picture.

None of these moves anatomy, so the landmarks stay where they are. Most of them happen in k-space,
the Fourier transform of the image, which is what an MR scanner measures. TorchIO keeps the real
part of the image that comes back; values may fall below zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from BrainLandmarksLib.imaging.intensity import foreground_percentile
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksTrainLib.settings import IntRange, Range, setting

from .transform import Parameters, Transform, tio, uniform, whole

if TYPE_CHECKING:
    import torchio

CENTRE_MARGIN = 0.05
"""Share of the acquisition on either side of the centre of k-space during which nobody moves."""


@dataclass(frozen=True)
class Ghosting(Transform):
    """Ghosts: faint copies of the head along the phase-encoding direction.

    Something moves or changes its signal periodically (pulse, breathing, flow) while the lines of
    k-space are measured one after another. Every n-th plane of k-space comes out weaker, and the
    image overlaps with n shifted copies of itself.

    >>> Ghosting(intensity=(0.3, 0.6))
    """

    title: ClassVar[str] = "ghosts"

    count: IntRange = setting((4, 10), "Number of ghosts.", low=1, high=100)
    intensity: Range = setting(
        (0.5, 1.0), "Share by which every n-th plane of k-space is weakened.", low=0, high=1
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw the number, the voxel axis that is phase-encoded and the strength."""
        return {
            "num_ghosts": whole(rng, self.count),
            "axis": whole(rng, (0, 2)),
            "intensity": uniform(rng, self.intensity),
        }

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `Ghosting`; the central plane of k-space is kept."""
        return tio().Ghosting(restore=None, **parameters)

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        axis = "ijk"[parameters["axis"]]
        return f"{parameters['num_ghosts']} along {axis}\nintensity {parameters['intensity']:.2f}"


@dataclass(frozen=True)
class Spikes(Transform):
    """Herringbone: stripes over the whole image.

    A spark or a loose contact while the signal is read gives single points of k-space a large
    value. One such point is one wave over the image; its direction and fineness follow from where
    in k-space it fell.

    >>> Spikes(count=(1, 3))
    """

    title: ClassVar[str] = "spikes"

    count: IntRange = setting((1, 1), "Number of spikes.", low=1, high=100)
    intensity: Range = setting(
        (1.0, 3.0), "Height of a spike, as a multiple of the largest value of k-space.", low=0
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw positions in k-space, as shares of its width, and one height."""
        count = whole(rng, self.count)
        return {
            "spikes_positions": rng.random((count, 3)).tolist(),
            "intensity": uniform(rng, self.intensity),
        }

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `Spike`."""
        return tio().Spike(
            spikes_positions=np.array(parameters["spikes_positions"]),
            intensity=parameters["intensity"],
        )

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"{len(parameters['spikes_positions'])}, height {parameters['intensity']:.1f}"


@dataclass(frozen=True)
class BiasField(Transform):
    """Shading: one part of the head is brighter than another.

    The sensitivity of the receive coil and the strength of the transmit field change slowly over
    the head. The image is multiplied by the exponential of a polynomial of the position, which runs
    from -1 to 1 along each axis (Van Leemput et al., IEEE TMI 18:885-896, 1999).

    >>> BiasField(coefficients=(-0.3, 0.3))
    """

    title: ClassVar[str] = "bias field"

    coefficients: Range = setting(
        (-0.5, 0.5), "Each coefficient of the polynomial.", low=-5, high=5
    )
    order: int = setting(3, "Order of the polynomial.", low=0, high=6)

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw the coefficients: 20 of them for order 3."""
        count = math.comb(self.order + 3, 3)
        return {
            "coefficients": [uniform(rng, self.coefficients) for _ in range(count)],
            "order": self.order,
        }

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `BiasField`."""
        return tio().BiasField(**parameters)

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        most = np.abs(parameters["coefficients"]).max()
        return f"order {parameters['order']}\ncoefficients to {most:.2f}"


@dataclass(frozen=True)
class Noise(Transform):
    """Thermal noise of the patient and of the receiver: Gaussian in the signal.

    A weaker field, smaller voxels or a faster sequence make more of it. TorchIO's own range is
    meant for images of unit variance; here it is relative to the head's bright tissue (the level
    that `intensity.normalise` calls 1), so any image gets the same share of noise.

    >>> Noise(level=(0.02, 0.06))
    """

    title: ClassVar[str] = "noise"

    level: Range = setting(
        (0.02, 0.12), "Standard deviation, as a share of the bright tissue.", low=0, high=10
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw the standard deviation, in the image's units, and the noise's own seed."""
        bright = foreground_percentile(volume.data.ravel())
        scale = bright if math.isfinite(bright) else 0.0
        return {"std": uniform(rng, self.level) * scale, "seed": whole(rng, (0, 2**31 - 1))}

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `Noise` of mean 0."""
        return tio().Noise(mean=0.0, **parameters)

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"std {parameters['std']:.3g}"


@dataclass(frozen=True)
class Motion(Transform):
    """Motion: the patient moves during the scan.

    The head jumps to another pose a few times while k-space is filled along the third voxel axis,
    so k-space is put together from several poses, and edges ring and double (Shaw et al., MIDL
    2019).

    The *reference pose* is the original one: TorchIO fills the centre of k-space, which holds
    nearly all of the contrast and the coarse shape, from the image as it was. So the head appears
    where it was, and the landmarks stay. No movement is drawn within 5 % of the centre, where it
    would be open which pose the picture shows. The head turns about the middle of the image.

    >>> Motion(rotation_deg=(-5, 5), translation_mm=(-5, 5))
    """

    title: ClassVar[str] = "motion"

    count: IntRange = setting((2, 2), "Number of movements.", low=1, high=20)
    rotation_deg: Range = setting(
        (-10.0, 10.0), "Rotation about each world axis, degrees.", low=-90, high=90
    )
    translation_mm: Range = setting(
        (-10.0, 10.0), "Shift along each world axis, mm.", low=-100, high=100
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw times (0 to 1) and poses; angles and shifts are about ITK's axes (LPS)."""
        count = whole(rng, self.count)
        step = 1 / (count + 1)
        margin = max(CENTRE_MARGIN, 1.5 / volume.grid.shape[2])
        times = []
        for number in range(1, count + 1):
            time = 0.5
            while abs(time - 0.5) < margin:
                # Evenly spread, each a little early or late: TorchIO's times.
                time = step * number + uniform(rng, (-0.3 * step, 0.3 * step))
            times.append(time)
        return {
            "times": times,
            "degrees": [[uniform(rng, self.rotation_deg) for _ in range(3)] for _ in times],
            "translation": [[uniform(rng, self.translation_mm) for _ in range(3)] for _ in times],
        }

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `Motion`."""
        arrays = {name: np.array(parameters[name]) for name in ("times", "degrees", "translation")}
        return tio().Motion(image_interpolation="linear", **arrays)

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        turn, shift = (np.abs(parameters[name]).max() for name in ("degrees", "translation"))
        return f"{len(parameters['times'])} movements\nto {turn:.0f}°, {shift:.0f} mm"


@dataclass(frozen=True)
class Blur(Transform):
    """Blur: fine detail is missing.

    A short acquisition leaves out the outer part of k-space, T2 decay weakens it, and so does a
    filter on the console. TorchIO smooths with a Gaussian, with a width of its own along each axis.

    >>> Blur(std_mm=(0.5, 1.0))
    """

    title: ClassVar[str] = "blur"

    std_mm: Range = setting(
        (0.3, 2.0), "Standard deviation of the Gaussian along each voxel axis, mm.", low=0, high=20
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw three widths, mm."""
        return {"std": [uniform(rng, self.std_mm) for _ in range(3)]}

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `Blur`."""
        return tio().Blur(std=tuple(parameters["std"]))

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"std {', '.join(f'{std:.1f}' for std in parameters['std'])} mm"
