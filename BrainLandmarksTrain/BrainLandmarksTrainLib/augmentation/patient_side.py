"""Patient side (Table II): what differs from head to head and from one visit to the next.

These are the spatial transforms. The elastic deformation and the affine map move anatomy, and the
landmarks with it; anisotropy changes only how finely the anatomy is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksTrainLib.settings import Range, setting

from .landmark_transform import FOLD_LIMIT
from .transform import Parameters, Transform, three, tio, uniform

if TYPE_CHECKING:
    import torchio

SPLINE_ORDER = 3


@dataclass(frozen=True)
class Elastic(Transform):
    """Another anatomy: smooth local stretching and shifting, as between two people or with atrophy.

    No scanner does this; it stands for the shapes that heads have. A coarse lattice of control
    points covers the image, each of the inner ones is displaced at random, and cubic B-splines
    carry the displacement to every voxel (Rueckert et al., IEEE TMI 18:712-721, 1999).

    Points near the image's border hardly move, because the outer control points are locked.
    TorchIO's own generator leaves those along the third axis free; here all three axes are locked.

    >>> Elastic(max_displacement_mm=5.0)
    """

    title: ClassVar[str] = "elastic deformation"

    control_points: int = setting(
        7, "Control points along each axis, those outside the image included.", low=4, high=40
    )
    max_displacement_mm: float = setting(
        7.5, "Largest displacement of a control point along each axis, mm.", low=0, high=100
    )
    locked_borders: int = setting(
        2, "Layers of control points along the border that stay where they are.", low=0, high=2
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw the displacements of the free control points, mm, in ITK's axes (LPS).

        Raises:
            UserError: such displacements could fold this image, or no control point is free.
        """
        free = self.control_points - 2 * self.locked_borders
        if free < 1:
            raise UserError(
                f"augmentation setting 'elastic.control_points' must be above "
                f"{2 * self.locked_borders} when {self.locked_borders} borders are locked."
            )
        between = volume.grid.extent / (self.control_points - SPLINE_ORDER)
        # Along an oblique voxel axis the displacements of the three world axes add up.
        directions = volume.grid.affine[:3, :3] / volume.grid.spacing
        most = float((FOLD_LIMIT * between / np.abs(directions).sum(axis=0)).min())
        if self.max_displacement_mm > most:
            raise UserError(
                f"'elastic.max_displacement_mm' of {self.max_displacement_mm:g} can fold an image "
                f"of {' x '.join(f'{mm:.0f}' for mm in volume.grid.extent)} mm; use at most "
                f"{np.floor(10 * most) / 10:g}, or fewer control points."
            )
        size = (free, free, free, 3)
        displacements = rng.uniform(-self.max_displacement_mm, self.max_displacement_mm, size)
        return {
            "control_points": self.control_points,
            # A ten-thousandth of a millimetre is enough, and keeps the record short.
            "displacements_lps_mm": displacements.round(4).tolist(),
        }

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `ElasticDeformation`."""
        free = np.array(parameters["displacements_lps_mm"], dtype=np.float64)
        count = parameters["control_points"]
        border = (count - len(free)) // 2
        field = np.zeros((count, count, count, 3))
        inner = slice(border, count - border)
        field[inner, inner, inner] = free
        most = tuple(float(m) for m in np.abs(field).reshape(-1, 3).max(axis=0))
        return tio().ElasticDeformation(control_points=field, max_displacement=most)

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        most = np.abs(parameters["displacements_lps_mm"]).max()
        return f"{parameters['control_points']}³ control points\nup to {most:.1f} mm"


@dataclass(frozen=True)
class Affine(Transform):
    """A head of another size, turned and shifted in the coil.

    Scaling stands for the sizes of heads, rotation and shift for the way the patient lies: chin up
    or down, head turned or tilted, not in the middle of the coil. About the middle of the image.

    The paper's example is a rotation by 20 degrees. The scales are TorchIO's; the shift is what
    keeps most of a head in a field of view of 224 mm.

    >>> Affine(rotation_deg=(-40, 40))
    """

    title: ClassVar[str] = "affine"

    scale: Range = setting(
        (0.9, 1.1), "Factor of size along each world axis; above 1 is larger.", low=0.2, high=5
    )
    rotation_deg: Range = setting(
        (-20.0, 20.0), "Rotation about each world axis, degrees.", low=-180, high=180
    )
    translation_mm: Range = setting(
        (-10.0, 10.0), "Shift along each world axis (RAS), mm.", low=-200, high=200
    )

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw three scales, angles and shifts."""
        return {
            "scales": three(rng, self.scale),
            "degrees": three(rng, self.rotation_deg),
            "translation": three(rng, self.translation_mm),
        }

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `Affine`, about the middle of the image."""
        return tio().Affine(**parameters)

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        turn = ", ".join(f"{angle:.0f}" for angle in parameters["degrees"])
        size = ", ".join(f"{scale:.2f}" for scale in parameters["scales"])
        return f"turned {turn}°\nscaled {size}"


@dataclass(frozen=True)
class Anisotropy(Transform):
    """Thick slices: a protocol that saves time by sampling one direction coarsely.

    The image is sampled at the slice distance along one voxel axis and interpolated back. The
    patient lies as before, so the landmarks stay. The paper counts it to the patient side because
    it is a spatial transform. TorchIO takes the nearest voxel of each thick slice, without
    averaging over its thickness; up to one slice at either end is lost.

    >>> Anisotropy(slice_mm=(3.0, 5.0))
    """

    title: ClassVar[str] = "anisotropy"

    slice_mm: Range = setting(
        (2.0, 6.0),
        "Distance of the slices along one of the three voxel axes, mm.",
        low=0.1,
        high=50,
    )

    def visible(self, spacing_mm: float) -> bool:
        """Whether voxels of a size would change: whether the slices are thicker than they."""
        return bool(spacing_mm < 0.9 * self.slice_mm[1])

    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw the voxel axis and the factor by which its voxels grow.

        Raises:
            UserError: every axis of the image is coarser than the range already.
        """
        axes = np.flatnonzero([self.visible(spacing) for spacing in volume.grid.spacing])
        if len(axes) == 0:
            raise UserError(
                f"'anisotropy.slice_mm' ends at {self.slice_mm[1]:g}, but the voxels are "
                f"{volume.grid.spacing.min():.2g} mm or larger; raise it."
            )
        axis = int(rng.choice(axes))
        voxel = float(volume.grid.spacing[axis])
        thickness = uniform(rng, (max(self.slice_mm[0], 1.1 * voxel), self.slice_mm[1]))
        return {"axis": axis, "factor": thickness / voxel}

    @staticmethod
    def build(parameters: Parameters) -> torchio.Transform:
        """TorchIO's `RandomAnisotropy` with nothing left to chance."""
        factor = parameters["factor"]
        return tio().RandomAnisotropy(axes=(parameters["axis"],), downsampling=(factor, factor))

    @staticmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines."""
        return f"axis {'ijk'[parameters['axis']]},\n{parameters['factor']:.1f} times as thick"
