"""Synthetic training heads: label maps turned into images of random anatomy, pose and contrast.

A head that exists only as labels becomes an endless supply of images (Billot et al., SynthSeg,
Med. Image Anal. 86:102789, 2023). Every sample draws

* an anatomy: size, shear, smooth non-linear deformation, left-right flip;
* a scanner: contrast per tissue (T1-like in half of the samples), texture, partial volume, slice
  thickness, bias field, noise;
* a protocol: pose in the scanner, field of view that may cut the neck or the top.

The landmarks are carried through the very same functions, point by point: the deformation is a
cubic B-spline whose value at a point is known exactly, and its inverse is solved to 1e-3 mm.
Points that a rule places (equal distances along a contour, extremes) do not follow a deformation,
though: training deforms label maps first and places the landmarks anew (:mod:`.offspring`), and
draws only pose, size and scanner here.
Everything runs on torch tensors, on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from BrainLandmarksLib import intensity
from BrainLandmarksLib.geometry import Grid, apply_affine, rigid_fit

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
_NAMES = ("air", *TISSUES)
_HEAD_REACH_MM = 104.0


@dataclass(frozen=True)
class Head:
    """A label map ready for rendering.

    ``tissues`` (I, J, K) uint8 tensor of tissue numbers, ``affine`` ijk -> RAS, ``landmarks``
    (K, 3) RAS mm with NaN for missing points, ``to_head`` 4x4 from canonical to this head's RAS.
    """

    name: str
    tissues: torch.Tensor
    affine: np.ndarray
    landmarks: np.ndarray
    to_head: np.ndarray


def make_head(
    name: str,
    labels: np.ndarray,
    affine: np.ndarray,
    landmarks: np.ndarray,
    mean_shape: np.ndarray,
    device: torch.device | str = "cpu",
) -> Head:
    """Head from an integer label array; its pose comes from ``mean_shape`` (K, 3)."""
    highest = max(int(labels.max()), max(max(numbers) for numbers, _ in TISSUES.values()))
    lookup = np.zeros(highest + 1, np.uint8)
    # A label that the table does not know is something in the head: soft tissue.
    lookup[1:] = _NAMES.index("soft tissue")
    for number, (members, _) in enumerate(TISSUES.values(), start=1):
        lookup[list(members)] = number
    known = np.isfinite(landmarks).all(1)
    to_head = rigid_fit(mean_shape[known], landmarks[known])
    tissues = torch.from_numpy(lookup[labels.astype(np.int64)]).to(device)
    return Head(name, tissues, np.asarray(affine, float), np.asarray(landmarks, float), to_head)


def nearest_voxels(head: Head, canonical: torch.Tensor) -> torch.Tensor:
    """Value of a head's map at canonical points (3, ...): nearest voxel, 0 outside the map."""
    to_voxel = np.linalg.inv(head.affine) @ head.to_head
    m = torch.as_tensor(to_voxel, dtype=torch.float32, device=canonical.device)
    shape = head.tissues.shape
    flat = canonical.reshape(3, -1)
    voxel = torch.addmm(m[:3, 3:], m[:3, :3], flat).add_(0.5).floor_().to(torch.int32)
    inside = torch.ones(flat.shape[1], dtype=torch.bool, device=flat.device)
    for k in range(3):
        inside &= (voxel[k] >= 0) & (voxel[k] < shape[k])
    index = (voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]
    index = torch.where(inside, index, 0)
    found = torch.where(inside, head.tissues.flatten()[index], 0)
    return found.view(canonical.shape[1:])


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
    told from the rest of the head."""
    void_mm: tuple[float, float] = (20.0, 60.0)
    signals: tuple[float, ...] = ()
    """Signal of each of `TISSUES` where the image is not of random contrast; () is that of a T1."""


ANATOMY = Variation(rotation_deg=0.0, translation_mm=0.0, flip_share=0.0, warp_symmetry=0.85)
"""How heads differ from one another, without pose."""

CANONICAL = Variation(scale=0.05, stretch=0.0, shear=0.0, warp_mm=(), warp_spacing_mm=())
"""What the fine network meets: heads already brought close to the canonical pose."""

ANY_POSE = replace(CANONICAL, rotation_deg=40.0, translation_mm=35.0, thickness_mm=8.0)
"""What the locator meets: any head in any pose."""


class Spline:
    """Uniform cubic B-spline of a lattice of coefficients on a cube centred at the origin."""

    def __init__(self, coefficients: torch.Tensor, spacing_mm: float) -> None:
        self.coefficients = coefficients  # (C, n, n, n)
        self.spacing = spacing_mm
        self.first = -spacing_mm * (coefficients.shape[1] - 1) / 2

    @classmethod
    def random(
        cls,
        channels: int,
        deviation: float,
        spacing_mm: float,
        reach_mm: float,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> Spline:
        """Random smooth field of a given standard deviation (mm or log units) up to a reach."""
        count = int(np.ceil(2 * reach_mm / spacing_mm)) + 4
        shape = (channels, count, count, count)
        # Per axis a B-spline keeps 0.48 of the variance of independent coefficients on average,
        # in three dimensions 0.11, which is 0.33 of their deviation.
        noise = torch.randn(shape, generator=generator).to(device)
        return cls(noise * (deviation / 0.33), spacing_mm)

    def basis(self, at: torch.Tensor) -> torch.Tensor:
        """(n,) positions in mm -> (n, count) weights."""
        knots = self.first + self.spacing * torch.arange(
            self.coefficients.shape[1], device=at.device, dtype=at.dtype
        )
        t = ((at[:, None] - knots) / self.spacing).abs()
        return torch.where(
            t < 1, 2 / 3 - t**2 + t**3 / 2, torch.where(t < 2, (2 - t).clamp(min=0) ** 3 / 6, 0.0)
        )

    def on_lattice(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Values on the lattice x * y * z: (C, nx, ny, nz)."""
        c = self.coefficients
        values = torch.tensordot(self.basis(x), c, ([1], [1]))  # (x, c, j, k)
        values = torch.tensordot(self.basis(y), values, ([1], [2]))  # (y, x, c, k)
        values = values.permute(2, 1, 0, 3)
        return values @ self.basis(z).T

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at (n, 3) points: (n, C), float64; only the 4^3 coefficients that matter."""
        c = self.coefficients.cpu().numpy().astype(float)
        count = c.shape[1]
        where = (points - self.first) / self.spacing
        base = np.floor(where)
        t = where - base
        weights = (
            np.stack(
                [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1
            )
            / 6
        )  # (n, 3, 4)
        index = base.astype(int)[..., None] + np.arange(-1, 3)
        weights *= (index >= 0) & (index < count)
        index = index.clip(0, count - 1)
        near = c[
            :, index[:, 0, :, None, None], index[:, 1, None, :, None], index[:, 2, None, None, :]
        ]
        return np.einsum("cnijk,ni,nj,nk->nc", near, *weights.transpose(1, 0, 2), optimize=True)


class Deformation:
    """Image point to canonical head point: x -> matrix x + shift + warp(x)."""

    def __init__(self, matrix: np.ndarray, shift: np.ndarray, warps: Sequence[Spline]) -> None:
        self.matrix = matrix
        self.shift = shift
        self.warps = list(warps)

    @classmethod
    def random(
        cls,
        variation: Variation,
        rng: np.random.Generator,
        generator: torch.Generator,
        reach_mm: float,
        device: torch.device | str,
    ) -> Deformation:
        """Draw pose, size, shear and warps."""
        angles = np.deg2rad(rng.uniform(-1, 1, 3) * variation.rotation_deg)
        rotation = _rotation(angles)
        size = np.exp(
            rng.uniform(-1, 1) * variation.scale + rng.uniform(-1, 1, 3) * variation.stretch
        )
        shear = np.eye(3)
        shear[np.triu_indices(3, 1)] = rng.uniform(-1, 1, 3) * variation.shear
        # Anatomy first (in the head's own axes), pose last: image -> head undoes the pose first.
        matrix = np.diag(1 / size) @ shear @ rotation
        if rng.random() < variation.flip_share:
            matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
        shift = -matrix @ (rng.uniform(-1, 1, 3) * variation.translation_mm)
        warps = [
            Spline.random(3, rng.uniform(0, deviation), spacing, reach_mm, generator, device)
            for deviation, spacing in zip(variation.warp_mm, variation.warp_spacing_mm)
        ]
        for warp in warps:
            warp.coefficients = _alike(warp.coefficients, variation.warp_symmetry)
        return cls(matrix, shift, warps)

    @property
    def flips(self) -> bool:
        """Whether left and right are exchanged."""
        return bool(np.linalg.det(self.matrix) < 0)

    def on_lattice(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Canonical points of the lattice x * y * z: (3, nx, ny, nz)."""
        m = torch.as_tensor(self.matrix, dtype=x.dtype, device=x.device)
        s = torch.as_tensor(self.shift, dtype=x.dtype, device=x.device)
        mapped = (
            (m[:, 0, None] * x)[:, :, None, None]
            + (m[:, 1, None] * y)[:, None, :, None]
            + (m[:, 2, None] * z)[:, None, None, :]
            + s[:, None, None, None]
        )
        for warp in self.warps:
            mapped += warp.on_lattice(x, y, z)
        return mapped

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """Sum of the warps at (n, 3) image points, mm."""
        return np.sum([warp.at(points) for warp in self.warps], axis=0)

    def inverse(self, points: np.ndarray, tolerance_mm: float = 1e-3) -> np.ndarray:
        """Image points whose canonical points are ``points`` (n, 3); NaN where none is found."""
        inverse = np.linalg.inv(self.matrix)
        guess = (points - self.shift) @ inverse.T
        for _ in range(60):
            new = (points - self.shift - self.displacement(guess)) @ inverse.T
            moved = np.abs(new - guess).max(initial=0.0)
            guess = new
            if moved < tolerance_mm / 4:
                break
        reached = guess @ self.matrix.T + self.shift + self.displacement(guess)
        lost = np.abs(reached - points).max(1) > tolerance_mm
        guess[lost] = np.nan
        return guess


