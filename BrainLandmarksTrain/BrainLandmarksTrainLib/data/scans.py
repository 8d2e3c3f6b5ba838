"""Real scans as training samples: read once, kept small, posed and varied anew in every step.

A scan is resampled once to the finest voxels that any training cube needs (half the fine network's)
and kept as a file in half precision; a step reads it from there. Everything else happens at the
network's resolution: the pose is drawn and sampled with the anatomy's exact map, as for rendered
heads, and the paper's policies (section III-D) are applied to the cube. Blur, shading and artefacts
of k-space act on what the network sees; what is finer than its voxels it never sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging import intensity
from BrainLandmarksLib.imaging.preprocessing import preprocessed
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.augmentation import AugmentationConfig, AugmentWithLandmarks
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.synthesis.deformation import Deformation, image_points
from BrainLandmarksTrainLib.synthesis.lattice import Lattice, in_cube
from BrainLandmarksTrainLib.synthesis.variation import Variation

_ENOUGH = 4
"""Landmarks that a scan needs, or its pose would not be known."""


@dataclass(frozen=True)
class TrainingScan:
    """A scan ready for sampling.

    ``file`` holds its voxels, ``affine`` is ijk -> RAS, ``landmarks`` (K, 3) RAS mm with NaN for
    those that are missing or that nobody has confirmed.
    """

    name: str
    file: Path
    affine: FloatArray
    landmarks: FloatArray

    def to_head(self, mean_shape: FloatArray) -> FloatArray:
        """4x4 from the canonical pose of ``mean_shape`` (K, 3) to this scan's RAS."""
        return rigid_fit(mean_shape, self.landmarks)

    def seen(self, lattice: Lattice, deformation: Deformation, to_head: FloatArray) -> torch.Tensor:
        """The scan, deformed, on the voxels of a lattice, (I, J, K), not normalised."""
        where = deformation.on_lattice(*lattice.axes("cpu"))
        image = load_file(self.file)["image"].float()
        return lattice.means(_linear(image, self.affine, to_head, where))


def read_scans(
    dataset: Dataset, entries: Sequence[Entry], spacing_mm: float, cache: Path
) -> list[TrainingScan]:
    """Scans of a dataset, resampled to cubic voxels; what is in ``cache`` already is used.

    Raises:
        UserError: a file of the dataset cannot be read, or a scan has too few landmarks that are
            truth.
    """
    cache.mkdir(parents=True, exist_ok=True)
    scans = []
    for entry in entries:
        points, _ = true_points(dataset.read_landmarks(entry).current)
        if np.isfinite(points).all(1).sum() < _ENOUGH:
            raise UserError(
                f"scan {entry.identity} of {dataset.folder} has fewer than {_ENOUGH} landmarks "
                "that a person placed or confirmed; confirm more, or take it out of the split."
            )
        known_by = f"{entry.image_hash} {spacing_mm:.6f} 1"
        file = cache / f"{sha256([known_by])[:24]}.safetensors"
        if not file.is_file():
            _keep(dataset.read(entry).volume, spacing_mm, file)
        affine = load_file(file)["affine"].double().numpy()
        scans.append(TrainingScan(entry.identity, file, affine, points))
    return scans


def _keep(volume: Volume, spacing_mm: float, file: Path) -> None:
    head = preprocessed(volume)
    size = np.array(head.grid.shape) * head.grid.spacing
    shape = tuple(int(n) for n in np.maximum(np.ceil(size / spacing_mm), 1))
    directions = head.grid.affine[:3, :3] / head.grid.spacing
    small = np.eye(4)
    small[:3, :3] = directions * spacing_mm
    small[:3, 3] = head.grid.center_ras - small[:3, :3] @ ((np.array(shape) - 1) / 2)
    voxels = resample(head, Grid(shape, small))  # type: ignore[arg-type]
    level = intensity.foreground_percentile(voxels.ravel())
    # Half precision holds 0 to 65504 with three digits: scaled, nothing is lost that matters.
    tensors = {
        "image": torch.from_numpy(voxels / np.float32(level)).half(),
        "affine": torch.from_numpy(small),
    }
    with atomic_write(file) as unfinished:
        save_file(tensors, unfinished)


@dataclass(frozen=True)
class ScanSampler:
    """Makes training samples of scans (`engine.batches.Sampler`).

    >>> sampler = ScanSampler(scans, mean_shape, protocol, CANONICAL, Lattice((64, 64, 64), 3.25))
    >>> cube, points = sampler(0, np.random.default_rng(0))

    Args:
        scans: what is drawn from.
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
        protocol: the landmarks.
        variation: ranges of pose and size; the rest of it concerns rendered heads.
        lattice: voxels of a sample.
        augmentation: the paper's policies; None for scans as they are.
        augmented_share: share of the samples that a policy is applied to.
    """

    scans: Sequence[TrainingScan]
    mean_shape: FloatArray
    protocol: Protocol
    variation: Variation
    lattice: Lattice
    augmentation: AugmentationConfig | None = None
    augmented_share: float = 0.5

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised cube (1, I, J, K) and points (K, 3) in voxels, NaN missing."""
        scan = self.scans[int(rng.integers(len(self.scans)))]
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        lattice = self.lattice
        deformation = Deformation.random(self.variation, rng, noise, lattice.reach_mm, "cpu")
        to_head = scan.to_head(self.mean_shape)
        image = scan.seen(lattice, deformation, to_head)
        mirror = self.protocol.mirror_permutation()
        points = image_points(deformation, to_head, scan.landmarks, mirror)
        policies = self.augmentation and self.augmentation.at_voxels(lattice.spacing_mm)
        if policies is not None and rng.random() < self.augmented_share:
            image, points = self._varied(policies, image, points, int(rng.integers(2**31)))
        cube = intensity.normalise(image)[None]
        return cube, torch.as_tensor(in_cube(lattice, points), dtype=torch.float32)

    def _varied(
        self, policies: AugmentationConfig, image: torch.Tensor, points: FloatArray, seed: int
    ) -> tuple[torch.Tensor, FloatArray]:
        volume = Volume(image.numpy(), self.lattice.grid)
        landmarks = LandmarkSet.from_points(self.protocol, points, "truth")
        varied = AugmentWithLandmarks(policies)(volume, landmarks, seed)
        data = np.maximum(varied.volume.data, 0)  # noise and ringing go below the air
        return torch.from_numpy(data), varied.landmarks.points


def _linear(
    image: torch.Tensor, affine: FloatArray, to_head: FloatArray, canonical_mm: torch.Tensor
) -> torch.Tensor:
    """Values of an image at canonical points (3, ...), trilinear, 0 outside."""
    to_voxel = torch.from_numpy(np.linalg.inv(affine) @ to_head).float()
    flat = canonical_mm.reshape(3, -1)
    voxel = torch.addmm(to_voxel[:3, 3:], to_voxel[:3, :3], flat)
    size = torch.tensor(image.shape, dtype=torch.float32)[:, None]
    # grid_sample counts from -1 to 1 between the outer voxels' centres, the last axis first.
    unit = (2 * voxel / (size - 1).clamp(min=1) - 1).flip(0).T.view(1, 1, 1, -1, 3)
    values = torch.nn.functional.grid_sample(image[None, None], unit, align_corners=True)
    return values.view(canonical_mm.shape[1:])
