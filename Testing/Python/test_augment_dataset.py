"""`brainlandmarks augment`: a dataset in, a varied one out, whatever happens in between."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.dataset import MANIFEST
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.augmentation import AugmentationConfig, folder, regenerate
from BrainLandmarksTrainLib.augmentation.folder import augment_dataset, plan, records

HEADS = 4


@pytest.fixture(scope="module")
def heads(tmp_path_factory, brain88):
    """Four heads of two people; one head is for testing."""
    dataset = Dataset.create(tmp_path_factory.mktemp("heads") / "set", brain88)
    for number in range(HEADS):
        rng = np.random.default_rng(number)
        affine = np.diag([5.0, 5.0, 5.0, 1.0])
        affine[:3, 3] = -70.0
        grid = Grid((28, 30, 26), affine)
        ijk = rng.uniform(6, np.array(grid.shape) - 7, (len(brain88), 3))
        ijk[7] = np.nan
        landmarks = LandmarkSet.from_points(brain88, grid.ijk_to_ras(ijk), "confirmed")
        data = np.zeros(grid.shape, np.float32)
        data[4:-4, 4:-4, 4:-4] = rng.uniform(50, 100, (20, 22, 18))
        dataset.add(Volume(data, grid), Review.of(landmarks, "AB"))
    people = ("P1", "P1", "P2", "")
    dataset.register(
        *(
            replace(entry, subject=person, split="test" if person == "" else "train")
            for entry, person in zip(dataset.entries, people, strict=True)
        )
    )
    return dataset


def contents(dataset):
    """Everything that must not depend on how it was made: files by bytes, entries without time."""
    files = {
        str(path.relative_to(dataset.folder)): path.read_bytes()
        for path in sorted(dataset.folder.rglob("*.nii.gz"))
    }
    entries = [replace(entry, added="") for entry in dataset.entries]
    points = [sample.review.current.points for sample in dataset]
    return files, entries, np.stack(points)


def assert_same(a, b):
    (files_a, entries_a, points_a), (files_b, entries_b, points_b) = contents(a), contents(b)
    assert files_a == files_b
    assert entries_a == entries_b
    np.testing.assert_array_equal(points_a, points_b)


@pytest.fixture(scope="module")
def made(heads, tmp_path_factory):
    return augment_dataset(
        heads.folder, tmp_path_factory.mktemp("made") / "more", factor=4, seed=3, split="all",
        workers=1,
    )  # fmt: skip


def test_every_scan_comes_again_from_its_record(heads, made):
    made = Dataset.open(made.folder)
    assert len(made) == 4 * HEADS
    sources = {entry.identity: heads.read(entry) for entry in heads.entries}
    kept = records(made)
    for entry in made.entries:
        source = sources[entry.origin["source"]["identity"]]
        again = regenerate(kept[entry.identity], source.volume, source.review.current)
        sample = made.read(entry)
        np.testing.assert_array_equal(sample.volume.data, again.volume.data)
        np.testing.assert_allclose(sample.review.current.points, again.landmarks.points, atol=1e-4)
        assert sample.review.current.status == again.landmarks.status
        assert sample.review.current.status[7] == "missing"
        assert (entry.who, entry.split) == ("AB", source.entry.split)
        assert entry.subject == (source.entry.subject or "scan-0004")
    assert Counter(record.policy for record in kept.values()) == {
        "DA1": 3, "DA2": 4, "DA3": 4, "DA4": 5,
    }  # fmt: skip
    assert len({entry.image_hash for entry in made.entries}) == len(made)
    assert (made.folder / folder.SHEET_FILE).read_bytes().startswith(b"\x89PNG")


def test_the_number_of_workers_changes_nothing(heads, made, tmp_path):
    two = augment_dataset(heads.folder, tmp_path / "two", factor=4, seed=3, split="all", workers=2)
    assert_same(made, two)


def test_a_stopped_call_goes_on(heads, made, tmp_path, monkeypatch):
    real = folder.store
    written = []

    def stops(output, identity, *arguments, **about):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(identity)
        return real(output, identity, *arguments, **about)

    call = {"factor": 4, "seed": 3, "split": "all", "workers": 1}
    monkeypatch.setattr(folder, "store", stops)
    with pytest.raises(KeyboardInterrupt):
        augment_dataset(heads.folder, tmp_path / "more", **call)
    assert len(Dataset.open(tmp_path / "more")) == 5
    monkeypatch.undo()
    # One file was lost meanwhile.
    (tmp_path / "more" / "images" / "0002.nii.gz").unlink()
    half = tmp_path / "more" / "images" / ".4711.0006.nii.gz"
    half.write_bytes(b"half")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "more/images").iterdir()}
    del stamps[half.name]
    lines = []
    again = augment_dataset(heads.folder, tmp_path / "more", **call, report=lines.append)
    assert lines[0] == f"4 of {4 * HEADS} scans are there already"
    assert not half.exists()
    for name, stamp in stamps.items():
        assert (again.folder / "images" / name).stat().st_mtime_ns == stamp
    assert_same(made, again)
    # With everything there nothing is done.
    lines.clear()
    augment_dataset(heads.folder, tmp_path / "more", **call, report=lines.append)
    assert lines == [f"{4 * HEADS} of {4 * HEADS} scans are there already"]


def test_only_training_scans_are_varied_and_originals_come_along(heads, tmp_path):
    made = augment_dataset(heads.folder, tmp_path / "more", with_originals=True, workers=1)
    copied, varied = made.entries[:HEADS], made.entries[HEADS:]
    assert [e.image_hash for e in copied] == [e.image_hash for e in heads.entries]
    assert [e.split for e in copied] == ["train", "train", "train", "test"]
    assert [e.origin for e in copied] == [{}] * HEADS
    assert [e.origin["source"]["identity"] for e in varied] == ["0001", "0002", "0003"]
    assert [e.subject for e in made.entries] == ["P1", "P1", "P2", "scan-0004", "P1", "P1", "P2"]
    assert set(records(made)) == {entry.identity for entry in varied}


def entries(count):
    return [Entry(f"{n:04d}", "", "", "", "", "") for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("factor", "counts"), [(1, {1: 100}), (0.25, {1: 25, 0: 75}), (2.5, {2: 50, 3: 50})]
)
def test_a_plan_makes_as_many_as_the_factor_says(factor, counts):
    tasks = plan(entries(100), AugmentationConfig(), factor, seed=0)
    per_source = Counter(task.source.identity for task in tasks)
    assert Counter(per_source.get(e.identity, 0) for e in entries(100)) == counts
    assert [task.identity for task in tasks] == [f"{n:04d}" for n in range(1, len(tasks) + 1)]
    shares = Counter(task.policy for task in tasks)
    for name, policy in AugmentationConfig().policies.items():
        assert abs(shares[name] - policy.probability * len(tasks)) < 1
    assert len({task.seed for task in tasks}) == len(tasks)
    assert tasks == plan(entries(100), AugmentationConfig(), factor, seed=0)
    assert tasks != plan(entries(100), AugmentationConfig(), factor, seed=1)


def test_another_call_into_the_same_folder_is_refused(heads, made, brain88, tmp_path):
    call = {"factor": 4, "seed": 3, "split": "all", "workers": 1}
    before = (made.folder / MANIFEST).read_bytes()
    gentle = AugmentationConfig(machine=("blur",))
    for change, words in (
        ({"seed": 4}, "another seed"),
        ({"factor": 2}, "another factor"),
        ({"split": "train"}, "another split"),
        ({"with_originals": True}, "originals"),
        ({"config": gentle}, "other augmentation settings"),
    ):
        with pytest.raises(UserError, match=words):
            augment_dataset(heads.folder, made.folder, **{**call, **change})
    with pytest.raises(UserError, match="another folder"):
        augment_dataset(heads.folder, heads.folder, **call)
    with pytest.raises(UserError, match="a dataset of its own"):
        augment_dataset(made.folder, heads.folder, **call)
    with pytest.raises(UserError, match="is empty"):
        augment_dataset(Dataset.create(tmp_path / "none", brain88).folder, tmp_path / "more")
    with pytest.raises(UserError, match="is in the split validation"):
        augment_dataset(heads.folder, tmp_path / "more", split="validation")
    with pytest.raises(UserError, match="give a larger --factor"):
        augment_dataset(heads.folder, tmp_path / "more", factor=0.1)
    assert (made.folder / MANIFEST).read_bytes() == before
    assert not (tmp_path / "more").exists()


def test_corrected_landmarks_make_another_dataset(heads, tmp_path):
    import shutil

    shutil.copytree(heads.folder, tmp_path / "set")
    augment_dataset(tmp_path / "set", tmp_path / "more", workers=1)
    dataset = Dataset.open(tmp_path / "set")
    sample = dataset.read(dataset.entries[0])
    sample.review.move("CC_G", [1.0, 2.0, 3.0])
    dataset.add(sample.volume, sample.review)
    with pytest.raises(UserError, match="another state of the dataset"):
        augment_dataset(tmp_path / "set", tmp_path / "more", workers=1)


def test_the_command_says_what_it_made(heads, tmp_path, capsys):
    settings = tmp_path / "gentle.json"
    settings.write_text(json.dumps({"policies": {"all": {"probability": 1, "apply": ["blur"]}}}))
    output = tmp_path / "more"
    arguments = ["augment", str(heads.folder), "-o", str(output), "--config", str(settings)]
    assert main([*arguments, "--workers", "1", "--seed", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/3] 0001: all, blur, of 0001"
    assert "3 scans made (3 all)" in lines
    assert "of their 264 landmarks 0 left the image, 0 lie in folds" in lines
    config, values = folder.settings_of(output)
    assert values["seed"] == 2
    assert list(config.policies) == ["all"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--factor", "0"], "factor must be above 0"),
        (["--config", "nowhere.yaml"], "augmentation settings nowhere.yaml not found"),
    ],
)
def test_wrong_options_are_one_sentence(heads, tmp_path, capsys, options, sentence):
    assert main(["augment", str(heads.folder), "-o", str(tmp_path / "more"), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "more").exists()