def image_points(
    deformation: Deformation, to_head: np.ndarray, landmarks: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Where a deformed image shows the landmarks of a head.

    Args:
        to_head: 4x4 from canonical points to the head's RAS.
        landmarks: (K, 3) RAS mm, NaN for missing ones.
        mirror: (K,) exchanges left and right landmarks of a flipped image.

    Returns:
        (K, 3) image mm.
    """
    canonical = apply_affine(np.linalg.inv(to_head), landmarks)
    points = np.full_like(canonical, np.nan)
    known = np.isfinite(canonical).all(1)
    points[known] = deformation.inverse(canonical[known])
    return points[mirror] if deformation.flips else points


def in_cube(lattice: Lattice, points: np.ndarray) -> np.ndarray:
    """Voxel coordinates (K, 3) of image points in mm, NaN for those outside the lattice."""
    ijk = lattice.to_ijk(points)
    inside = np.all((ijk >= -0.5) & (ijk <= np.array(lattice.shape) - 0.5), axis=1)
    return np.where(inside[:, None], ijk, np.nan)


def _alike(coefficients: torch.Tensor, share: float) -> torch.Tensor:
    """Random vectors (3, n, n, n) with ``share`` of their variance symmetric about x = 0."""
    sign = torch.tensor([-1.0, 1.0, 1.0], device=coefficients.device).view(3, 1, 1, 1)
    mirrored = coefficients.flip(1) * sign
    even, odd = (coefficients + mirrored) / 2, (coefficients - mirrored) / 2
    return float(np.sqrt(2 * share)) * even + float(np.sqrt(2 * (1 - share))) * odd


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx


@dataclass(frozen=True)
class Lattice:
    """Rendered voxels: ``shape`` voxels of ``spacing_mm``, centred on the canonical origin.

    ``oversampling`` sub-voxels per axis give the partial volume. A ``center_mm`` other than the
    origin makes a box beside it.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    oversampling: int = 2
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def reach_mm(self) -> float:
        """Farthest from the origin along any axis."""
        half = np.array(self.shape) * self.spacing_mm / 2
        return float((np.abs(self.center_mm) + half).max())

    @property
    def grid(self) -> Grid:
        """The voxels as an image's grid, in canonical mm."""
        affine = np.diag([self.spacing_mm] * 3 + [1.0])
        affine[:3, 3] = self.center_mm - (np.array(self.shape) - 1) / 2 * self.spacing_mm
        return Grid(self.shape, affine)

    def axes(self, device: torch.device | str) -> list[torch.Tensor]:
        """Sub-voxel centres along each axis, mm."""
        result = []
        for count, middle in zip(self.shape, self.center_mm):
            n = count * self.oversampling
            step = self.spacing_mm / self.oversampling
            at = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
            result.append(at * step + middle)
        return result

    def to_ijk(self, points: np.ndarray) -> np.ndarray:
        """Image mm -> voxel coordinates (voxel centres at integers)."""
        return (points - self.center_mm) / self.spacing_mm + (np.array(self.shape) - 1) / 2


@dataclass(frozen=True)
class HeadSampler:
    """Makes the samples that the trainer takes (`engine.batches.Sampler`)."""

    generator: HeadGenerator
    lattice: Lattice

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised cube (1, I, J, K) and points (K, 3) in voxels, NaN missing."""
        image, points = self.generator.sample(self.lattice, rng)
        cube = intensity.normalise(image)[None]
        return cube, torch.as_tensor(points, dtype=torch.float32)


class HeadGenerator:
    """Draws synthetic images of one or more heads.

    Example::

        generator = HeadGenerator(heads, protocol.mirror_permutation(), CANONICAL)
        image, points = generator.sample(Lattice((64, 64, 64), 3.25), np.random.default_rng(0))

    ``mirror`` (K,) exchanges left and right landmarks when a sample is flipped.
    """

    def __init__(self, heads: Sequence[Head], mirror: np.ndarray, variation: Variation) -> None:
        self.heads = list(heads)
        self.mirror = np.asarray(mirror)
        self.variation = variation

    def sample(
        self, lattice: Lattice, rng: np.random.Generator, head: Head | None = None
    ) -> tuple[torch.Tensor, np.ndarray]:
        """One image and its landmarks.

        Returns (image, points): image float32 (I, J, K), not normalised, air = 0; points (K, 3) in
        voxel coordinates of the lattice, NaN where the landmark is not in the image.
        """
        v = self.variation
        head = head or self.heads[rng.integers(len(self.heads))]
        device = head.tissues.device
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        reach = lattice.reach_mm
        deformation = Deformation.random(v, rng, noise, reach, device)
        axes = lattice.axes(device)
        tissue = nearest_voxels(head, deformation.on_lattice(*axes))
        stripped = rng.random() < v.stripped_share
        image = self._signal(tissue, rng, noise, stripped)
        bias = Spline.random(1, rng.uniform(0, v.bias), 90.0, reach, noise, device)
        image *= bias.on_lattice(*axes)[0].exp()
        image = self._thick_slices(image, lattice, rng)
        shape = lattice.shape
        n = lattice.oversampling
        image = image.view(shape[0], n, shape[1], n, shape[2], n).mean((1, 3, 5))
        image = self._add_noise(image, rng, noise)
        points = image_points(deformation, head.to_head, head.landmarks, self.mirror)
        image, seen = self._cut(image, lattice, points, rng)
        image = self._voids(image, lattice, rng)
        return image, in_cube(lattice, np.where(seen[:, None], points, np.nan))

    def _signal(
        self, tissue: torch.Tensor, rng: np.random.Generator, noise: torch.Generator, strip: bool
    ) -> torch.Tensor:
        """Signal of every sub-voxel: a mean and a texture per tissue."""
        v = self.variation
        usual = v.signals or tuple(signal for _, signal in TISSUES.values())
        t1 = np.array([0.0, *usual])
        if rng.random() < v.t1_share:
            spread = np.where(np.isin(_NAMES, EXTRACEREBRAL), 0.30, 0.06)
            mean = t1 * (1 + spread * rng.standard_normal(len(t1)))
            # The grey-white and grey-fluid contrasts vary with the sequence, not their order.
            mean = np.clip(mean, 0, 1.4) ** rng.uniform(0.7, 1.5)
        else:
            mean = rng.uniform(0, 1, len(t1))
        texture = rng.uniform(0, v.texture, len(t1))
        mean[0] = 0.0
        texture[0] = 0.0
        if strip:
            hidden = np.isin(_NAMES, EXTRACEREBRAL)
            mean[hidden] = 0.0
            texture[hidden] = 0.0
        device = tissue.device
        index = tissue.to(torch.int64)
        means = torch.as_tensor(mean, dtype=torch.float32, device=device)
        textures = torch.as_tensor(texture, dtype=torch.float32, device=device)
        grain = torch.randn(tissue.shape, generator=noise).to(device)
        return (means[index] + textures[index] * grain).clamp_(min=0)

    def _thick_slices(
        self, image: torch.Tensor, lattice: Lattice, rng: np.random.Generator
    ) -> torch.Tensor:
        """Blur of the acquired voxel: a little in plane, a lot across thick slices."""
        v = self.variation
        size = np.full(3, rng.uniform(0.5, 2.0))
        if rng.random() < v.thick_share:
            size[rng.integers(3)] = rng.uniform(2.0, v.thickness_mm)
        step = lattice.spacing_mm / lattice.oversampling
        for axis in range(3):
            sigma = size[axis] / 2.355 / step
            if sigma > 0.3:
                image = _blur(image, sigma, axis)
        return image

    def _add_noise(
        self, image: torch.Tensor, rng: np.random.Generator, noise: torch.Generator
    ) -> torch.Tensor:
        """Rician noise: the magnitude of a complex signal."""
        scale = rng.uniform(0, self.variation.noise) * float(image.max())
        real = torch.randn(image.shape, generator=noise).to(image.device)
        imaginary = torch.randn(image.shape, generator=noise).to(image.device)
        return torch.hypot(image + scale * real, scale * imaginary)

    def _cut(
        self, image: torch.Tensor, lattice: Lattice, points: np.ndarray, rng: np.random.Generator
    ) -> tuple[torch.Tensor, np.ndarray]:
        """End of the field of view: beyond a plane there is nothing.

        Returns the cut image and which of ``points`` (image mm) are still in it.
        """
        seen = np.isfinite(points).all(1)
        if rng.random() >= self.variation.cut_share or not seen.any():
            return image, seen
        normal = _cut_direction(rng)
        # Mostly below everything that matters (a neck), sometimes through the landmarks.
        height = points[seen] @ normal
        low, high = height.min(), height.max()
        end = max(high + 25 - rng.exponential(22.0), (low + high) / 2)
        x, y, z = (
            torch.as_tensor(
                ((np.arange(n) - (n - 1) / 2) * lattice.spacing_mm + lattice.center_mm[k])
                * normal[k],
                dtype=torch.float32,
                device=image.device,
            )
            for k, n in enumerate(lattice.shape)
        )
        level = x[:, None, None] + y[None, :, None] + z[None, None, :]
        image = torch.where(level <= end, image, 0.0)
        with np.errstate(invalid="ignore"):
            seen &= points @ normal <= end
        return image, seen

    def _voids(
        self, image: torch.Tensor, lattice: Lattice, rng: np.random.Generator
    ) -> torch.Tensor:
        """Boxes without signal (random erasing, Zhong et al., AAAI 2020).

        They are drawn over the whole head, so a lattice that shows a part of it has its share.
        """
        if rng.random() >= self.variation.void_share:
            return image
        image = image.clone()
        for _ in range(rng.integers(1, 4)):
            size = rng.uniform(*self.variation.void_mm, 3) / lattice.spacing_mm
            first = lattice.to_ijk(rng.uniform(-1, 1, 3) * max(lattice.reach_mm, _HEAD_REACH_MM))
            low = np.clip(np.round(first - size / 2), 0, None).astype(int)
            high = np.clip(np.round(first + size / 2), 0, None).astype(int)
            image[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 0.0
        return image


def _cut_direction(rng: np.random.Generator) -> np.ndarray:
    """Unit vector pointing out of the field of view: neck mostly, top or a side at times."""
    axes = np.array([[0, 0, -1], [0, 0, 1], [0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0]], float)
    chosen = rng.choice(6, p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05])
    return _rotation(np.deg2rad(rng.uniform(-15, 15, 3))) @ axes[chosen]


def _blur(image: torch.Tensor, sigma: float, axis: int) -> torch.Tensor:
    """Gaussian along one axis, sigma in voxels, nothing (0) outside."""
    radius = int(np.ceil(3 * sigma))
    t = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel /= kernel.sum()
    moved = image.movedim(axis, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    blurred = torch.nn.functional.conv1d(flat, kernel[None, None], padding=radius)
    return blurred.view(moved.shape).movedim(-1, axis).contiguous()
