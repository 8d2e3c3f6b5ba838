"""A dataset folder: what goes in comes out, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.dataset import LOCK, MANIFEST, VERSION
from BrainLandmarksLib.dataset.split import split_dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.checksum import file_sha256
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.io.lock import file_lock
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
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


def test_programs_that_write_at_once_lose_nothing(dataset, some_landmarks):
    """An import of a folder goes on while someone saves a case and splits the dataset."""
    importing, saving = Dataset.open(dataset.folder), Dataset.open(dataset.folder)
    first = importing.add(volume(1), Review.of(some_landmarks))
    added = saving.add(volume(2), Review.of(some_landmarks), subject="B")
    assert (first.identity, added.identity) == ("0001", "0002")
    corrected = Review.of(some_landmarks, "AB")
    corrected.move("CC_G", [1, 2, 3])
    saving.revise(first, corrected)
    third = importing.add(volume(3), Review.of(some_landmarks))
    split_dataset(saving, validation=1, test=1)
    importing.add(volume(4), Review.of(some_landmarks))
    now = Dataset.open(dataset.folder)
    assert [e.identity for e in now.entries] == ["0001", "0002", "0003", "0004"]
    assert [e.who for e in now.entries] == ["AB", "", "", ""]
    assert sorted(e.split for e in now.entries) == ["", "test", "train", "validation"]
    assert now.entries[2].image_hash == third.image_hash
    assert [note["what"] for note in now.history] == ["split"]
    for entry in now.entries:
        assert file_sha256(now.folder / entry.landmarks) == entry.landmarks_sha256


def test_processes_take_turns(dataset, tmp_path, brain88, some_landmarks):
    landmarks = tmp_path / "head.mrk.json"
    write_landmarks(landmarks, some_landmarks)
    commands = []
    for n in (0, 10, 20):
        folder = tmp_path / f"source{n}"
        folder.mkdir()
        for k in range(n, n + 4):
            image = nib.Nifti1Image(volume(k).data, volume(k).grid.affine)
            nib.save(image, folder / f"head{k}.nii.gz")
            (folder / f"head{k}.mrk.json").write_bytes(landmarks.read_bytes())
        arguments = ["dataset", "create", str(folder), "-o", str(dataset.folder), "--add"]
        commands.append([sys.executable, "-m", "BrainLandmarksLib", *arguments])
    for process in [subprocess.Popen(c, stdout=subprocess.DEVNULL) for c in commands]:
        assert process.wait() == 0
    now = Dataset.open(dataset.folder)
    assert sorted(e.identity for e in now.entries) == [f"{n:04d}" for n in range(1, 13)]
    assert len({sample.volume.data.tobytes() for sample in now}) == 12


@pytest.mark.skipif(sys.platform == "win32", reason="another kind of lock")
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(UserError, match=r"has no locks \(Function not implemented\)"),
        file_lock(tmp_path / "lock"),
    ):
        pass


def test_a_lock_waits_for_the_other_process_and_not_for_a_killed_one(tmp_path):
    lock = tmp_path / "lock"
    program = (
        "import sys, time\nfrom BrainLandmarksLib.io.lock import file_lock\n"
        f"with file_lock({str(lock)!r}):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    got = []

    def wait():
        with file_lock(lock):
            got.append(holder.poll())

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    holder.kill()
    holder.wait()
    waiting.join(20)
    assert len(got) == 1
    with (
        pytest.raises(UserError, match="cannot write to the output folder"),
        file_lock(tmp_path / "no" / "lock"),
    ):
        pass


def test_no_name_gets_into_a_dataset(dataset, some_landmarks):
    dataset.add(volume(1), Review.of(some_landmarks, "AB"))
    names = sorted(str(p.relative_to(dataset.folder)) for p in dataset.folder.rglob("*"))
    assert names == [
        LOCK, MANIFEST, "images", "images/0001.nii.gz", "landmarks", "landmarks/0001.mrk.json",
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
    good = json.loads(manifest.read_text(encoding="utf-8"))
    for change, word in (
        ({"version": VERSION + 1}, "newer"),
        ({"entries": [{"identity": "1"}]}, "damaged"),
        ({"protocol": {}}, "damaged"),
    ):
        manifest.write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match=word):
            Dataset.open(dataset.folder)
    manifest.write_text("{")
    with pytest.raises(UserError, match=r"damaged|not valid JSON"):
        Dataset.open(dataset.folder)


def test_a_failure_half_way_leaves_the_dataset_as_it_was(dataset, some_landmarks, monkeypatch):
    dataset.add(volume(1), Review.of(some_landmarks))
    before = (dataset.folder / MANIFEST).read_text(encoding="utf-8")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        dataset.add(volume(2), Review.of(some_landmarks))
    monkeypatch.undo()
    assert (dataset.folder / MANIFEST).read_text(encoding="utf-8") == before
    assert len(dataset) == 1
    assert [p.name for p in dataset.folder.rglob(".*")] == [LOCK]
    assert len(list(Dataset.open(dataset.folder))) == 1


def test_other_landmarks_do_not_fit(dataset, tiny_protocol):
    five = LandmarkSet.from_points(tiny_protocol, np.zeros((5, 3)))
    with pytest.raises(UserError, match="not those of the dataset"):
        dataset.add(volume(1), Review.of(five))


def test_subject_split_origin_and_checksums_are_kept(dataset, some_landmarks):
    review = Review.of(some_landmarks)
    dataset.add(volume(1), review, subject="S01", split="test", origin={"converted_to": "survey"})
    dataset.add(volume(2), review)
    reopened = Dataset.open(dataset.folder)
    assert reopened.entries == dataset.entries
    first, second = reopened.entries
    assert (first.subject, first.split, first.origin) == ("S01", "test", {"converted_to": "survey"})
    assert (second.subject, second.split, second.person) == ("", "", "entry 0002")
    for entry in reopened.entries:
        assert entry.image_sha256 == file_sha256(dataset.folder / entry.image)
        assert entry.landmarks_sha256 == file_sha256(dataset.folder / entry.landmarks)
    # The same head again, as the panel adds it: nothing of this is lost.
    again = reopened.add(volume(1), review)
    assert (again.subject, again.split, again.origin) == (first.subject, first.split, first.origin)
    assert [e.identity for e in reopened.of_split("test")] == ["0001"]
    assert len(reopened.of_split("all")) == 2
    with pytest.raises(UserError, match="no head of"):
        reopened.of_split("validation")
    with pytest.raises(UserError, match="there is no split 'exam'"):
        reopened.of_split("exam")


def test_a_dataset_of_version_1_opens(dataset, some_landmarks):
    dataset.add(volume(1), Review.of(some_landmarks))
    manifest = dataset.folder / MANIFEST
    data = json.loads(manifest.read_text(encoding="utf-8"))
    old = ("identity", "image", "landmarks", "added", "who", "image_hash")
    data["entries"] = [{key: entry[key] for key in old} for entry in data["entries"]]
    del data["history"]
    manifest.write_text(json.dumps({**data, "version": 1}))
    reopened = Dataset.open(dataset.folder)
    assert reopened.entries[0].image_sha256 == ""
    assert len(list(reopened)) == 1
    reopened.add(volume(2), Review.of(some_landmarks))
    assert json.loads(manifest.read_text(encoding="utf-8"))["version"] == VERSION


def test_whole_numbers_are_stored_as_such_and_others_as_they_are(dataset, some_landmarks):
    whole = volume(1)
    whole.data[:] = np.rint(whole.data * 4000) - 100
    for head in (whole, volume(2)):
        dataset.add(head, Review.of(some_landmarks))
    types = [nib.load(dataset.folder / e.image).get_data_dtype() for e in dataset.entries]
    assert types == [np.int16, np.float32]
    for sample, head in zip(dataset, (whole, volume(2))):
        np.testing.assert_array_equal(sample.volume.data, head.data)


@pytest.mark.parametrize("suffix", [".csv", ".fcsv"])
def test_landmarks_may_be_in_the_other_formats(dataset, some_landmarks, suffix):
    entry = dataset.add(volume(1), Review.of(some_landmarks))
    name = f"landmarks/0001{suffix}"
    write_landmarks(dataset.folder / name, some_landmarks)
    dataset.update([replace(entry, landmarks=name)], {"what": "test"})
    (sample,) = Dataset.open(dataset.folder)
    np.testing.assert_allclose(sample.review.current.points, some_landmarks.points, atol=1e-3)
    # Added again, it is a .mrk.json with its record.
    assert dataset.add(volume(1), sample.review).landmarks == "landmarks/0001.mrk.json"


def test_a_protocol_of_ones_own_comes_with_the_dataset(tmp_path, tiny_protocol):
    five = LandmarkSet.from_points(tiny_protocol, np.arange(15.0).reshape(5, 3), "truth")
    Dataset.create(tmp_path / "set", tiny_protocol).add(volume(1), Review.of(five))
    reopened = Dataset.open(tmp_path / "set")
    assert reopened.protocol.hash == tiny_protocol.hash
    read = reopened.read_landmarks(reopened.entries[0]).current
    np.testing.assert_allclose(read.points, five.points)
