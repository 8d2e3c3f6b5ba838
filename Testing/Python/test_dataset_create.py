"""From folders of images and landmark files to a dataset."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.dataset import LOCK, MANIFEST
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images import read_grid, read_image
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.io.pairing import annotation_stem, in_common, pair_up, subject_of


@pytest.fixture(scope="module")
def scans(twelve_heads):
    """Images and truths of a few heads, as files to be found."""
    dataset = Dataset.open(twelve_heads)
    return [
        (twelve_heads / e.image, dataset.read_landmarks(e).current) for e in dataset.entries[:4]
    ]


@pytest.fixture
def bids(tmp_path, scans):
    """A BIDS folder: two subjects, one of them twice, landmarks as a derivative."""
    root = tmp_path / "bids"
    names = ("sub-01/ses-1/sub-01_ses-1", "sub-01/ses-2/sub-01_ses-2", "sub-02/sub-02")
    for name, (image, landmarks), suffix in zip(names, scans, (".fcsv", ".csv", ".mrk.json")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, root / f"{name}_T1w.nii.gz")
        (root / f"{name}_T1w.json").write_text("{}")
        points = root / "derivatives" / "points" / f"{name}_desc-expert_points{suffix}"
        points.parent.mkdir(parents=True, exist_ok=True)
        write_landmarks(points, landmarks)
    (root / "participants.tsv").write_text("participant_id\n")
    return root


def test_bids(bids, tmp_path, scans, capsys):
    output = tmp_path / "set"
    assert main(["dataset", "create", str(bids), "-o", str(output)]) == 0
    out = capsys.readouterr().out
    assert "added 3, refused 0" in out
    assert "subjects of their own" not in out
    dataset = Dataset.open(output)
    assert [e.subject for e in dataset.entries] == ["01", "01", "02"]
    for sample, (image, landmarks) in zip(dataset, scans):
        np.testing.assert_array_equal(sample.volume.data, read_image(image).data)
        np.testing.assert_allclose(sample.review.current.points, landmarks.points, atol=1e-3)
        assert sample.entry.origin["voxels"] == list(sample.volume.grid.shape)
    assert main(["dataset", "check", str(output)]) == 0


def test_names_of_files_go_nowhere(tmp_path, scans, capsys):
    source = tmp_path / "in"
    source.mkdir()
    for name, (image, landmarks) in zip(("Miller_Jane", "Doe_John"), scans):
        shutil.copy(image, source / f"{name}.nii.gz")
        write_landmarks(source / f"{name}_landmarks.csv", landmarks)
    output = tmp_path / "set"
    assert main(["dataset", "create", str(source), "-o", str(output)]) == 0
    assert "note: 2 of the scans count as subjects of their own" in capsys.readouterr().out
    written = [p for p in output.rglob("*") if p.is_file() and p.suffix != ".gz"]
    assert not any(
        word in p.read_text(encoding="utf-8")
        for p in written
        for word in ("Miller", "Jane", "Doe_", "John")
    )
    assert all(e.subject == "" for e in Dataset.open(output).entries)


def test_one_image_under_two_names_is_refused_and_replaces_nothing(tmp_path, scans, capsys):
    source = tmp_path / "in"
    source.mkdir()
    (image, landmarks), (_, others), *_ = scans
    for name, points in (("sub-01_T1w", landmarks), ("sub-02_T1w", others)):
        shutil.copy(image, source / f"{name}.nii.gz")
        write_landmarks(source / f"{name}.csv", points)
    assert main(["dataset", "create", str(source), "-o", str(tmp_path / "set")]) == 2
    said = capsys.readouterr()
    assert "sub-02_T1w.nii.gz is the same image as sub-01_T1w.nii.gz" in said.err
    assert "added 1, refused 1" in said.out
    (sample,) = Dataset.open(tmp_path / "set")
    assert sample.entry.subject == "01"
    np.testing.assert_allclose(sample.review.current.points, landmarks.points, atol=1e-3)
    # The same run again, as after mending others, adds to what it made.
    (source / "sub-02_T1w.nii.gz").unlink()
    assert main(["dataset", "create", str(source), "-o", str(tmp_path / "set"), "--add"]) == 0


def test_a_pattern_for_subjects(tmp_path, scans):
    source = tmp_path / "in"
    source.mkdir()
    for name, (image, landmarks) in zip(
        ("OAS30001_d0129", "OAS30001_d0757", "OAS30002_d0653"), scans
    ):
        shutil.copy(image, source / f"{name}.nii.gz")
        write_landmarks(source / f"{name}.mrk.json", landmarks)
    command = ["dataset", "create", str(source), "-o", str(tmp_path / "set")]
    assert main([*command, "--subject-pattern", "(OAS3[0-9]+)"]) == 0
    assert [e.subject for e in Dataset.open(tmp_path / "set").entries] == [
        "OAS30001", "OAS30001", "OAS30002",
    ]  # fmt: skip


def test_a_bad_image_does_not_stop_the_others_and_can_be_added_later(bids, tmp_path, capsys):
    bad = bids / "sub-02" / "sub-02_T1w.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[:3000])
    output = tmp_path / "set"
    assert main(["dataset", "create", str(bids), "-o", str(output)]) == 2
    printed = capsys.readouterr()
    assert "added 2, refused 1" in printed.out
    assert "sub-02_T1w.nii.gz is damaged" in printed.err
    bad.write_bytes(good)
    assert main(["dataset", "create", str(bids), "-o", str(output)]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["dataset", "create", str(bids), "-o", str(output), "--add"]) == 0
    dataset = Dataset.open(output)
    assert len(dataset) == 3
    assert sorted(e.subject for e in dataset.entries) == ["01", "01", "02"]


def test_what_has_no_partner_is_named(bids, tmp_path, capsys):
    (bids / "derivatives/points/sub-02/sub-02_desc-expert_points.mrk.json").rename(
        bids / "other.mrk.json"
    )
    assert main(["dataset", "create", str(bids), "-o", str(tmp_path / "set")]) == 0
    out = capsys.readouterr().out
    assert "left out, images without landmarks: 1 (sub-02_T1w.nii.gz)" in out
    assert "left out, landmark files without an image: 1 (other.mrk.json)" in out


def survey_scan(folder):
    """A bright head of 1 mm with a long neck."""
    data = np.zeros((120, 120, 256), np.int16)
    data[10:110, 10:110, 90:250] = 400
    data[40:80, 40:80, :90] = 300
    affine = np.eye(4)
    affine[:3, 3] = (-59.5, -59.5, -127.5)
    nib.save(nib.Nifti1Image(data, affine), folder / "sub-7_T1w.nii.gz")


def test_survey_conversion(tmp_path, tiny_protocol, capsys):
    source = tmp_path / "in"
    source.mkdir()
    survey_scan(source)
    protocol = tmp_path / "tiny.json"
    protocol.write_text(tiny_protocol.to_json())
    points = [("A_L", -40, 20, 30), ("A_R", 40, 20, 30), ("B_M", 0, 0, 60), ("C_L", -10, 0, -125)]
    lines = ["label,r,a,s", *(",".join(map(str, p)) for p in points)]
    (source / "sub-7.csv").write_text("\n".join(lines) + "\n")
    command = ["dataset", "create", str(source), "-o", str(tmp_path / "set")]
    assert main([*command, "--protocol", str(protocol), "--survey"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == ["0001", "7", "sub-7_T1w.nii.gz", "sub-7.csv", "3", "C_L"]
    dataset = Dataset.open(tmp_path / "set")
    (entry,) = dataset.entries
    grid = read_grid(dataset.folder / entry.image)
    assert grid.shape == (224, 224, 101)
    np.testing.assert_allclose(grid.spacing, (1, 1, 2.2), atol=1e-5)
    assert entry.origin == {
        "voxels": [120, 120, 256], "spacing_mm": [1.0, 1.0, 1.0], "converted_to": "survey",
    }  # fmt: skip
    kept = dataset.read_landmarks(entry).current
    np.testing.assert_allclose(kept.point("A_L"), [-40, 20, 30])
    assert kept.missing.tolist() == [False, False, False, True, True]
    assert main(["dataset", "check", str(tmp_path / "set")]) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--subject-pattern", "("], "no regular expression"),
        (["--subject-pattern", "OAS"], "needs a group"),
        (["--protocol", "brain99"], "no protocol"),
        (["--add"], "is no dataset"),
        (["--survey"], "none of the 3 images could be used"),
    ],
)
def test_bad_options_make_nothing(bids, tmp_path, capsys, options, says):
    output = tmp_path / "set"
    assert main(["dataset", "create", str(bids), "-o", str(output), *options]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


def test_bad_folders(tmp_path, scans, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for source, output, says in (
        ("nowhere", "set", "is not a folder"),
        ("empty", "set", "no image has a landmark file of its name"),
        ("empty", "full", "not empty"),
        ("empty", "full/thesis.txt/set", "cannot write"),
    ):
        assert (
            main(["dataset", "create", str(tmp_path / source), "-o", str(tmp_path / output)]) == 2
        )
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["empty", "full", "thesis.txt"]


def test_no_guess_where_two_files_could_be_meant(tmp_path):
    for name in ("head.nii.gz", "head_A.csv", "head_B.csv"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"both head_[AB].csv and head_[AB].csv"):
        pair_up([tmp_path])
    (tmp_path / "head_B.csv").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "head.nii.gz").touch()
    # The image in the same folder is meant.
    (pair,) = pair_up([tmp_path]).pairs
    assert pair.image == tmp_path / "head.nii.gz"
    (tmp_path / "c").mkdir()
    (tmp_path / "head_A.csv").rename(tmp_path / "c" / "head_A.csv")
    with pytest.raises(UserError, match="could be the landmarks of"):
        pair_up([tmp_path])


def test_the_longest_name_and_the_best_format_win(tmp_path):
    names = (
        "head.nii",
        "head_2.nii",
        "head_2_landmarks.csv",
        "head_2_landmarks.mrk.json",
        "header.csv",
    )
    for name in names:
        (tmp_path / name).touch()
    found = pair_up([tmp_path])
    assert [(p.image.name, p.landmarks.name) for p in found.pairs] == [
        ("head_2.nii", "head_2_landmarks.mrk.json")
    ]
    assert [p.name for p in found.lone_images] == ["head.nii"]
    assert [p.name for p in found.lone_landmarks] == ["header.csv"]


def test_names_of_annotations(tmp_path):
    assert annotation_stem("out/head_landmarks.mrk.json") == "head"
    assert annotation_stem("_landmarks.csv") == "_landmarks"
    assert subject_of("sub-OAS30001_ses-d0129_T1w") == "OAS30001"
    assert subject_of("subject-1") is None
    for name, files in (("a", ("1.csv", "2.csv")), ("b", ("2_landmarks.fcsv", "3.csv"))):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    common, alone = in_common([tmp_path / "a", tmp_path / "b"])
    assert {k: [f.name for f in v] for k, v in common.items()} == {
        "2": ["2.csv", "2_landmarks.fcsv"]
    }
    assert alone == ["1", "3"]
    (tmp_path / "a" / "2.csv").unlink()
    with pytest.raises(UserError, match="no head in common"):
        in_common([tmp_path / "a", tmp_path / "b"])


def test_nothing_unfinished_is_left_in_the_folder(bids, tmp_path):
    main(["dataset", "create", str(bids), "-o", str(tmp_path / "set")])
    data = json.loads((tmp_path / "set" / MANIFEST).read_text(encoding="utf-8"))
    assert set(data) == {"version", "protocol", "entries", "history"}
    assert [path.name for path in (tmp_path / "set").rglob(".*")] == [LOCK]
