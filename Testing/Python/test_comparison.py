"""`brainlandmarks evaluate`: the paper's tables, summaries and plots of found and true points."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from BrainLandmarksLib import detection
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.evaluation.comparison import Comparison
from BrainLandmarksTrainLib.evaluation.held_out import HeldOut, after_corrections
from BrainLandmarksTrainLib.evaluation.paper_tables import (
    absolute_errors,
    cell,
    table_four,
    table_three,
)
from BrainLandmarksTrainLib.evaluation.report import draw_confidence

TRUTH = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]])


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_both_readings_by_hand(tiny_protocol):
    """One scan, errors (3, 4, 0) and (0, 0, 6) in the first group, nothing known of the third."""
    differences = np.full((1, 5, 3), np.nan)
    differences[0, 0], differences[0, 1] = (3, 4, 0), (0, 0, -6)
    differences[0, 3], differences[0, 4] = (1, 1, 1), (2, 2, 2)
    np.testing.assert_allclose(
        absolute_errors(differences, "per coordinate")[0], [7 / 3, 2, np.nan, 1, 2]
    )
    np.testing.assert_allclose(
        absolute_errors(differences, "Euclidean")[0], [5, 6, np.nan, 3**0.5, 2 * 3**0.5]
    )
    per_coordinate = table_four(tiny_protocol, differences, "per coordinate")
    assert per_coordinate.header == (
        "Subanatomy",
        "MAE between ground truth and predicted coordinates (in mm)",
        "RMSE between ground truth and predicted coordinates (in mm)",
    )
    # RMSE of a landmark: sqrt(25 / 3) = 2.887 and sqrt(36 / 3) = 3.464.
    assert per_coordinate.rows[0] == ("Front", "2.17 ± 0.17", "3.18 ± 0.29")
    assert per_coordinate.rows[1] == ("Back", "1.50 ± 0.50", "1.50 ± 0.50")
    euclidean = table_four(tiny_protocol, differences, "Euclidean")
    # RMSE of the group in the scan: sqrt((25 + 36) / 2) = 5.523; one scan has no spread.
    assert euclidean.rows[0] == ("Front", "5.50 ± 0.50", "5.52 ± 0.00")
    with pytest.raises(ValueError, match="none of"):
        absolute_errors(differences, "Manhattan")


def test_normal_errors_have_the_ratio_of_the_papers_table(brain88):
    """RMSE is 1.155 times MAE per coordinate; the Euclidean MAE is twice as large."""
    differences = np.random.default_rng(0).normal(0, 1.5, (400, 88, 3))

    def numbers(text):
        return [float(x.split(" ")[0]) for x in text]

    for row in table_four(brain88, differences, "per coordinate").rows:
        mae, rmse = numbers(row[1:])
        assert rmse / mae == pytest.approx(0.9213 / 0.7979, abs=0.02)
    one = table_three({"net": {"all": differences}}, "per coordinate").rows[0][1]
    two = table_three({"net": {"all": differences}}, "Euclidean").rows[0][1]
    assert numbers([two])[0] / numbers([one])[0] == pytest.approx(2.0, abs=0.02)


def test_table_three_is_a_grid_of_configurations():
    errors = np.ones((2, 5, 3))
    table = table_three(
        {"baseline": {"MSE": errors, "Mixed": 2 * errors}, "dropout": {"Mixed": errors}},
        "per coordinate",
    )
    assert table.header == ("Configurations", "MSE (in mm)", "Mixed (in mm)")
    assert table.rows == [
        ("baseline", "1.00 ± 0.00", "2.00 ± 0.00"), ("dropout", "-", "1.00 ± 0.00"),
    ]  # fmt: skip
    assert cell(np.array([np.nan])) == "-"


@pytest.fixture
def folders(tmp_path, tiny_protocol):
    """Predictions and truths of four scans: exact, 5 mm off, one missed, one found too many."""
    protocol = tmp_path / "tiny.json"
    protocol.write_text(tiny_protocol.to_json())
    found, true = np.tile(TRUTH, (4, 1, 1)), np.tile(TRUTH, (4, 1, 1))
    found[1] += [3.0, 4.0, 0]
    found[2, 0] = np.nan
    true[3, 4] = np.nan
    for name, points, suffix in (("found", found, "_landmarks.csv"), ("truth", true, ".mrk.json")):
        (tmp_path / name).mkdir()
        for number, each in enumerate(points, start=1):
            landmarks = LandmarkSet.from_points(tiny_protocol, each, "truth")
            write_landmarks(tmp_path / name / f"{number:04d}{suffix}", landmarks)
    return tmp_path


def evaluate_folders(folder, *options):
    return main(
        [
            "evaluate", "--predictions", str(folder / "found"), "--truth", str(folder / "truth"),
            "--protocol", str(folder / "tiny.json"), "-o", str(folder / "report"), *options,
        ]
    )  # fmt: skip


def test_two_folders(folders, capsys):
    assert evaluate_folders(folders) == 0
    report = folders / "report"
    assert {p.name for p in report.iterdir()} == {
        "errors.md", "errors.csv", "points.csv", "groups.csv", "landmarks.csv",
        "table_3_per_coordinate.csv", "table_3_euclidean.csv", "table_4_per_coordinate.csv",
        "table_4_euclidean.csv", "errors_by_landmark.png", "cumulative.png", "head.png",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "4 scans, 5 landmarks of tiny: 18 found and compared, 1 missed, 1 found" in out
    assert "MAE per coordinate:" in out
    assert "Euclidean MAE:" in out
    groups = {row["group"]: row for row in rows_of(report / "groups.csv")}
    assert groups["Front"]["n"] == "11"
    assert float(groups["Front"]["mean"]) == pytest.approx(15 / 11, abs=1e-3)
    assert float(groups["All"]["sdr_4"]) == pytest.approx(13 / 18, abs=1e-3)
    landmarks = rows_of(report / "landmarks.csv")
    assert [row["landmark"] for row in landmarks] == ["A_L", "A_R", "B_M", "C_L", "C_R", "All"]
    assert float(landmarks[1]["median"]) == 0
    assert float(landmarks[1]["p90"]) == pytest.approx(3.5)
    points = rows_of(report / "points.csv")
    assert sum(row["state"] == "missed" for row in points) == 1
    second = next(row for row in points if row["scan"] == "0002")
    assert [float(second[k]) for k in ("dr", "da", "ds", "radial")] == [3, 4, 0, 5]
    errors = rows_of(report / "errors.csv")
    assert errors[2]["A_L"] == ""
    # Exactly the 5 mm scan is off: mean of |3|, |4|, |0| in a fourth of the scans.
    assert rows_of(report / "table_3_per_coordinate.csv")[0]["4 scans (in mm)"].startswith("0.65")
    assert "| A_L |" in (report / "errors.md").read_text(encoding="utf-8")
    for name in ("errors_by_landmark", "cumulative", "head"):
        assert (report / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_cumulative_curve_counts_what_was_missed(folders, tiny_protocol):
    comparison = Comparison.of_folders(folders / "found", folders / "truth", tiny_protocol)
    assert int(comparison.missed.sum()) == int(comparison.extra.sum()) == 1
    assert np.isfinite(comparison.errors).sum() == 18
    assert comparison.mean_head() is not None


@pytest.fixture
def tiny_set(tmp_path, tiny_protocol, blob_head):
    """Three scans, one of them in the test split, one with a point that only a model placed."""
    dataset = Dataset.create(tmp_path / "set", tiny_protocol)
    for number, split in enumerate(("train", "test", "test")):
        affine = blob_head.grid.affine.copy()
        affine[:3, 3] += 4.0 * number
        volume = Volume(blob_head.data, Grid(blob_head.grid.shape, affine))
        landmarks = LandmarkSet.from_points(tiny_protocol, TRUTH + 4.0 * number, "truth")
        if number == 2:
            landmarks.status[0] = "model"
        dataset.add(volume, Review.of(landmarks), subject=f"S{number}", split=split)
    return tmp_path / "set"


def test_a_model_on_the_test_heads_of_a_dataset(tiny_set, tiny_model, tmp_path, capsys):
    report = tmp_path / "report"
    command = ["evaluate", "--model", str(tiny_model), "--dataset", str(tiny_set)]
    assert main([*command, "-o", str(report)]) == 0
    out = capsys.readouterr().out
    assert "2 scans, 5 landmarks of tiny: 9 found and compared" in out
    assert "Note: 1 points that only a model placed are no truth" in out
    assert [row["scan"] for row in rows_of(report / "errors.csv")] == ["0002", "0003"]
    # What the command says is what the model does.
    sample = list(Dataset.open(tiny_set))[1]
    found = detection.Detector(tiny_model).detect(sample.volume).landmarks.points
    expected = np.linalg.norm(found - sample.review.current.points, axis=1)
    written = [
        float(rows_of(report / "errors.csv")[0][label]) for label in sample.review.protocol.labels
    ]
    np.testing.assert_allclose(written, expected, atol=0.05)
    assert main([*command, "--split", "all", "-o", str(tmp_path / "all")]) == 0
    assert len(rows_of(tmp_path / "all" / "errors.csv")) == 3
    assert main([*command, "--quality", "fast", "-o", str(tmp_path / "fast")]) == 0
    assert rows_of(tmp_path / "fast" / "errors.csv") != rows_of(report / "errors.csv")


def test_a_scan_without_a_head_is_missed_and_named(
    tiny_set, tiny_model, tmp_path, capsys, monkeypatch
):
    from BrainLandmarksLib.errors import UserError

    real = detection.Detector.detect

    def detect(self, volume, **options):
        if volume.grid.affine[0, 3] > -85.0:
            raise UserError("no head is recognised in the image.")
        return real(self, volume, **options)

    monkeypatch.setattr(detection.Detector, "detect", detect)
    command = ["evaluate", "--model", str(tiny_model), "--dataset", str(tiny_set)]
    assert main([*command, "-o", str(tmp_path / "report")]) == 0
    out = capsys.readouterr().out
    assert "4 missed" in out
    assert "Note: 0003: no head is recognised in the image." in out


def test_what_cannot_be_evaluated(folders, tiny_set, tiny_model, capsys, tmp_path, tiny_protocol):
    dataset = Dataset.open(tiny_set)
    dataset.update([replace(e, split="") for e in dataset.entries], {"what": "test"})
    empty = tmp_path / "empty"
    empty.mkdir()
    model, output = ["--model", str(tiny_model)], ["-o", str(tmp_path / "none")]
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    gone = LandmarkSet.from_points(tiny_protocol, np.full((5, 3), np.nan))
    write_landmarks(nothing / "0001.csv", gone)
    protocol = ["--protocol", str(folders / "tiny.json")]
    for arguments, says in (
        (["--dataset", str(tiny_set), *model], "is in the split test; run brainlandmarks dataset"),
        (["--dataset", str(tiny_set), "--split", "exam", *model], "there is no split 'exam'"),
        (["--dataset", str(empty), *model], "is no dataset"),
        (["--dataset", str(tiny_set), "--split", "all"], "the model finds brain88"),
        (["--predictions", str(folders / "found")], "--predictions and --truth go together"),
        (["--predictions", str(empty), "--truth", str(empty)], "holds no landmark files"),
        # No option is accepted and then ignored.
        (
            ["--predictions", str(empty), "--truth", str(empty), "--quality", "best"],
            "--quality goes with --dataset or --label-maps",
        ),
        (["--dataset", str(tiny_set), "--scans", "3", *model], "--scans goes with --label-maps"),
        (["--dataset", str(tiny_set), *protocol, *model], "--protocol goes with --predictions"),
        (["--label-maps", "x", "--split", "all"], "--split goes with --dataset"),
        (["--label-maps", "x", "--before", "brain88"], "--before goes with --dataset"),
        (
            ["--predictions", str(nothing), "--truth", str(folders / "truth"), *protocol],
            "no landmark is both found and true",
        ),
        (
            ["--predictions", str(folders / "found"), "--truth", str(folders / "truth")],
            "which brain88 does not know",
        ),
    ):
        assert main(["evaluate", *arguments, *output]) == 2, arguments
        error = capsys.readouterr().err.splitlines()
        assert says in error[-1]
        assert not (tmp_path / "none").exists()


def test_confidence_is_drawn_of_the_heads_that_others_tell_of(tmp_path):
    """Of two heads one was not recognised, and the other has nothing to be told by."""
    errors = np.stack([np.linspace(1, 9, 12), np.full(12, np.nan), np.linspace(2, 8, 12)])
    points = np.zeros((3, 12, 3))
    apart = np.full((3, 12), np.nan)
    heads = ("a", "b", "a")
    result = HeldOut(heads, errors, -errors, points, points, points, apart)
    draw_confidence(result, None, tmp_path / "confidence.png")
    assert (tmp_path / "confidence.png").stat().st_size > 5000
    shape = ShapeModel(np.zeros((12, 3)), np.zeros((1, 36)), 1.0)
    calibration = result.calibration()
    nothing = replace(result, found=points * np.nan)
    assert np.isnan(after_corrections(nothing, shape, calibration, 3)).all()


def test_a_dataset_without_truth_is_refused(tmp_path, tiny_protocol, tiny_model, blob_head, capsys):
    dataset = Dataset.create(tmp_path / "set", tiny_protocol)
    landmarks = LandmarkSet.from_points(tiny_protocol, TRUTH, "model")
    dataset.add(blob_head, Review.of(landmarks), split="test")
    command = ["evaluate", "--model", str(tiny_model), "--dataset", str(tmp_path / "set")]
    assert main([*command, "-o", str(tmp_path / "report")]) == 2
    assert "is truth: a model placed all of them" in capsys.readouterr().err
