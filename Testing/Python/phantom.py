"""A head made of ellipsoids, with every structure that the annotation rules ask for."""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review

VOXEL_MM = 1.5


def phantom_head(rotation: np.ndarray | None = None) -> Volume:
    """`_phantom_head`, of which the upright one is made only once; every caller gets a copy."""
    if rotation is not None:
        return _phantom_head(rotation)
    upright = _upright()
    return Volume(upright.data.copy(), upright.grid)


def coarse_phantom_head() -> Volume:
    """The upright phantom with 3 mm voxels, for tests that need no exact outlines."""
    coarse = _upright().downsampled(2 * VOXEL_MM)
    return Volume(coarse.data.copy(), coarse.grid)


@functools.cache
def _upright() -> Volume:
    return _phantom_head(None)


def _phantom_head(rotation: np.ndarray | None) -> Volume:
    """FreeSurfer-numbered label map, about 170 x 240 x 230 mm, head upright unless turned.

    Sizes and places are those of an average adult brain in millimetres from the middle of the deep
    nuclei (x right, y anterior, z superior); left and right are mirror images.
    """
    shape = (116, 160, 154)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = (-86.25, -128.0, -118.0)
    grid = Grid(shape, affine)
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float)
    points = grid.ijk_to_ras(indices)
    if rotation is not None:
        points = points @ rotation
    x, y, z = np.moveaxis(points, -1, 0)
    labels = np.zeros(shape, np.float32)

    def ball(centre, radii, off=None):
        """Inside an ellipsoid."""
        offset = (points if off is None else off) - np.asarray(centre, float)
        return ((offset / np.asarray(radii, float)) ** 2).sum(-1) <= 1.0

    labels[ball((0, -12, 12), (82, 104, 98)) | ((np.hypot(x, y + 25) < 55) & (z < -40))] = 511
    labels[ball((0, -12, 12), (78, 100, 94)) | ((np.hypot(x, y + 25) < 50) & (z < -40))] = 507
    labels[ball((0, -12, 14), (74, 94, 76))] = 515
    labels[ball((0, -12, 16), (70, 90, 70))] = 24
    labels[(np.hypot(x, y + 30) < 14) & (z < -40)] = 24

    left = x < 0
    brain = ball((0, -14, 22), (66, 84, 56)) & (z > -18)
    core = ball((0, -14, 22), (62, 80, 52)) & (z > -14)
    folds = np.abs(x)
    mirrored = np.stack([folds, y, z], -1)
    lobe = ball((43, 0, -20), (21, 40, 19), mirrored)
    marrow = ball((43, 0, -20), (17, 36, 15), mirrored)
    cerebrum = (brain | lobe) & (folds > 1.2)
    labels[cerebrum] = np.where(left, 3, 42)[cerebrum]
    white = (core | marrow) & (folds > 4)
    labels[white] = np.where(left, 2, 41)[white]

    arch = ((y + 2) / 38) ** 2 + ((z - 8) / 24) ** 2
    hollow = ((y + 2) / 31) ** 2 + ((z - 8) / 17) ** 2
    ends = (np.hypot(y - 32, z - 7) < 5) | (np.hypot(y + 35, z - 6) < 6)
    callosum = (((arch <= 1) & (hollow > 1) & (z > 6)) | ends) & (folds < 8)
    ventricle = (hollow <= 1) & (z > 6) & (folds < 8)
    labels[ventricle] = np.where(left, 4, 43)[ventricle]
    labels[callosum] = np.where(left, 2, 41)[callosum]
    labels[(folds < 3) & (np.abs(y + 4) < 16) & (np.abs(z - 1) < 5)] = 14

    paired = [
        ((10, 49), (12, -13, 8), (8, 14, 8)),
        ((11, 50), (13, 12, 14), (5, 14, 7)),
        ((12, 51), (26, 5, 4), (6, 15, 10)),
        ((13, 52), (18, 2, 3), (4, 8, 5)),
        ((26, 58), (9, 16, -1), (4, 4, 4)),
        ((28, 60), (6, -9, -5), (7, 6, 5)),
        ((5, 44), (35, -4, -16), (3, 12, 4)),
        ((18, 54), (22, 2.5, -13), (7, 7, 7)),
    ]
    for (left_label, right_label), centre, radii in paired:
        inside = ball(centre, radii, mirrored)
        labels[inside] = np.where(left, left_label, right_label)[inside]
    axis = np.array([-0.15, 0.9, -0.4])
    axis /= np.linalg.norm(axis)
    offset = mirrored - np.array([26.0, -15.0, -10.0])
    along = offset @ axis
    across = np.linalg.norm(offset - along[..., None] * axis, axis=-1)
    hippocampus = (along / 21) ** 2 + (across / 6) ** 2 <= 1
    labels[hippocampus] = np.where(left, 17, 53)[hippocampus]

    cerebellum = ball((0, -60, -34), (46, 26, 22))
    labels[cerebellum] = np.where(left, 8, 47)[cerebellum]
    labels[ball((0, -22, -8), (13, 10, 12))] = 16
    labels[ball((0, -18, -27), (15, 15, 15))] = 16
    labels[(np.hypot(x, y + 26 - 0.1 * (z + 27)) < 8) & (z < -27) & (z > -62)] = 16
    labels[(np.hypot(x, y + 26 - 0.1 * (z + 27)) < 7) & (z <= -62)] = 512
    labels[ball((0, -36, -31), (7, 5, 19))] = 15
    labels[ball((31, 66, -22), (12.4, 12.4, 12.4), mirrored)] = 506
    return Volume(labels, grid)


