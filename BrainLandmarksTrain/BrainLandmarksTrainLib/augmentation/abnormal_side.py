"""Abnormal anatomy: what disease, surgery and contrast agent do to a head.

Not of the paper, which names it as future work; off by default. Smooth maps move anatomy and the
landmarks with it; what replaces tissue takes the landmarks in it away; spots and rims leave them.
The shapes are simple and their sizes those of the clinic; none is a model of a disease.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.settings import IntRange, Range, setting

from .brain_frame import (
    ARTERIES,
    CEREBRUM,
    DENTAL,
    SINUSES,
    THIRD_VENTRICLE,
    VENTRICLES,
    WHITE_MATTER,
    BrainFrame,
    Levels,
    beyond_envelope,
    brain_mask,
)
from .change import Body, Change, Image, Mask, Warp, blend, box, positions, ramp
from .transform import Parameters, Transform, uniform, whole

_EDGE_MM = 1.5
_VENTRICLE_REACH_MM = 11.0


class Abnormality(Transform):
    """A kind of abnormal anatomy; it needs the landmarks to find its way about the brain."""

    @abstractmethod
    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw parameters for one scan.

        Args:
            volume: The scan, its middle as the origin.
            frame: Of its brain.
        """

    def draw_for(
        self, rng: np.random.Generator, volume: Volume, landmarks: LandmarkSet
    ) -> Parameters:
        """Draw parameters for a scan with its landmarks.

        Raises:
            UserError: the landmarks do not say where the brain is.
        """
        frame = BrainFrame.of(landmarks, volume.grid.center_ras)
        return {"frame": frame.to_json(), **self.place(rng, centred(volume), frame)}

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Not without landmarks.

        Raises:
            TypeError: always; `draw_for` is what draws.
        """
        raise TypeError(f"{type(self).__name__} is drawn with landmarks, by draw_for")


class _OfOneBody(Abnormality):
    """An abnormality that is one body."""

    @staticmethod
    def focus(parameters: Parameters) -> list[float]:
        """The middle of the body."""
        return _centre_of(parameters["body"])

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"radius {parameters['body']['radius']:.0f} mm"


def centred(volume: Volume) -> Volume:
    """The same voxels with their middle as the world's origin."""
    affine = volume.grid.affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(volume.grid.shape) - 1) / 2)
    return Volume(volume.data, Grid(volume.grid.shape, affine))


# Smooth maps --------------------------------------------------------------------------------------


class _Moved(Change):
    """A smooth map and nothing else."""

    def __init__(self, displacement: Callable[[FloatArray], FloatArray]) -> None:
        self._displacement = displacement

    def change(self, volume: Volume) -> Image:
        return Warp(volume.grid, self._displacement).resampled(volume.data)

    def backward(self, grid: Grid) -> Callable[[FloatArray], FloatArray]:
        return Warp(grid, self._displacement)


@dataclass(frozen=True)
class Ventricles(Abnormality):
    """Enlarged ventricles: hydrocephalus, or what atrophy leaves behind.

    Everything round the axes of both lateral ventricles and the third is pushed away from them; the
    map is that of a sum of Gaussians along the axes, so what lies between two yields to both.

    >>> Ventricles(enlargement=(0.3, 0.5))
    """

    title: ClassVar[str] = "enlarged ventricles"

    enlargement: Range = setting(
        (0.25, 0.65), "Share of its distance by which tissue at the axis is moved outwards.",
        low=0, high=0.7,
    )  # fmt: skip

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw the strength, the same on both sides up to a tenth."""
        strength = uniform(rng, self.enlargement)
        sides = [strength, strength * rng.uniform(0.85, 1.0)]
        return {"strengths": [float(s) for s in rng.permutation(sides)]}

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The map."""
        frame = BrainFrame.of_json(parameters["frame"])
        return _Moved(_ventricle_map(frame, parameters["strengths"]))

    @staticmethod
    def focus(parameters: Parameters) -> list[float]:
        """In the body of the right ventricle."""
        return _in_scan(parameters, [13.0, -14.0, 17.0])

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"by {100 * max(parameters['strengths']):.0f} %\nat the axis"


