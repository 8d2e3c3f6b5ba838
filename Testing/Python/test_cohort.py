"""`brainlandmarks detect --bids` from the outside: files, resuming, bad scans, corrections."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from bids_tree import write_dataset, write_scan

from BrainLandmarksLib import __version__
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.cohort import work
from BrainLandmarksLib.cohort.bids import find_scans
from BrainLandmarksLib.cohort.derivatives import Derivatives
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.review import read_review, write_review

NAMES = [
    "sub-01_ses-1_T1w.nii.gz",
    "sub-01_ses-2_acq-fast_run-2_T1w.nii",
    "sub-02_T1w.nii.gz",
]
STEMS = [
    "sub-01/ses-1/anat/sub-01_ses-1_desc-tiny_landmarks",
    "sub-01/ses-2/anat/sub-01_ses-2_acq-fast_run-2_desc-tiny_landmarks",
    "sub-02/anat/sub-02_desc-tiny_landmarks",
]


@pytest.fixture
def dataset(tmp_path, blob_head):
    return write_dataset(tmp_path / "data", blob_head, NAMES)


@pytest.fixture
def detect(dataset, tiny_model):
    """Runs detect on the dataset; returns the exit code."""

    def run(*options, model=tiny_model):
        output = dataset / "derivatives" / "brainlandmarks"
        return main(
            ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(model), *options]
        )

    return run


@pytest.fixture
def output(dataset):
    return dataset / "derivatives" / "brainlandmarks"


@pytest.fixture
def detected(monkeypatch):
    """The scans that were really worked on."""
    found = []
    write = Derivatives.write

    def counted(self, scan, *arguments):
        found.append(scan.entities)
        write(self, scan, *arguments)

    monkeypatch.setattr(Derivatives, "write", counted)
    return found


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_results_are_bids_derivatives(dataset, detect, output, tiny_protocol, capsys):
    assert detect() == 0
    printed = capsys.readouterr()
    assert "3 scans: 3 done, 0 were done before, 0 failed" in printed.out
    files = sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())
    expected = [f"{stem}{ending}" for stem in STEMS for ending in (".json", ".mrk.json", ".tsv")]
    expected += [".bidsignore", "cohort.json", "cohort.tsv", "dataset_description.json"]
    assert files == sorted([*expected, "README.md", "protocol.json"])

    about = json.loads((output / "dataset_description.json").read_text(encoding="utf-8"))
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"] == [{"Name": "brainlandmarks", "Version": __version__}]
    (source,) = about["SourceDatasets"]
    assert source == {"URL": "bids:raw:", "DOI": "doi:10.0.2.3/x"}
    # The BIDS validator wants a URI here, and a URI or a relative one below.
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:[^\s]+", source["URL"])
    assert about["DatasetLinks"] == {"raw": "../.."}

    rows = rows_of(output / f"{STEMS[1]}.tsv")
    sidecar = json.loads((output / f"{STEMS[1]}.json").read_text(encoding="utf-8"))
    assert all(sidecar[column]["Description"] for column in rows[0])
    source = f"bids:raw:sub-01/ses-2/anat/{NAMES[1]}"
    assert sidecar["Sources"] == [source]
    assert sidecar["SpatialReference"] == source
    assert sidecar["Model"]["Name"] == "tiny"
    assert sidecar["Seconds"] > 0
    markups = read_landmarks(output / f"{STEMS[1]}.mrk.json", tiny_protocol)
    points = [[float(row[axis]) for axis in "ras"] for row in rows]
    np.testing.assert_allclose(points, markups.points, atol=1e-3)
    assert [row["label"] for row in rows] == list(tiny_protocol.labels)
    # This model has no shape model.
    assert {row["deviation"] for row in rows} == {"n/a"}

    table = rows_of(output / "cohort.tsv")
    columns = json.loads((output / "cohort.json").read_text(encoding="utf-8"))
    assert list(table[0]) == list(columns)
    assert [row["participant_id"] for row in table] == ["sub-01", "sub-01", "sub-02"]
    assert [row["session_id"] for row in table] == ["ses-1", "ses-2", "n/a"]
    assert [row["status"] for row in table] == ["ok"] * 3
    lowest = min(markups.confidence)
    assert float(table[1]["lowest_confidence"]) == pytest.approx(lowest, abs=1e-3)
    assert table[1]["least_sure"] == tiny_protocol.labels[int(np.argmin(markups.confidence))]

    texts = [path.read_text(encoding="utf-8") for path in output.rglob("*") if path.is_file()]
    assert not any(str(dataset) in text for text in texts)


def test_measures_of_the_protocol_are_columns(some_landmarks):
    from BrainLandmarksLib.cohort.table import describe

    columns = describe(some_landmarks.protocol)
    assert columns["brain_width_mm"]["Units"] == "mm"
    assert len([name for name in columns if name.endswith("_mm")]) == len(
        some_landmarks.protocol.distances
    )


def test_what_is_done_is_not_done_again(detect, output, detected, dataset, blob_head):
    assert detect() == 0
    before = {path: path.stat().st_mtime_ns for path in output.rglob("sub-*.*")}
    detected.clear()
    assert detect() == 0
    assert detected == []
    assert {path: path.stat().st_mtime_ns for path in output.rglob("sub-*.*")} == before

    write_scan(dataset / "sub-02/anat" / NAMES[2], blob_head, seed=99)
    (output / f"{STEMS[0]}.tsv").write_text("index\tlabel\n", encoding="utf-8")
    left = output / f"{STEMS[0]}.x"
    left = left.with_name(f".unfinished-{left.stem}.abc")
    left.mkdir()
    assert detect() == 0
    assert detected == ["sub-01_ses-1", "sub-02"]
    assert not left.exists()

    (output / f"{STEMS[1]}.mrk.json").write_text("{", encoding="utf-8")
    detected.clear()
    assert detect() == 0
    assert detected == ["sub-01_ses-2_acq-fast_run-2"]
    detected.clear()
    assert detect("--overwrite") == 0
    assert len(detected) == 3


def test_another_model_is_another_result(detect, output, detected, tiny_model, tmp_path):
    assert detect() == 0
    other = shutil.copytree(tiny_model, tmp_path / "other")
    spec = json.loads((other / "model.json").read_text(encoding="utf-8"))
    spec["command"] = "trained longer"
    (other / "model.json").write_text(json.dumps(spec), encoding="utf-8")
    detected.clear()
    assert detect(model=other) == 0
    assert len(detected) == 3
    sums = {row["model_sha256"] for row in rows_of(output / "cohort.tsv")}
    assert len(sums) == 1
    assert detect() == 0
    assert {row["model_sha256"] for row in rows_of(output / "cohort.tsv")} != sums


def test_a_scan_that_dies_half_written_is_not_done(detect, output, detected, monkeypatch):
    class Killed(BaseException):
        """The process ends here."""

    def die(content):
        if "Sources" in content:
            raise Killed
        return json.dumps(content)

    assert detect() == 0
    monkeypatch.setattr("BrainLandmarksLib.cohort.derivatives._json", die)
    with pytest.raises(Killed):
        detect("--overwrite")
    monkeypatch.undo()
    assert not (output / f"{STEMS[0]}.json").exists()
    records = Derivatives.open(output).records()
    assert [record.scan.entities for record in records] == [
        "sub-01_ses-2_acq-fast_run-2",
        "sub-02",
    ]
    assert detect() == 0
    assert len(Derivatives.open(output).records()) == 3


def test_a_bad_scan_becomes_a_row(detect, output, dataset, capsys):
    bad = dataset / "sub-03" / "anat" / "sub-03_T1w.nii.gz"
    bad.parent.mkdir(parents=True)
    bad.write_text("not an image")
    (bad.parent / "Doe_John_T1w.nii.gz").touch()
    (dataset / "sub-02/anat/sub-02_run-2_T1w.nii.gz").symlink_to(dataset / "annex/object")
    assert detect() == 2
    printed = capsys.readouterr()
    assert "5 scans: 3 done, 0 were done before, 2 failed" in printed.out
    assert "John" not in printed.out + printed.err
    assert str(dataset) not in printed.err
    table = rows_of(output / "cohort.tsv")
    assert [row["status"] for row in table] == ["ok", "ok", "ok", "failed", "failed"]
    assert "sub-02_run-2_T1w.nii.gz does not exist" in table[3]["warnings"]
    assert "damaged" in table[4]["warnings"]
    assert table[4]["lowest_confidence"] == "n/a"
    # Mended, or taken away, a scan fails no longer.
    shutil.copy(dataset / "sub-02/anat" / NAMES[2], bad)
    (bad.parent / "Doe_John_T1w.nii.gz").unlink()
    (dataset / "sub-02/anat/sub-02_run-2_T1w.nii.gz").unlink()
    assert detect() == 0
    table = rows_of(output / "cohort.tsv")
    assert [row["status"] for row in table] == ["ok"] * 4


def test_a_bug_is_a_row_and_shown_whole(detect, output, monkeypatch, capsys):
    real = work._detect

    def fails(job, results):
        if job.scan.participant == "02":
            raise ZeroDivisionError
        return real(job, results)

    monkeypatch.setattr(work, "_detect", fails)
    assert detect() == 2
    assert "Traceback" in capsys.readouterr().err
    row = rows_of(output / "cohort.tsv")[2]
    assert row["warnings"] == "the program failed (ZeroDivisionError); please report this."


def test_corrections_are_kept_and_counted(
    detect, output, detected, dataset, blob_head, tiny_protocol, capsys
):
    assert detect() == 0
    path = output / f"{STEMS[2]}.mrk.json"
    review, _ = read_review(path, tiny_protocol)
    review.move("B_M", [1.0, 2.0, 3.0])
    write_review(path, review)
    corrected = path.read_bytes()
    detected.clear()
    assert detect() == 0
    assert detected == []
    row = rows_of(output / "cohort.tsv")[2]
    assert row["corrected"] == "1"
    assert row["least_sure"] != "B_M"

    write_scan(dataset / "sub-02/anat" / NAMES[2], blob_head, seed=99)
    assert detect() == 2
    assert "was corrected by a person" in capsys.readouterr().err
    assert path.read_bytes() == corrected
    assert detect("--overwrite") == 0
    assert path.read_bytes() != corrected


def test_points_that_slicer_alone_moved_or_took_away_are_corrections(detect, output, capsys):
    """Slicer leaves the description, which says that the model has found the point."""
    one = ("--participant-label", "02")
    assert detect(*one) == 0
    path = output / f"{STEMS[2]}.mrk.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    first = found["markups"][0]["controlPoints"][0]
    moved = {**first, "position": [first["position"][0] + 2, *first["position"][1:]]}
    gone = {**first, "position": "", "positionStatus": "missing"}
    for point, corrected in ((moved, 1), (gone, 0)):
        found["markups"][0]["controlPoints"][0] = point
        path.write_text(json.dumps(found), encoding="utf-8")
        saved = path.read_bytes()
        (record,) = Derivatives.open(output).records()
        assert record.landmarks.status.count("edited") == corrected
        capsys.readouterr()
        assert detect(*one, "--quality", "fast") == 2
        assert "was corrected by a person" in capsys.readouterr().err
        assert path.read_bytes() == saved
        assert detect(*one) == 0
    # Saved again without a change it is nobody's work.
    found["markups"][0]["controlPoints"][0] = first
    path.write_text(json.dumps(found), encoding="utf-8")
    assert detect(*one, "--quality", "fast") == 0


def test_corrections_that_cannot_be_read_are_not_replaced(detect, output, capsys):
    one = ("--participant-label", "02")
    assert detect(*one) == 0
    path = output / f"{STEMS[2]}.mrk.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    points = saved["markups"][0]["controlPoints"]
    points.append({**points[0], "label": "F-1", "description": ""})
    path.write_text(json.dumps(saved), encoding="utf-8")
    before = path.read_bytes()
    assert detect(*one) == 2
    assert re.search(r"changed by a person and cannot be read.*'F-1'", capsys.readouterr().err)
    assert path.read_bytes() == before
    assert detect(*one, "--overwrite") == 0
    assert path.read_bytes() != before


def test_another_assumed_orientation_is_another_result(
    detect, output, dataset, detected, monkeypatch, capsys
):
    path = dataset / "sub-02" / "anat" / NAMES[2]
    stated = nib.load(path)
    image = nib.Nifti1Image(np.asarray(stated.dataobj), None)
    image.header.set_zooms(stated.header.get_zooms())
    nib.save(image, path)
    one = ("--participant-label", "02")
    assert detect(*one) == 2
    assert detect(*one, "--assume-orientation", "RAS") == 0
    for again in ((), ("--assume-orientation", "ras")):
        assert detect(*one, *again) == 0
    assert detected == ["sub-02"]
    right = rows_of(output / f"{STEMS[2]}.tsv")
    assert detect(*one, "--assume-orientation", "LAS") == 0
    assert detected == ["sub-02", "sub-02"]
    assert rows_of(output / f"{STEMS[2]}.tsv") != right
    # The report reads it as the detection did.
    monkeypatch.setattr("BrainLandmarksLib.cohort.report._picture", lambda *_: "")
    assert main(["report", str(output), "--shown", "1"]) == 0
    assert "There is no picture" not in (output / "cohort.html").read_text(encoding="utf-8")
    # A wrong code is no reason to call what is done a failure.
    capsys.readouterr()
    assert detect(*one, "--assume-orientation", "RAA") == 2
    assert capsys.readouterr().err.count("is no orientation") == 1
    assert not list((output / "logs").iterdir())


def test_array_jobs_do_some_subjects_each_and_the_report_all(detect, output, capsys):
    assert detect("--participant-label", "02") == 0
    assert not (output / "cohort.tsv").exists()
    assert f"brainlandmarks report {output}" in capsys.readouterr().out
    assert detect("--participant-label", "sub-01") == 0
    assert main(["report", str(output), "--shown", "0"]) == 0
    assert len(rows_of(output / "cohort.tsv")) == 3


def test_a_subject_without_a_scan_is_a_row(detect, output, dataset, blob_head, capsys):
    (dataset / "sub-03").mkdir()
    (dataset / "participants.tsv").write_text("participant_id\nsub-01\nsub-04\n")
    assert detect() == 2
    printed = capsys.readouterr()
    assert "3 scans: 3 done" in printed.out
    assert "subjects without a T1w image: 2" in printed.out
    assert "sub-03: its folder is empty." in printed.err
    table = rows_of(output / "cohort.tsv")
    assert [(row["participant_id"], row["scan"], row["status"]) for row in table[3:]] == [
        ("sub-03", "n/a", "failed"), ("sub-04", "n/a", "failed"),
    ]  # fmt: skip
    assert table[4]["warnings"] == "it is in participants.tsv, but has no folder."
    assert main(["report", str(output), "--shown", "0"]) == 0
    assert "sub-03_T1w" in (output / "cohort.html").read_text(encoding="utf-8")
    # One of them comes, the other one is given up.
    write_scan(dataset / "sub-03" / "ses-1" / "anat" / "sub-03_ses-1_T1w.nii.gz", blob_head)
    (dataset / "participants.tsv").unlink()
    assert detect() == 0
    table = rows_of(output / "cohort.tsv")
    assert [(row["participant_id"], row["status"]) for row in table[3:]] == [("sub-03", "ok")]
    assert not list((output / "logs").iterdir())


def test_a_folder_that_may_not_be_read_is_a_row(detect, dataset, monkeypatch, capsys):
    closed = dataset / "sub-01" / "ses-2" / "anat"
    real = os.listdir

    def listed(folder):
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "listdir", listed)
    found = find_scans(dataset)
    assert [scan.entities for scan in found.scans] == ["sub-01_ses-1", "sub-02"]
    assert found.left_out == ["sub-01/ses-2/anat may not be read; check its permissions."]
    found = find_scans(dataset, participants=["01"], suffix="UNIT1")
    assert [scan.problem for scan in found.absent] == ["a folder of it may not be read."]


def test_a_dataset_on_another_drive_is_found_again(dataset, tmp_path, tiny_protocol, monkeypatch):
    def other_drive(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    raw = dataset.rename(tmp_path / "data é")
    results = Derivatives.prepare(tmp_path / "out", raw, tiny_protocol)
    assert results.raw() == raw


def test_a_subject_that_was_asked_for_is_a_row(detect, output, capsys):
    assert detect("--participant-label", "02", "99") == 2
    printed = capsys.readouterr()
    assert "1 scans: 1 done" in printed.out
    assert "sub-99: it has no folder and is not in participants.tsv" in printed.err
    # Another array job does not know of it.
    assert detect("--participant-label", "01") == 0
    assert main(["report", str(output), "--shown", "0"]) == 0
    rows = [(row["participant_id"], row["status"]) for row in rows_of(output / "cohort.tsv")]
    assert rows == [("sub-01", "ok"), ("sub-01", "ok"), ("sub-02", "ok"), ("sub-99", "failed")]


def test_quality_is_passed_on_and_is_part_of_what_is_done(
    detect, output, detected, monkeypatch, capsys
):
    from BrainLandmarksLib.detection import Detector

    asked = []
    real = Detector.detect

    def noted(self, volume, **options):
        asked.append(options["quality"])
        return real(self, volume, **options)

    monkeypatch.setattr(Detector, "detect", noted)
    assert detect("--quality", "fast") == 0
    assert asked == ["fast"] * 3
    sidecar = json.loads((output / f"{STEMS[0]}.json").read_text(encoding="utf-8"))
    assert sidecar["Quality"] == "fast"
    # The same again is done; another one is not.
    assert detect("--quality", "fast") == 0
    assert len(asked) == 3
    assert detect() == 0
    assert asked[3:] == ["standard"] * 3
    # Results of before the choice are of the default quality.
    del sidecar["Quality"]
    for stem in STEMS:
        path = output / f"{stem}.json"
        about = json.loads(path.read_text(encoding="utf-8"))
        del about["Quality"]
        path.write_text(json.dumps(about))
    assert detect() == 0
    assert len(asked) == 6
    assert detect("--quality", "fast") == 0
    assert len(asked) == 9


def test_two_kinds_of_image_do_not_collide(detect, output, dataset, blob_head):
    write_scan(dataset / "sub-02" / "anat" / "sub-02_UNIT1.nii.gz", blob_head, seed=5)
    assert detect() == 0
    assert detect("--suffix", "UNIT1") == 0
    assert (output / "sub-02/anat/sub-02_desc-tinyUNIT1_landmarks.tsv").exists()
    assert len(rows_of(output / "cohort.tsv")) == 4


def test_a_folder_of_other_landmarks_or_makers_is_refused(detect, output, tmp_path, dataset):
    assert detect() == 0
    arguments = ["detect", "--bids", str(dataset), "-o"]
    assert main([*arguments, str(output)]) == 2  # the shipped model finds others
    foreign = tmp_path / "fmriprep"
    (foreign / "sub-01").mkdir(parents=True)
    assert main([*arguments, str(foreign)]) == 2
    # Old or hand-written descriptions have other forms of it.
    for makers in ([{"Name": "fMRIPrep"}], {"Name": "fMRIPrep"}, ["fMRIPrep"], "fMRIPrep", []):
        about = {"GeneratedBy": makers}
        (foreign / "dataset_description.json").write_text(json.dumps(about))
        assert main([*arguments, str(foreign)]) == 2
    assert sorted(path.name for path in foreign.iterdir()) == ["dataset_description.json", "sub-01"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["head.nii.gz", "--bids", "data", "-o", "out"], "give images or --bids, not both"),
        (["-o", "out"], "give an image"),
        (["head.nii.gz", "-o", "out", "--workers", "2"], "--workers needs --bids"),
        (["--bids", "data", "-o", "out", "--format", "csv"], "do not go with --bids"),
        (["--bids", "data", "-o", "data/derivatives/landmarks"], "derivatives/brainlandmarks"),
        (["--bids", "data", "-o", "data"], "lies in the BIDS dataset itself"),
        (["--bids", "data", "-o", "out", "--workers", "0"], "must be 1 or more"),
        (["--bids", "data", "-o", "out", "--model", "none"], "no model 'none'"),
        (
            ["--bids", "data", "-o", "out", "--workers", "2", "--scheduler", "tcp://x:1"],
            "a cluster has its own workers",
        ),
    ],
)
def test_wrong_options_are_one_sentence(options, sentence, dataset, monkeypatch, capsys):
    monkeypatch.chdir(dataset.parent)
    assert main(["detect", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not list(dataset.parent.rglob("*_landmarks*"))


def test_a_report_of_nothing_is_one_sentence(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_the_command_line_imports_no_engine():
    code = "import sys, BrainLandmarksLib.cli; print(*(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"dask", "distributed", "jinja2", "ipyniivue"}
