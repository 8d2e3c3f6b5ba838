"""A dataset that is fit to train on, and everything that breaks one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.checks import accept_files, check_dataset, require_sound
from BrainLandmarksLib.dataset.dataset import MANIFEST
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.checksum import file_sha256
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, write_review


def rewritten(folder, change, identity="0003"):
    """Change the points of one head and renew its checksum, as the panel would."""
    dataset = Dataset.open(folder)
    entry = next(e for e in dataset.entries if e.identity == identity)
    sample = dataset.read(entry)
    points = sample.review.current.points
    row = {label: k for k, label in enumerate(dataset.protocol.labels)}
    points = change(points.copy(), row)
    dataset.add(sample.volume, Review.of(LandmarkSet.from_points(dataset.protocol, points)))


def manifest_changed(folder, change):
    path = folder / MANIFEST
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data["entries"])
    path.write_text(json.dumps(data))


def swap(*pairs):
    def change(points, row):
        for first, second in pairs:
            points[[row[first], row[second]]] = points[[row[second], row[first]]]
        return points

    return change


def moved(label, offset):
    def change(points, row):
        points[row[label]] += offset
        return points

    return change


POINTS = {
    "outside": (moved("OBEX", [0, 0, -300]), "OBEX lies outside the image"),
    "plane": (moved("CC_T", [9, 0, 0]), "mm off the plane 'mid-sagittal'"),
    "sides": (swap(("AMY_L", "AMY_R")), "AMY_L and AMY_R are swapped"),
    "order": (swap(("BB_2", "BB_7")), "BB_2 and BB_7 are out of order"),
    "mirrored": (lambda points, row: points * [-1, 1, 1], "all left landmarks are on the"),
    "alone": (moved("HIP_B_L", [60, 0, 0]), "HIP_B_L is on the wrong side"),
    "nothing": (lambda points, row: points * np.nan, "no landmark is placed"),
}


def cut_image(folder):
    path = folder / "images" / "0003.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])


def edited_landmarks(folder):
    path = folder / "landmarks" / "0003.mrk.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n")


def split_of_a_subject(entries):
    entries[0]["split"], entries[6]["split"] = "train", "test"


FILES = {
    "no image": (lambda f: (f / "images" / "0003.nii.gz").unlink(), "0003.nii.gz does not exist"),
    "cut image": (cut_image, "0003.nii.gz is damaged"),
    "other image": (
        lambda f: shutil.copy(f / "images" / "0001.nii.gz", f / "images" / "0003.nii.gz"),
        "0003.nii.gz is not the file that was added",
    ),
    "no landmarks": (lambda f: (f / "landmarks" / "0003.mrk.json").unlink(), "0003.mrk.json"),
    "landmarks edited": (edited_landmarks, "0003.mrk.json is not the file that was added"),
    "landmarks garbage": (
        lambda f: (f / "landmarks" / "0003.mrk.json").write_text("{"), "not a Slicer markups file",
    ),
    "subject in two splits": (
        lambda f: manifest_changed(f, split_of_a_subject), "scans of S01 are in several splits",
    ),
    "twins": (
        lambda f: manifest_changed(f, lambda e: e[1].update(image_hash=e[0]["image_hash"])),
        "the entries 0001, 0002 have the same image",
    ),
    "empty": (lambda f: manifest_changed(f, lambda e: e.clear()), "the dataset is empty"),
}  # fmt: skip


def test_a_good_dataset(twelve_heads, capsys):
    assert main(["dataset", "check", str(twelve_heads)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len([line for line in out if line.endswith("good")]) == 12
    assert out[-1].endswith("heads: 12, fit to train on")
    require_sound(Dataset.open(twelve_heads))


@pytest.mark.parametrize("name", POINTS)
def test_a_misplaced_landmark_breaks_it(heads, capsys, name):
    change, says = POINTS[name]
    rewritten(heads, change)
    assert main(["dataset", "check", str(heads)]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("broken") and says in line]
    assert line.startswith("broken: 0003: ")
    with pytest.raises(UserError) as refused:
        require_sound(Dataset.open(heads))
    assert says in str(refused.value)
    assert "brainlandmarks dataset check" in str(refused.value)


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_or_list_breaks_it(heads, capsys, name):
    change, says = FILES[name]
    change(heads)
    assert main(["dataset", "check", str(heads)]) == 1
    out = capsys.readouterr().out
    assert any(says in line for line in out.splitlines() if line.startswith("broken"))
    assert "Traceback" not in out


def test_the_first_mistakes_are_reported_and_the_others_counted(heads):
    for label in ("CC_G", "CC_S", "CC_T", "CC_I", "PMN"):
        rewritten(heads, moved(label, [8, 0, 0]), "0005")
        rewritten(heads, moved(label, [8, 0, 0]), "0006")
    with pytest.raises(UserError, match="and 7 more"):
        require_sound(Dataset.open(heads))


def test_how_far_off_a_plane_is_a_mistake_can_be_chosen(heads):
    rewritten(heads, moved("CC_T", [3, 0, 0]))
    assert main(["dataset", "check", str(heads)]) == 0
    assert main(["dataset", "check", str(heads), "--off-plane", "2"]) == 1


def test_files_changed_on_purpose_are_accepted(heads, capsys):
    edited_landmarks(heads)
    assert main(["dataset", "check", str(heads)]) == 1
    assert main(["dataset", "check", str(heads), "--accept"]) == 0
    assert "accepted the changed files of: 0003" in capsys.readouterr().out
    assert main(["dataset", "check", str(heads)]) == 0
    assert Dataset.open(heads).history[-1]["what"] == "accepted changed files"


def test_accepting_undoes_nothing_that_others_do_meanwhile(heads, monkeypatch):
    edited_landmarks(heads)
    last = Dataset.open(heads).entries[-1]

    def read_slowly(path):
        found = file_sha256(path)
        if str(path).endswith(last.landmarks):  # everything is read: a person corrects a head
            other = Dataset.open(heads)
            review = other.read_landmarks(other.entries[2])
            review.confirm("CC_G")
            other.revise(other.entries[2], review)
        return found

    monkeypatch.setattr("BrainLandmarksLib.dataset.checks.file_sha256", read_slowly)
    assert accept_files(Dataset.open(heads)) == []
    monkeypatch.undo()
    assert check_dataset(Dataset.open(heads)).sound


def test_missing_landmarks_and_new_heads_are_no_mistake(heads):
    def gone(points, row):
        points[[row["OBEX"], row["TH_L"]]] = np.nan
        return points

    rewritten(heads, gone)
    dataset = Dataset.open(heads)
    dataset.update([replace(e, split="train") for e in dataset.entries[:8]]
                   + list(dataset.entries[8:]), {"what": "test"})  # fmt: skip
    (heads / "images" / "stray.nii.gz").touch()
    report = check_dataset(dataset)
    assert report.sound
    assert "heads in no split: 4" in report.notes[0]
    assert any("images/stray.nii.gz" in note for note in report.notes)
    assert any(row[6] == 2 for row in report.table().rows)


def test_points_that_only_a_model_placed_are_named(heads):
    dataset = Dataset.open(heads)
    entry = dataset.entries[2]
    sample = dataset.read(entry)
    review = Review.of(LandmarkSet.from_points(dataset.protocol, sample.review.current.points))
    write_review(heads / entry.landmarks, review)
    note = check_dataset(dataset).notes
    assert any("points that only a model placed: 1 (0003)" in n for n in note)


def test_a_folder_that_is_no_dataset(tmp_path, capsys):
    assert main(["dataset", "check", str(tmp_path)]) == 2
    assert "is no dataset" in capsys.readouterr().err


def test_other_landmarks_are_checked_alike(tmp_path, tiny_protocol, blob_head):
    points = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]])
    dataset = Dataset.create(tmp_path / "tiny", tiny_protocol)
    good = LandmarkSet.from_points(tiny_protocol, points, "truth")
    dataset.add(blob_head, Review.of(good))
    assert check_dataset(dataset).sound
    mixed = LandmarkSet.from_points(tiny_protocol, points[[1, 0, 2, 3, 4]], "truth")
    dataset.add(blob_head, Review.of(mixed))
    assert list(check_dataset(dataset).sentences()) == ["0001: A_L and A_R are swapped"]
