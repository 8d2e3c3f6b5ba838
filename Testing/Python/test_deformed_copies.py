"""Deformed copies: heads whose landmarks the rules place, not the deformation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantom import phantom_head

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.pipeline.mean_shape import mean_shape
from BrainLandmarksTrainLib.synthesis import deformed_copies
from BrainLandmarksTrainLib.synthesis.deformation import Deformation
from BrainLandmarksTrainLib.synthesis.label_maps import AnnotatedMap
from BrainLandmarksTrainLib.synthesis.variation import ANATOMY

PROTOCOL = load_protocol("brain88")


@pytest.fixture(scope="module")
def parent():
    volume = phantom_head()
    return AnnotatedMap("phantom", volume, annotate(volume))


@pytest.fixture(scope="module")
def shape(parent):
    return mean_shape([parent.landmarks.points], PROTOCOL.mirror_permutation())


def random_deformation(**changes):
    generator = torch.Generator().manual_seed(3)
    variation = replace(ANATOMY, stretch=0.0, shear=0.0, **changes)
    return Deformation.random(variation, np.random.default_rng(3), generator, 120.0, "cpu")


def test_a_symmetric_warp_treats_left_and_right_alike():
    points = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    mirror = np.array([-1.0, 1.0, 1.0])
    for symmetry, alike in ((1.0, True), (0.5, False)):
        warp = random_deformation(warp_symmetry=symmetry).displacement
        difference = np.abs(warp(points * mirror) * mirror - warp(points)).max()
        assert (difference < 1e-4) == alike


def test_symmetry_leaves_the_size_of_a_warp():
    axis = np.linspace(-90, 90, 10)
    points = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    sizes = [
        np.sqrt((random_deformation(warp_symmetry=share).displacement(points) ** 2).mean())
        for share in (0.0, 0.5, 1.0)
    ]
    assert min(sizes) > 0.6 * max(sizes) > 0.3


def test_deformed_copies_are_annotated_anew_and_kept(parent, shape, tmp_path):
    heads = list(deformed_copies.make_deformed_copies([parent], shape, 2, tmp_path, workers=1))
    assert [h.name for h in heads] == ["phantom", "phantom"]
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == [
        "phantom_000.mrk.json", "phantom_000.nii.gz", "phantom_001.mrk.json", "phantom_001.nii.gz",
    ]  # fmt: skip
    child = read_image(files[1])
    by_rule = annotate(child).points
    np.testing.assert_allclose(heads[0].landmarks, by_rule, atol=1e-3)
    assert np.linalg.norm(heads[0].landmarks - heads[1].landmarks, axis=1).mean() > 1.0
    written = [f.stat().st_mtime_ns for f in files]
    again = list(deformed_copies.make_deformed_copies([parent], shape, 2, tmp_path, workers=1))
    assert [f.stat().st_mtime_ns for f in files] == written
    assert torch.equal(again[1].tissues, heads[1].tissues)


def test_a_deformed_copy_is_its_parent_deformed(parent, shape):
    """Same number, same child; another number, another one; all structures are still there."""
    first, same, other = (deformed_copies.deformed(parent, shape, n) for n in (0, 0, 1))
    assert np.array_equal(first.volume.data, same.volume.data)
    assert not np.array_equal(first.volume.data, other.volume.data)
    assert set(np.unique(first.volume.data)) == set(np.unique(parent.volume.data))


def test_a_head_that_never_can_be_annotated_is_named(parent, shape, monkeypatch):
    empty = LandmarkSet(
        PROTOCOL,
        np.full((88, 3), np.nan),
        ["missing"] * 88,
        np.full(88, np.nan),
    )
    monkeypatch.setattr(deformed_copies, "annotate", lambda _: empty)
    with pytest.raises(UserError, match="phantom"):
        deformed_copies.deformed(parent, shape, 0)


def test_a_volume_is_not_needed_whole(parent, shape):
    """A map cut at the neck has children, too."""
    cut = parent.volume.data.copy()
    cut[:, :, :20] = 0
    volume = Volume(cut, parent.volume.grid)
    child = deformed_copies.deformed(AnnotatedMap("cut", volume, annotate(volume)), shape, 0)
    assert not child.landmarks.missing[24:37].any()