def _ventricle_map(frame: BrainFrame, strengths: list[float]) -> Callable[[FloatArray], FloatArray]:
    axis = _dense(VENTRICLES, 4.0)
    middle = _dense(THIRD_VENTRICLE, 4.0)
    sides = np.concatenate([axis, axis * [-1, 1, 1], middle])
    shares = np.r_[np.repeat(strengths, len(axis)), [0.5 * np.mean(strengths)] * len(middle)]
    places = frame.to_scan(sides)
    width = _VENTRICLE_REACH_MM
    # Along a long line of them the Gaussians add up to this much.
    total = width * np.sqrt(2 * np.pi) / 4.0

    def displacement(points: FloatArray) -> FloatArray:
        result = np.zeros_like(points)
        near = _within(points, places, 4 * width)
        for place, share in zip(places, shares, strict=True):
            away = points[near] - place
            weight = np.exp(-(away**2).sum(1) / (2 * width**2)) * share / total
            result[near] -= away * weight[:, None]
        return result

    return displacement


@dataclass(frozen=True)
class Atrophy(Abnormality):
    """Atrophy: the brain has become smaller in its skull.

    The hemispheres are drawn towards their middle, most of all at their surface, so that the fluid
    between brain and skull grows; the ventricles grow as well, and the sulci open: what is mixed
    of fluid and cortex there becomes more of a fluid.

    >>> Atrophy(shrinkage_mm=(1.0, 2.0))
    """

    title: ClassVar[str] = "atrophy"

    shrinkage_mm: Range = setting(
        (1.0, 4.0), "How far the surface of the brain lies from where it was, mm.", low=0, high=6
    )

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw the shrinkage, and how much of it the ventricles show."""
        shrinkage = uniform(rng, self.shrinkage_mm)
        return {"shrinkage_mm": shrinkage, "ventricles": float(rng.uniform(0.06, 0.11)) * shrinkage}

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The map, and the sulci."""
        frame = BrainFrame.of_json(parameters["frame"])
        widening = _ventricle_map(frame, [min(0.5, parameters["ventricles"])] * 2)
        shrinkage = parameters["shrinkage_mm"]
        centre, axes = CEREBRUM
        turn = frame.affine[:3, :3]

        def displacement(points: FloatArray) -> FloatArray:
            relative = frame.to_reference(points) - centre
            radius = np.linalg.norm(relative / axes, axis=1)
            outward = relative @ turn.T
            outward /= np.maximum(np.linalg.norm(outward, axis=1), 1e-6)[:, None]
            # Nothing in the middle, the whole of it at the surface, nothing from the skull on.
            inner = np.clip(radius / 0.97, 0, 1) ** 2
            outer = np.clip((1.13 - radius) / 0.16, 0, 1)
            share = inner * outer * outer * (3 - 2 * outer)
            # Not below the tentorium: the brain stem and the cerebellum hold their place.
            share *= np.clip((relative[:, 2] + 45) / 20, 0, 1)
            return shrinkage * share[:, None] * outward + widening(points)

        return _Shrunk(displacement, frame, 0.35 * shrinkage)

    @staticmethod
    def focus(parameters: Parameters) -> list[float]:
        """Beside the middle of the brain."""
        return _in_scan(parameters, [4.0, -8.0, 14.0])

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"surface {parameters['shrinkage_mm']:.1f} mm\ninwards"


class _Shrunk(_Moved):
    """A smooth map, after which the sulci are opened."""

    def __init__(
        self,
        displacement: Callable[[FloatArray], FloatArray],
        frame: BrainFrame,
        opening: float,
    ) -> None:
        super().__init__(displacement)
        self._frame = frame
        self._opening = opening

    def change(self, volume: Volume) -> Image:
        data = super().change(volume)
        levels = Levels.of(volume, self._frame)
        if levels.grey == levels.fluid:
            return data
        mask = _Brain.of(Volume(data, volume.grid), self._frame, levels)
        part = box(volume.grid, self._frame.to_scan(_corners()), 5.0)
        where = positions(volume.grid, part)
        radius = self._frame.cerebral_radius(where)
        # Share of cortex in a voxel, of what is neither more than cortex nor less than fluid.
        cortex = np.clip((data[part] - levels.fluid) / (levels.grey - levels.fluid), 0, 1)
        value = levels.fluid + (levels.grey - levels.fluid) * cortex ** (1 + self._opening)
        mixed = (cortex > 0) & (cortex < 1)
        outer = np.clip((radius - 0.55) / 0.2, 0, 1)
        blend(data, part, mixed * outer * np.clip(2 * mask.at(where), 0, 1), value)
        return data


