"""A dataset folder: what goes in comes out, whole or not at all."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from BrainLandmarksLib.dataset import MANIFEST, VERSION, Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import Grid
from BrainLandmarksLib.images import Volume
from BrainLandmarksLib.review import Review


@pytest.fixture
def dataset(tmp_path, brain88):
    return Dataset.create(tmp_path / "set", brain88)


def volume(seed):
    rng = np.random.default_rng(seed)
    affine = np.diag([15.0, 12.0, 18.0, 1.0])
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    return Volume(rng.random((9, 10, 11), np.float32), Grid((9, 10, 11), affine))


def test_what_goes_in_comes_out(dataset, some_landmarks):
    review = Review.of(some_landmarks, "AB")
    review.move("CC_G", [1, 2, 3])
    first = dataset.add(volume(1), review, {"model": "brain88"})
    second = dataset.add(volume(2), Review.of(some_landmarks))
    assert (first.identity, second.identity, first.who) == ("0001", "0002", "AB")
    samples = list(Dataset.open(dataset.folder))
    assert [s.entry for s in samples] == [first, second]
    np.testing.assert_allclose(samples[0].volume.data, volume(1).data)
    np.testing.assert_allclose(samples[0].volume.grid.affine, volume(1).grid.affine, atol=1e-5)
    np.testing.assert_allclose(samples[0].review.current.point("CC_G"), [1, 2, 3])
    assert samples[0].review.edits == review.edits


def test_the_same_head_again_replaces_its_landmarks(dataset, some_landmarks):
    dataset.add(volume(1), Review.of(some_landmarks))
    review = Review.of(some_landmarks)
    review.confirm("CC_G")
    dataset.add(volume(1), review)
    assert len(dataset) == 1
    assert len(list((dataset.folder / "images").iterdir())) == 1
    (sample,) = Dataset.open(dataset.folder)
    assert sample.review.edits == review.edits


def test_no_name_gets_into_a_dataset(dataset, some_landmarks):
    dataset.add(volume(1), Review.of(some_landmarks, "AB"))
    names = sorted(str(p.relative_to(dataset.folder)) for p in dataset.folder.rglob("*"))
    assert names == [
        MANIFEST, "images", "images/0001.nii.gz", "landmarks", "landmarks/0001.mrk.json",
    ]  # fmt: skip


def test_open_or_create(tmp_path, brain88, some_landmarks):
    for _ in range(2):
        dataset = Dataset.open_or_create(tmp_path / "set", brain88)
        dataset.add(volume(1), Review.of(some_landmarks))
    assert len(dataset) == 1


def test_what_is_no_dataset_is_said_in_one_sentence(tmp_path, brain88, tiny_protocol, dataset):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        Dataset.create(tmp_path / "full", brain88)
    with pytest.raises(UserError, match="no dataset"):
        Dataset.open(tmp_path / "full")
    with pytest.raises(UserError, match="another definition"):
        Dataset.open(dataset.folder, tiny_protocol)
    manifest = dataset.folder / MANIFEST
    good = json.loads(manifest.read_text())
    for change, word in (
        ({"version": VERSION + 1}, "newer"),
        ({"entries": [{"identity": "1"}]}, "damaged"),
        ({"protocol": {}}, "damaged"),
    ):
        manifest.write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match=word):
            Dataset.open(dataset.folder)
    manifest.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Dataset.open(dataset.folder)


def test_a_failure_half_way_leaves_the_dataset_as_it_was(dataset, some_landmarks, monkeypatch):
    dataset.add(volume(1), Review.of(some_landmarks))
    before = (dataset.folder / MANIFEST).read_text()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        dataset.add(volume(2), Review.of(some_landmarks))
    monkeypatch.undo()
    assert (dataset.folder / MANIFEST).read_text() == before
    assert len(dataset) == 1
    assert not [p for p in dataset.folder.rglob("*") if p.name.startswith(".")]
    assert len(list(Dataset.open(dataset.folder))) == 1


def test_other_landmarks_do_not_fit(dataset, tiny_protocol):
    from BrainLandmarksLib.landmarks import LandmarkSet

    five = LandmarkSet.from_points(tiny_protocol, np.zeros((5, 3)))
    with pytest.raises(UserError, match="not those of the dataset"):
        dataset.add(volume(1), Review.of(five))
