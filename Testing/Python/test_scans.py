"""Scans as training samples: kept small, posed and varied, landmarks exactly where they belong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.augmentation import AugmentationConfig
from BrainLandmarksTrainLib.data.scans import ScanSampler, TrainingScan, read_scans
from BrainLandmarksTrainLib.engine.batches import Maker
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import ANY_POSE, CANONICAL

SHAPE = np.array([[-45, 30, 0], [45, 30, 0], [0, 0, 60], [-50, -40, 10], [50, -40, -10.0]])


@pytest.fixture(scope="module")
def beads(tmp_path_factory, tiny_protocol) -> Dataset:
    """Two scans, turned and shifted, of five bright balls of which each is a landmark."""
    dataset = Dataset.create(tmp_path_factory.mktemp("sets") / "beads", tiny_protocol)
    for angle, shift in ((0.1, (4, -3, 2)), (-0.2, (-6, 1, 5))):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        points = SHAPE @ turn.T + shift
        affine = np.diag([1.6, 1.4, 1.5, 1.0])
        affine[:3, 3] = (-96, -91, -90)
        grid = Grid((121, 131, 121), affine)
        ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
        image = np.zeros(grid.shape, np.float32)
        for point in points:
            image += 100 * np.exp(-0.5 * ((ras - point) ** 2).sum(-1) / 5.0**2)
        truth = LandmarkSet.from_points(tiny_protocol, points, "truth")
        dataset.add(Volume(image.astype(np.float32), grid), Review.of(truth))
    return dataset


@pytest.fixture(scope="module")
def scans(beads, tmp_path_factory) -> list[TrainingScan]:
    return read_scans(beads, beads.entries, 1.625, tmp_path_factory.mktemp("cache"))


def centroid(cube: torch.Tensor, point: np.ndarray, radius: int) -> np.ndarray:
    """Centre of mass of a ball's voxels near a point, voxels."""
    low = np.maximum(np.round(point).astype(int) - radius, 0)
    high = np.round(point).astype(int) + radius + 1
    part = cube[0].numpy()[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    part = np.where(part > 0.1, part, 0)
    return np.stack(np.indices(part.shape), -1).reshape(-1, 3).T @ part.ravel() / part.sum() + low


@pytest.mark.parametrize(("variation", "spacing"), [(CANONICAL, 3.25), (ANY_POSE, 4.0)])
def test_landmarks_are_where_the_image_shows_them(scans, tiny_protocol, variation, spacing):
    lattice = Lattice((64, 64, 64), spacing, 2)
    sampler = ScanSampler(scans, SHAPE, tiny_protocol, variation, lattice)
    seen = 0
    for index in range(6):
        cube, points = sampler(0, np.random.default_rng([7, index]))
        assert cube.shape == (1, 64, 64, 64)
        assert float(cube.min()) >= 0
        for point in points.numpy():
            if np.isfinite(point).all() and ((point > 8) & (point < 55)).all():
                assert np.linalg.norm(centroid(cube, point, 5) - point) < 0.35
                seen += 1
    assert seen > 15


def test_augmented_samples_keep_image_and_landmarks_together(scans, tiny_protocol):
    lattice = Lattice((64, 64, 64), 3.25, 2)
    gentle = replace(AugmentationConfig(), patient=("affine",), machine=("bias_field",))
    sampler = ScanSampler(scans, SHAPE, tiny_protocol, CANONICAL, lattice, gentle, 1.0)
    plain = replace(sampler, augmented_share=0.0)
    moved = []
    for index in range(6):
        cube, points = sampler(0, np.random.default_rng([3, index]))
        _, before = plain(0, np.random.default_rng([3, index]))
        for point, old in zip(points.numpy(), before.numpy(), strict=True):
            if np.isfinite(point).all() and ((point > 8) & (point < 55)).all():
                assert np.linalg.norm(centroid(cube, point, 6) - point) < 0.6
                moved.append(np.linalg.norm(point - old))
    assert np.median(moved) > 0.5


def test_a_flipped_sample_swaps_left_and_right(scans, tiny_protocol):
    lattice = Lattice((32, 32, 32), 6.5, 2)
    turned = [replace(CANONICAL, flip_share=share) for share in (0.0, 1.0)]
    for variation in turned:
        sampler = ScanSampler(scans, SHAPE, tiny_protocol, variation, lattice)
        _, points = sampler(0, np.random.default_rng(5))
        assert points[0][0] < points[1][0]


def test_scans_are_resampled_once(beads, tmp_path):
    first = read_scans(beads, beads.entries, 3.0, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(stamps) == 2
    again = read_scans(beads, beads.entries, 3.0, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    assert [s.file for s in again] == [s.file for s in first]
    read_scans(beads, beads.entries, 2.0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    # The grid keeps its place: the pose takes the landmarks back to the mean shape.
    back = apply_affine(np.linalg.inv(first[0].to_head(SHAPE)), first[0].landmarks)
    np.testing.assert_allclose(back, SHAPE, atol=1e-3)


def test_samples_depend_on_their_seed_alone_and_travel(scans, tiny_protocol):
    import pickle

    lattice = Lattice((16, 16, 16), 13.0, 2)
    sampler = ScanSampler(scans, SHAPE, tiny_protocol, CANONICAL, lattice, AugmentationConfig())
    maker = Maker(pickle.loads(pickle.dumps(sampler)), 3, range(4))
    one, two = Maker(sampler, 3, range(4))(9), maker(9)
    assert all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y))
    assert not torch.equal(maker(10)[0][0], two[0][0])


def test_points_that_only_a_model_placed_teach_nothing(beads, tiny_protocol, tmp_path):
    dataset = Dataset.create(tmp_path / "set", tiny_protocol)
    sample = beads.read(beads.entries[0])
    landmarks = sample.review.current
    status = ["model", *["confirmed"] * 4]
    partly = LandmarkSet(tiny_protocol, landmarks.points, status, landmarks.confidence)
    dataset.add(sample.volume, Review.of(partly))
    (scan,) = read_scans(dataset, dataset.entries, 4.0, tmp_path / "cache")
    assert np.isnan(scan.landmarks[0]).all()
    assert np.isfinite(scan.landmarks[1:]).all()
    unread = LandmarkSet(tiny_protocol, landmarks.points, ["model"] * 5, landmarks.confidence)
    dataset.add(sample.volume, Review.of(unread))
    with pytest.raises(UserError, match="confirm more"):
        read_scans(dataset, dataset.entries, 4.0, tmp_path / "cache")


def test_a_lost_image_is_one_sentence(beads, tmp_path):
    import shutil

    folder = Path(shutil.copytree(beads.folder, tmp_path / "copy"))
    os.remove(folder / beads.entries[1].image)
    copy = Dataset.open(folder)
    with pytest.raises(UserError):
        read_scans(copy, copy.entries, 4.0, tmp_path / "cache")