# Tissue that is replaced --------------------------------------------------------------------------


@dataclass(frozen=True)
class Mass(_OfOneBody):
    """A space-occupying lesion: a tumour or a haematoma that pushes the tissue round it away.

    The tissue gives way smoothly; the body itself has a rim, a core and some texture, and the
    white matter round it swells (oedema). Landmarks that end up inside it are missing.

    >>> Mass(radius_mm=(8, 12))
    """

    title: ClassVar[str] = "space-occupying lesion"

    radius_mm: Range = setting((8.0, 20.0), "Mean radius of the body, mm.", low=2, high=40)
    effect: Range = setting(
        (0.3, 0.6), "Share of its distance by which tissue at the body is moved.", low=0, high=0.7
    )

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw a place in one hemisphere, a body, and how it looks."""
        side = rng.choice([-1.0, 1.0])
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2]) - 0.2
        direction /= np.linalg.norm(direction)
        centre, axes = CEREBRUM
        at = centre + np.array([side * 26, 0, 4]) + direction * axes * [0.22, 0.42, 0.3]
        body = Body.random(rng, frame.to_scan(at), uniform(rng, self.radius_mm), 0.35)
        return {
            "body": body.to_json(),
            "effect": uniform(rng, self.effect),
            "core": float(rng.uniform(0.2, 1.0)),
            "rim": float(rng.choice([0.0, rng.uniform(0.1, 0.5)])),
            "oedema_mm": float(rng.uniform(0.3, 0.9) * body.radius),
            "seed": whole(rng, (0, 2**31 - 1)),
        }

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The body with its map."""
        return _MassChange(parameters)


class _MassChange(Change):
    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._body = Body.of_json(parameters["body"])
        self._frame = BrainFrame.of_json(parameters["frame"])

    def _displacement(self, points: FloatArray) -> FloatArray:
        away = points - np.array(self._body.centre)
        width = 1.3 * self._body.radius
        weight = np.exp(-(away**2).sum(1) / (2 * width**2))
        # The skull does not give way.
        radius = self._frame.cerebral_radius(points)
        weight *= np.clip((1.15 - radius) / 0.35, 0, 1)
        result: FloatArray = -self._p["effect"] * weight[:, None] * away
        return result

    def backward(self, grid: Grid) -> Callable[[FloatArray], FloatArray]:
        return Warp(grid, self._displacement)

    def gone(self, points: FloatArray) -> Mask:
        inside: Mask = self._body.depth(points) > 0
        return inside

    def change(self, volume: Volume) -> Image:
        levels = Levels.of(volume, self._frame)
        data = Warp(volume.grid, self._displacement).resampled(volume.data)
        mask = _Brain.of(Volume(data, volume.grid), self._frame, levels)
        oedema = self._p["oedema_mm"]
        part = self._body.box(volume.grid, oedema)
        where = positions(volume.grid, part)
        depth = self._body.depth(where)
        inside_brain = mask.at(where)
        contrast = abs(levels.white - levels.fluid)
        # Oedema follows the white matter, in fingers.
        white = _likeness(data[part], levels.white, 0.3 * contrast)
        halo = np.clip(1 + depth / oedema, 0, 1) * (depth < 0)
        blend(data, part, 0.85 * halo * white * inside_brain, levels.lesion)
        texture = _texture(depth.shape, volume.grid, self._p["seed"])
        radius = self._body.radius
        core = ramp(depth - 0.35 * radius, 0.4 * radius)
        solid = levels.grey + 0.35 * (levels.lesion - levels.grey)
        necrosis = solid + self._p["core"] * 0.8 * (levels.fluid - solid)
        value = solid + core * (necrosis - solid)
        rim = np.exp(-(((depth - 2.5) / 1.8) ** 2))
        value = value + self._p["rim"] * rim * abs(levels.white)
        value = value + 0.06 * contrast * texture
        blend(data, part, ramp(depth, 2 * _EDGE_MM) * inside_brain, value)
        return data


