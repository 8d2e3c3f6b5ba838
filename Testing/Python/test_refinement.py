"""The refinement network: its prior, its boxes, and the samples that it learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom import phantom_head

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.detection.refinement import boxes, with_prior
from BrainLandmarksLib.network.decoding import decode
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksTrainLib.data.boxes import ASIDE_MM, EDGE, RefinementSampler
from BrainLandmarksTrainLib.engine.batches import make_batches
from BrainLandmarksTrainLib.synthesis.generator import HeadGenerator, HeadSampler
from BrainLandmarksTrainLib.synthesis.head import make_head
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import CANONICAL


def test_prior_and_likelihood_make_the_product_of_two_gaussians():
    size, sigma, width = 24, 2.0, 1.5
    prior, peak = torch.tensor([[[10.0, 12.5, 9.0]]]), torch.tensor([13.0, 11.0, 12.0])
    axes = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 3, indexing="ij")
    logits = -0.5 * sum(((x - p) / width) ** 2 for x, p in zip(axes, peak))
    decoded = decode(with_prior(logits[None, None], prior.double(), sigma))
    weight = width**-2 / (width**-2 + sigma**-2)
    expected = weight * peak + (1 - weight) * prior[0, 0]
    np.testing.assert_allclose(decoded.coordinates[0, 0], expected, atol=1e-3)


def test_where_nothing_is_expected_nothing_changes():
    heatmaps = torch.randn(1, 2, 4, 5, 6)
    points = torch.tensor([[[1.0, 2.0, 3.0], [torch.nan] * 3]])
    changed = with_prior(heatmaps, points, 1.0)
    assert torch.equal(changed[0, 1], heatmaps[0, 1])
    assert torch.equal(changed[0, 0, 1, 2, 3], heatmaps[0, 0, 1, 2, 3])
    assert (changed[0, 0, 0] < heatmaps[0, 0, 0]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 60), st.floats(5, 100))
def test_every_point_is_in_one_box(seed, count, side):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-80, 80, (count, 3))
    points[rng.random(count) < 0.1] = np.nan
    found = list(boxes(points, side))
    rows = np.concatenate([rows for _, rows in found]) if found else np.array([], int)
    known = np.flatnonzero(np.isfinite(points).all(1))
    np.testing.assert_array_equal(np.sort(rows), known)
    for middle, members in found:
        assert np.abs(points[members] - middle).max() <= side / 2 + 1e-9


@pytest.fixture(scope="module")
def head():
    volume = phantom_head()
    landmarks = annotate(volume)
    shape = np.where(np.isfinite(landmarks.points), landmarks.points, 0.0)
    labels = volume.data.astype(np.int16)
    return make_head("phantom", labels, volume.grid.affine, landmarks.points, shape), shape


@pytest.fixture(scope="module")
def sampler(head):
    made, shape = head
    mirror = load_protocol("brain88").mirror_permutation()
    lattice = Lattice((32, 32, 32), 2.0, 1)
    return RefinementSampler(HeadSampler(HeadGenerator([made], mirror, CANONICAL), lattice), shape)


def test_a_box_shows_what_the_whole_cube_shows_there(head):
    """The same head in the same pose: a box beside the middle is a part of the large cube."""
    made, _ = head
    mirror = load_protocol("brain88").mirror_permutation()
    plain = CANONICAL.__class__(
        rotation_deg=0, translation_mm=0, scale=0, stretch=0, shear=0, warp_mm=(),
        warp_spacing_mm=(), t1_share=1, bias=0, noise=0, texture=0, thick_share=0, cut_share=0,
        stripped_share=0, flip_share=0,
    )  # fmt: skip
    large = Lattice((64, 64, 64), 2.0, 1)
    box = Lattice((32, 32, 32), 2.0, 1, (16.0, -8.0, 4.0))
    generator = HeadGenerator([made], mirror, plain)
    whole, points = generator.sample(large, np.random.default_rng(3))
    part, near = generator.sample(box, np.random.default_rng(3))
    first = np.round((np.array(box.center_mm) / 2.0) + 16).astype(int)
    a, b, c = (slice(n, n + 32) for n in first)
    # Blur along the edges sees zeros beyond the box; inside both are the same.
    inner = (slice(4, 28),) * 3
    np.testing.assert_allclose(part[inner], whole[a, b, c][inner], atol=1e-4)
    seen = np.isfinite(near).all(1)
    assert 5 < seen.sum() < np.isfinite(points).all(1).sum()
    np.testing.assert_allclose(near[seen], points[seen] - first, atol=1e-3)


def test_samples_of_boxes(sampler):
    errors, sides = [], set()
    for index in range(12):
        cube, points, guesses = sampler(0, np.random.default_rng(index))
        assert cube.shape == (1, 32, 32, 32)
        assert float(cube.max()) <= 1.5
        seen = torch.isfinite(points).all(1)
        assert seen.sum() >= 3
        assert (points[seen] >= EDGE - 0.5).all()
        assert (points[seen] <= 32 - EDGE - 0.5).all()
        assert torch.equal(torch.isfinite(guesses).all(1), seen)
        errors += (2.0 * (guesses - points)[seen]).norm(dim=1).tolist()
        sides.add(int(seen.sum()))
    assert len(sides) > 3  # another place every time
    assert 2.0 < np.mean(errors) < 4.5
    assert ASIDE_MM < 16 * 2.0


def test_a_sample_follows_from_seed_step_and_place(sampler):
    ((cubes, points, guesses),) = make_batches(sampler, 7, 3, [0, 1])
    ((again, same, guessed),) = make_batches(sampler, 7, 3, [1])
    assert cubes.shape == (2, 1, 32, 32, 32)
    assert torch.equal(cubes[1:], again)
    np.testing.assert_array_equal(points[1:], same)
    np.testing.assert_array_equal(guesses[1:], guessed)