SIGNALS = {
    2: 1.0,
    41: 1.0,
    3: 0.7,
    42: 0.7,
    16: 0.9,
    506: 0.3,
    507: 0.6,
    511: 0.7,
    515: 0.15,
    512: 0.9,
}
"""T1-like signal of the labels that differ from fluid (0.25) and deep grey matter (0.75)."""


def phantom_scan(head: Volume, spacing_mm: float = 3.0) -> Volume:
    """A scan of a label map in whole numbers, on a grid of its own."""
    labels = head.data.astype(int)
    signal = np.where(labels == 0, 0.0, 0.75)
    signal[np.isin(labels, (4, 5, 14, 15, 24, 43, 44))] = 0.25
    for label, value in SIGNALS.items():
        signal[labels == label] = value
    shape = tuple(int(n) for n in np.ceil(head.grid.extent / spacing_mm))
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = head.grid.center_ras - (np.array(shape) - 1) / 2 * spacing_mm
    grid = Grid(shape, affine)
    return Volume(
        np.rint(1000 * resample(Volume(signal.astype(np.float32), head.grid), grid)), grid
    )


def small_heads(
    folder, landmarks, scan: Volume, count: int = 12, subjects: int = 6, first: int = 0
):
    """A dataset of small heads in no time: one scan moved, turned, sized and made noisy.

    Moving a head means another affine, so nothing is rendered and the landmarks are exact. Datasets
    with other ``first`` numbers hold other heads.
    """
    dataset = Dataset.create(folder, landmarks.protocol)
    for number in range(count):
        rng = np.random.default_rng(first + number)
        move = np.eye(4)
        move[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-12, 12, 3), degrees=True).as_matrix()
        move[:3, :3] *= rng.uniform(0.94, 1.06)
        move[:3, 3] = rng.uniform(-15, 15, 3)
        noise = np.rint(rng.normal(0, 15, scan.data.shape))
        data = np.clip(scan.data + noise, 0, None).astype(np.float32)
        volume = Volume(data, Grid(scan.grid.shape, move @ scan.grid.affine))
        moved = LandmarkSet.from_points(landmarks.protocol, landmarks.moved(move).points, "truth")
        dataset.add(volume, Review.of(moved), subject=f"S{number % subjects + 1:02d}")
    return dataset