@dataclass(frozen=True)
class Cavity(_OfOneBody):
    """A resection cavity: tissue at the surface of the brain that a surgeon has taken out.

    An irregular body round a point at the surface of a hemisphere, filled with fluid as far as the
    brain reaches. Landmarks in it are missing.

    >>> Cavity(radius_mm=(12, 18))
    """

    title: ClassVar[str] = "resection cavity"

    radius_mm: Range = setting((12.0, 26.0), "Mean radius of the body, mm.", low=3, high=50)

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw a place at the surface, and a body."""
        direction = rng.normal(size=3) * [1.2, 1.0, 0.8]
        direction[0] = (np.abs(direction[0]) + 0.3) * rng.choice([-1.0, 1.0])
        direction[2] = np.abs(direction[2]) * 0.9 - 0.25
        direction /= np.linalg.norm(direction)
        centre, axes = CEREBRUM
        radius = uniform(rng, self.radius_mm)
        at = centre + direction * (axes - 0.45 * radius)
        body = Body.random(rng, frame.to_scan(at), radius, 0.3)
        return {"body": body.to_json(), "seed": whole(rng, (0, 2**31 - 1))}

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The body that is taken out."""
        return _CavityChange(parameters)


class _CavityChange(Change):
    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._body = Body.of_json(parameters["body"])
        self._frame = BrainFrame.of_json(parameters["frame"])

    def gone(self, points: FloatArray) -> Mask:
        radius = self._frame.cerebral_radius(points)
        # An eye beside the frontal lobe is not taken out with it.
        gone: Mask = (self._body.depth(points) > 0) & (radius < 1.12)
        return gone

    def change(self, volume: Volume) -> Image:
        levels = Levels.of(volume, self._frame)
        data = volume.data.copy()
        mask = _Brain.of(volume, self._frame, levels)
        part = self._body.box(volume.grid, 4.0)
        where = positions(volume.grid, part)
        depth = self._body.depth(where)
        brain = mask.at(where)
        contrast = abs(levels.white - levels.fluid)
        # The wall is scarred: a thin rim of gliosis.
        rim = np.exp(-(((depth + 1.5) / 1.2) ** 2))
        white = _likeness(data[part], levels.white, 0.3 * contrast)
        blend(data, part, 0.7 * rim * white * brain, levels.lesion)
        texture = _texture(depth.shape, volume.grid, self._p["seed"])
        value = levels.fluid + 0.02 * contrast * texture
        blend(data, part, ramp(depth, _EDGE_MM) * brain, value)
        return data


# What leaves the landmarks ------------------------------------------------------------------------


@dataclass(frozen=True)
class WhiteMatterLesions(Abnormality):
    """White-matter lesions: spots as of small vessels or multiple sclerosis.

    Dark on T1, bright on T2 and FLAIR: the contrast follows from the scan's own grey values. They
    lie in the white matter, most of them near the ventricles; tissue and landmarks stay.

    >>> WhiteMatterLesions(count=(5, 10))
    """

    title: ClassVar[str] = "white-matter lesions"

    count: IntRange = setting((6, 40), "Number of spots.", low=0, high=500)
    radius_mm: Range = setting((1.0, 4.0), "Mean radius of a spot, mm.", low=0.5, high=15)

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw spots; those that do not lie in white matter are drawn again."""
        levels = Levels.of(volume, frame)
        tolerance = 0.35 * abs(levels.white - levels.grey) + 0.05 * abs(levels.white)
        bodies: list[dict[str, Any]] = []
        count = whole(rng, self.count)
        for _ in range(40 * count):
            if len(bodies) == count:
                break
            near = VENTRICLES[rng.integers(0, 14)] if rng.random() < 0.6 else None
            start = WHITE_MATTER[rng.integers(len(WHITE_MATTER))] if near is None else near
            at = start + rng.normal(size=3) * ([4, 9, 8] if near is None else [4, 5, 5])
            at = at * [rng.choice([-1.0, 1.0]), 1, 1]
            place = frame.to_scan(at)
            if abs(_around(volume, place) - levels.white) < tolerance:
                bodies.append(Body.random(rng, place, uniform(rng, self.radius_mm), 0.3).to_json())
        return {"bodies": bodies, "strength": float(rng.uniform(0.7, 1.0))}

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The spots."""
        return _Spots(parameters)

    @staticmethod
    def focus(parameters: Parameters) -> list[float] | None:
        """The middle of the largest spot."""
        bodies = parameters["bodies"]
        return _centre_of(max(bodies, key=lambda body: body["radius"])) if bodies else None

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"{len(parameters['bodies'])} spots"


