"""Synthetic heads: the landmarks go exactly where the image goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from BrainLandmarksTrainLib.synthesis.deformation import Deformation, Spline
from BrainLandmarksTrainLib.synthesis.generator import HeadGenerator, HeadSampler
from BrainLandmarksTrainLib.synthesis.head import make_head
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import ANY_POSE, CANONICAL

QUIET = {"bias": 0.0, "noise": 0.0, "texture": 0.0, "thick_share": 0.0, "cut_share": 0.0,
         "stripped_share": 0.0, "t1_share": 1.0}  # fmt: skip


def test_spline_values_agree_on_lattice_and_at_points():
    spline = Spline.random(3, 2.0, 28.0, 100.0, torch.Generator().manual_seed(1), "cpu")
    x, y, z = torch.linspace(-95, 95, 6), torch.linspace(-80, 90, 5), torch.linspace(-70, 60, 4)
    lattice = spline.on_lattice(x, y, z).numpy()
    points = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(spline.at(points).T.reshape(lattice.shape), lattice, atol=1e-4)


def test_spline_has_the_deviation_asked_for():
    spline = Spline.random(3, 2.0, 10.0, 150.0, torch.Generator().manual_seed(2), "cpu")
    axis = torch.linspace(-140, 140, 60)
    assert float(spline.on_lattice(axis, axis, axis).std()) == pytest.approx(2.0, rel=0.15)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_inverse_undoes_the_deformation(seed):
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    deformation = Deformation.random(CANONICAL, rng, generator, 104.0, "cpu")
    points = rng.uniform(-70, 70, (40, 3))
    image = deformation.inverse(points)
    found = np.isfinite(image).all(1)
    assert found.mean() > 0.9
    image = image[found]
    back = image @ deformation.matrix.T + deformation.shift + deformation.displacement(image)
    np.testing.assert_allclose(back, points[found], atol=2e-3)


def beads_head(rng):
    """A head of air with six small balls of different tissues, each ball a landmark."""
    labels = np.zeros((120, 130, 110), np.int32)
    affine = np.array([[1.5, 0, 0, -90.0], [0, 0, 1.5, -80], [0, 1.5, 0, -95], [0, 0, 0, 1]])
    centres = np.array(
        [[30, 40, 40], [90, 40, 40], [60, 95, 50], [30, 80, 80], [90, 80, 80], [60, 50, 90]]
    )
    grid = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), -1)
    for number, centre in zip((2, 3, 7, 12, 16, 512), centres):
        labels[((grid - centre) ** 2).sum(-1) <= 36] = number
    return labels, affine, centres @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("variation", [CANONICAL, ANY_POSE], ids=["canonical", "any pose"])
def test_landmarks_follow_the_anatomy(variation):
    """Centres of mass of rendered balls lie at the landmarks, flips and warps included."""
    rng = np.random.default_rng(5)
    labels, affine, truth = beads_head(rng)
    mean = truth - truth.mean(0)
    head = make_head("beads", labels, affine, truth, mean)
    mirror = np.array([1, 0, 2, 4, 3, 5])
    lattice = Lattice((96, 100, 92), 2.2, 2)
    generator = HeadGenerator([head], mirror, replace(variation, **QUIET))
    flips = 0
    for seed in range(6):
        image, points = generator.sample(lattice, np.random.default_rng(seed))
        parts, count = ndimage.label(image.numpy() > 0.05)
        centres = np.array(ndimage.center_of_mass(image.numpy(), parts, range(1, count + 1)))
        seen = np.isfinite(points).all(1)
        inside = seen & ((points > 8) & (points < np.array(lattice.shape) - 9)).all(1)
        assert inside.sum() >= 3
        for point in points[inside]:
            assert np.linalg.norm(centres - point, axis=1).min() < 0.4
        flips += int(points[0][0] > points[1][0]) if seen[:2].all() else 0
    # Landmark 0 is the left one; its partner takes its place when the sample is mirrored.
    assert flips == 0


def test_same_seed_same_sample_other_seed_other_sample():
    labels, affine, truth = beads_head(np.random.default_rng(5))
    head = make_head("beads", labels, affine, truth, truth - truth.mean(0))
    generator = HeadGenerator([head], np.array([1, 0, 2, 4, 3, 5]), CANONICAL)
    lattice = Lattice((32, 32, 32), 6.0, 2)
    sampler = HeadSampler(generator, lattice)
    first, points = sampler(0, np.random.default_rng(3))
    again, same = sampler(0, np.random.default_rng(3))
    other, _ = sampler(0, np.random.default_rng(4))
    assert torch.equal(first, again)
    np.testing.assert_array_equal(points, same)
    assert not torch.equal(first, other)
    assert first.shape == (1, 32, 32, 32)
    assert float(first.min()) >= 0.0


def test_a_landmark_beyond_the_field_of_view_is_missing():
    labels, affine, truth = beads_head(np.random.default_rng(5))
    head = make_head("beads", labels, affine, truth, truth - truth.mean(0))
    always = replace(CANONICAL, cut_share=1.0)
    generator = HeadGenerator([head], np.array([1, 0, 2, 4, 3, 5]), always)
    lattice = Lattice((96, 100, 92), 2.2, 1)
    missing = 0
    for seed in range(8):
        image, points = generator.sample(lattice, np.random.default_rng(seed))
        gone = ~np.isfinite(points).all(1)
        missing += gone.sum()
        kept = np.rint(points[~gone]).astype(int).clip(0, np.array(lattice.shape) - 1)
        assert (image.numpy()[tuple(kept.T)] > 0).mean() > 0.7
    assert missing > 0
