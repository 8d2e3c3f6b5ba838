"""One head in several files: the one that was edited last counts, and what was taken is said."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest

from BrainLandmarksLib.agreement.ratings import Ratings
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.io.pairing import find_annotations, in_common, pair_up
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.evaluation.comparison import Comparison

POINTS = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]])
EDITED = POINTS + [[0, 0, 0], [0, 0, 0], [0, 0, 5], [0, 0, 0], [0, 0, 0]]
OLD, NEW = 1_700_000_000, 1_700_000_600


@pytest.fixture
def protocol_file(tmp_path, tiny_protocol):
    path = tmp_path / "tiny.json"
    path.write_text(tiny_protocol.to_json())
    return str(path)


@pytest.fixture
def place(tiny_protocol):
    """Writes landmarks to a file of some age."""

    def write(path, points, age):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_landmarks(path, LandmarkSet.from_points(tiny_protocol, points, "truth"))
        os.utime(path, (age, age))
        return path

    return write


def image_of(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(1, 200, (20, 20, 20)).astype(np.uint8)
    affine = np.diag([10.0, 10, 10, 1])
    affine[:3, 3] = -95
    nib.save(nib.Nifti1Image(data, affine), path)


def test_the_newest_of_files_that_differ_counts_and_is_named(tmp_path, tiny_protocol, place):
    place(tmp_path / "head.mrk.json", POINTS, OLD)
    place(tmp_path / "head.fcsv", EDITED, NEW)
    notes = []
    found = find_annotations(tmp_path, tiny_protocol, notes)
    assert found["head"].name == "head.fcsv"
    assert notes == ["head.fcsv was taken, which is newer than head.mrk.json and differs"]
    # The other way round the file that is left behind is named as well.
    os.utime(tmp_path / "head.mrk.json", (NEW + 60, NEW + 60))
    notes = []
    assert find_annotations(tmp_path, tiny_protocol, notes)["head"].name == "head.mrk.json"
    assert notes == ["head.mrk.json was taken, which is newer than head.fcsv and differs"]
    # Without the protocol the times alone decide.
    os.utime(tmp_path / "head.mrk.json", (OLD, OLD))
    assert find_annotations(tmp_path)["head"].name == "head.fcsv"


def test_files_that_say_the_same_are_one(tmp_path, tiny_protocol, place):
    points = POINTS.copy()
    points[2] = np.nan
    for age, name in enumerate(("mrk.json", "csv", "fcsv")):
        place(tmp_path / f"head.{name}", points, OLD + 100 * age)
    (tmp_path / "head_landmarks.csv").write_text("structure,volume\nbrain,1200\n")
    notes = []
    assert find_annotations(tmp_path, tiny_protocol, notes)["head"].name == "head.mrk.json"
    assert notes == []


def test_equally_old_files_that_differ_are_not_guessed(tmp_path, tiny_protocol, place):
    place(tmp_path / "head.mrk.json", POINTS, OLD)
    place(tmp_path / "head_landmarks.csv", EDITED, OLD + 1)
    with pytest.raises(UserError, match="differ, and are equally old"):
        find_annotations(tmp_path, tiny_protocol)


def test_commands_on_folders_say_what_they_took(
    tmp_path, tiny_protocol, protocol_file, place, capsys, monkeypatch
):
    for name in "ab":
        place(tmp_path / name / "1.mrk.json", POINTS, OLD)
    place(tmp_path / "b" / "1.csv", EDITED, NEW)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    note = "1.csv was taken, which is newer than 1.mrk.json and differs"
    files, _ = in_common([a, b], tiny_protocol)
    assert [file.name for file in files["1"]] == ["1.mrk.json", "1.csv"]
    ratings = Ratings.read([a, b], tiny_protocol)
    assert ratings.notes == (note,)
    np.testing.assert_allclose(ratings.distances(), [[0, 0, 5, 0, 0]], atol=1e-3)
    monkeypatch.setattr("BrainLandmarksLib.agreement.report.write_agreement", lambda *_: None)
    with_protocol = ["--protocol", protocol_file, "-o", str(tmp_path / "out")]
    assert main(["agreement", a, b, *with_protocol]) == 0
    assert f"note: {note}" in capsys.readouterr().out
    assert main(["correct", b, "--dry-run", *with_protocol]) == 0
    assert f"note: {note}" in capsys.readouterr().out
    assert Comparison.of_folders(b, a, tiny_protocol).notes == (note,)


def test_a_dataset_is_made_of_the_edited_file(tmp_path, protocol_file, place, capsys):
    image_of(tmp_path / "in" / "head.nii.gz")
    place(tmp_path / "in" / "head.mrk.json", POINTS, OLD)
    place(tmp_path / "in" / "head.fcsv", EDITED, NEW)
    command = ["dataset", "create", str(tmp_path / "in"), "-o", str(tmp_path / "set")]
    assert main([*command, "--protocol", protocol_file]) == 0
    assert "note: head.fcsv was taken" in capsys.readouterr().out
    dataset = Dataset.open(tmp_path / "set")
    read = dataset.read_landmarks(dataset.entries[0]).current
    np.testing.assert_allclose(read.points, EDITED, atol=1e-3)


def test_a_head_that_is_not_clear_stops_itself_only(tmp_path, protocol_file, place, capsys):
    scans = tmp_path / "in"
    for number in (1, 2, 3, 4):
        image_of(scans / f"sub-0{number}_T1w.nii.gz", number)
        place(scans / f"sub-0{number}_desc-AB_points.csv", POINTS, OLD)
    image_of(scans / "sub-02_T2w.nii.gz", 9)
    place(scans / "sub-03_desc-CD_points.csv", POINTS, OLD)
    place(scans / "sub-04_desc-AB_points.mrk.json", EDITED, OLD)
    command = ["dataset", "create", str(scans), "-o", str(tmp_path / "set")]
    assert main([*command, "--protocol", protocol_file]) == 2
    printed = capsys.readouterr()
    assert "added 1, refused 3" in printed.out
    assert "left out" not in printed.out
    errors = printed.err.splitlines()
    assert len(errors) == 3
    assert "sub-02_desc-AB_points.csv could be the landmarks of" in errors[0]
    assert "sub-02_T1w.nii.gz" in errors[0]
    assert "sub-02_T2w.nii.gz" in errors[0]
    assert "both sub-03_desc-AB_points.csv and sub-03_desc-CD_points.csv" in errors[1]
    assert "differ, and are equally old" in errors[2]
    assert [e.subject for e in Dataset.open(tmp_path / "set").entries] == ["01"]
    # The whole name of an image says which is meant.
    (scans / "sub-02_desc-AB_points.csv").rename(scans / "sub-02_T1w_AB.csv")
    found = pair_up([scans])
    assert [p.image.name for p in found.pairs][1] == "sub-02_T1w.nii.gz"
    assert [path.name for path in found.lone_images] == ["sub-02_T2w.nii.gz"]