class _Spots(Change):
    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._frame = BrainFrame.of_json(parameters["frame"])

    def change(self, volume: Volume) -> Image:
        levels = Levels.of(volume, self._frame)
        data = volume.data.copy()
        width = 0.6 * abs(levels.white - levels.grey) + 0.05 * abs(levels.white)
        for values in self._p["bodies"]:
            body = Body.of_json(values)
            part = body.box(volume.grid, 2.0)
            share = ramp(body.depth(positions(volume.grid, part)), 2.0)
            white = _likeness(volume.data[part], levels.white, width)
            blend(data, part, self._p["strength"] * share * white, levels.lesion)
        return data


@dataclass(frozen=True)
class MetalVoid(_OfOneBody):
    """No signal beside metal: dental work, a shunt valve or plates, with a bright border.

    What rendered heads have as boxes (`heads.void_share`) has here the rounded shape and the
    bright border of signal that has piled up. The landmarks stay: what the void hides has to be
    inferred.

    >>> MetalVoid(radius_mm=(10, 15))
    """

    title: ClassVar[str] = "metal"

    radius_mm: Range = setting((10.0, 28.0), "Mean radius without signal, mm.", low=2, high=80)

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw a place at the teeth or on the skull, and a body."""
        if rng.random() < 0.5:
            at = DENTAL * [rng.choice([-1.0, 1.0]), 1, 1] + rng.normal(size=3) * 4
        else:
            direction = rng.normal(size=3)
            direction[2] = np.abs(direction[2])
            centre, axes = CEREBRUM
            at = centre + 1.12 * axes * direction / np.linalg.norm(direction)
        body = Body.random(rng, frame.to_scan(at), uniform(rng, self.radius_mm), 0.35)
        return {"body": body.to_json()}

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The void and its border."""
        return _Void(parameters)


class _Void(Change):
    def __init__(self, parameters: Parameters) -> None:
        self._body = Body.of_json(parameters["body"])

    def change(self, volume: Volume) -> Image:
        data = volume.data.copy()
        part = self._body.box(volume.grid, 6.0)
        depth = self._body.depth(positions(volume.grid, part))
        border = np.exp(-(((depth + 1.5) / 1.5) ** 2))
        data[part] *= (1 + 0.8 * border).astype(np.float32)
        blend(data, part, ramp(depth, 3.0), 0.0)
        return data


@dataclass(frozen=True)
class Enhancement(Abnormality):
    """Contrast agent: sinuses, large arteries and the dura are bright.

    Tubes along where the sinuses and arteries of the reference lie, a thin shell round the brain,
    brighter than white matter. The landmarks stay.

    >>> Enhancement(level=(1.2, 1.4))
    """

    title: ClassVar[str] = "contrast agent"

    level: Range = setting(
        (1.1, 1.7), "Brightness of the blood, as a multiple of white matter's.", low=0.5, high=4
    )

    def place(self, rng: np.random.Generator, volume: Volume, frame: BrainFrame) -> Parameters:
        """Draw the brightness of the blood and of the dura, and how the vessels wind."""
        return {
            "level": uniform(rng, self.level),
            "dura": float(rng.uniform(0.5, 0.8)),
            "seed": whole(rng, (0, 2**31 - 1)),
        }

    @staticmethod
    def build(parameters: Parameters) -> Change:
        """The bright vessels and the dura."""
        return _Bright(parameters)

    @staticmethod
    def focus(parameters: Parameters) -> list[float]:
        """At the middle of the brain, on the sagittal sinus."""
        return _in_scan(parameters, [0.5, 2.0, 14.0])

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"blood {parameters['level']:.1f} x\nwhite matter"


class _Bright(Change):
    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._frame = BrainFrame.of_json(parameters["frame"])

    def change(self, volume: Volume) -> Image:
        levels = Levels.of(volume, self._frame)
        data = volume.data.copy()
        bright = self._p["level"] * levels.white
        mask = _Brain.of(volume, self._frame, levels)
        # The dura lies round the brain and its fluid; not at the bottom, where the mask just ends.
        distance = beyond_envelope(mask.share, mask.grid)
        height = self._frame.to_reference(positions(mask.grid, _all(mask.grid)))[..., 2]
        shell = np.exp(-(((distance - 1.0) / 1.3) ** 2)) * np.clip((height + 25) / 20, 0, 1)
        part = _all(volume.grid)
        share = self._p["dura"] * _Brain(shell, mask.grid).at(positions(volume.grid, part))
        data += (np.maximum(0.0, bright - data) * share).astype(np.float32)
        rng = np.random.default_rng(self._p["seed"])
        for curves, radius in ((SINUSES, 2.2), (ARTERIES, 1.1)):
            for curve in curves:
                sides = [curve] if np.all(curve[:, 0] == 0) else [curve, curve * [-1, 1, 1]]
                for side in sides:
                    self._tube(data, volume.grid, side, radius, bright, rng)
        return data

    def _tube(
        self, data: Image, grid: Grid, curve: FloatArray, radius: float, bright: float,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        from scipy.spatial import cKDTree

        points = _dense(curve, 1.0)
        wind = rng.normal(size=(len(curve) + 2, 3)).cumsum(0)
        wind -= np.linspace(wind[0], wind[-1], len(wind))
        at = np.linspace(0, len(wind) - 1, len(points))
        points = points + 0.8 * np.stack([np.interp(at, range(len(wind)), w) for w in wind.T], -1)
        places = self._frame.to_scan(points)
        part = box(grid, places, 3 * radius)
        where = positions(grid, part)
        distance, _ = cKDTree(places).query(where.reshape(-1, 3), distance_upper_bound=3 * radius)
        depth = radius - np.minimum(distance, 3 * radius).reshape(where.shape[:-1])
        window = data[part]
        window += (np.maximum(0.0, bright - window) * ramp(depth, 1.6)).astype(np.float32)


# Parts of the above -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Brain:
    """A share of each voxel, on a coarse grid of its own."""

    share: FloatArray
    grid: Grid

    @classmethod
    def of(cls, volume: Volume, frame: BrainFrame, levels: Levels) -> _Brain:
        return cls(*brain_mask(volume, frame, levels))

    def at(self, where: FloatArray) -> FloatArray:
        """The share at positions, (..., 3) to (...), linearly interpolated."""
        from scipy.ndimage import map_coordinates

        ijk = np.moveaxis(self.grid.ras_to_ijk(where), -1, 0)
        result: FloatArray = map_coordinates(self.share, ijk, order=1, mode="nearest")
        return result


def _likeness(values: Image, level: float, width: float) -> FloatArray:
    """How much grey values are like a level, 0 to 1."""
    result: FloatArray = np.exp(-(((values - level) / (width + 1e-6)) ** 2))
    return result


def _centre_of(body: Parameters) -> list[float]:
    return [float(value) for value in body["centre"]]


def _in_scan(parameters: Parameters, reference: list[float]) -> list[float]:
    place = BrainFrame.of_json(parameters["frame"]).to_scan(np.array(reference))
    return [float(value) for value in place]


def _all(grid: Grid) -> tuple[slice, slice, slice]:
    i, j, k = (slice(0, n) for n in grid.shape)
    return i, j, k


def _corners() -> FloatArray:
    """The corners of the box round the reference's hemispheres."""
    centre, axes = CEREBRUM
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), -1).reshape(-1, 3)
    return centre + signs * axes


def _dense(curve: FloatArray, step: float) -> FloatArray:
    """Points along a smooth curve through some, ``step`` mm apart."""
    from scipy.interpolate import CubicSpline

    lengths = np.r_[0, np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()]
    at = np.linspace(0, lengths[-1], max(2, round(lengths[-1] / step)))
    points: FloatArray = CubicSpline(lengths, curve)(at)
    return points


def _within(points: FloatArray, places: FloatArray, reach: float) -> Mask:
    low, high = places.min(0) - reach, places.max(0) + reach
    inside: Mask = ((points > low) & (points < high)).all(axis=1)
    return inside


def _around(volume: Volume, place: FloatArray) -> float:
    """Mean grey value within about 2 mm of a position."""
    part = box(volume.grid, place[None], 2.0)
    window = volume.data[part]
    return float(window.mean()) if window.size else float("nan")


def _texture(shape: tuple[int, ...], grid: Grid, seed: int) -> FloatArray:
    """Smooth noise of unit variance, its grains about 5 mm."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, (2.2 / grid.spacing).tolist())
    result: FloatArray = smooth / max(float(smooth.std()), 1e-6)
    return result
