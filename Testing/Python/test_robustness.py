"""`brainlandmarks robustness`: the same scans in every condition, and one head again and again."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from phantom import phantom_head

from BrainLandmarksLib import detection
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.survey import SHAPE, SPACING_MM
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec, save_model
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.evaluation.robustness.conditions import FAMILIES, Corruption
from BrainLandmarksTrainLib.evaluation.robustness.contrasts import SIGNALS
from BrainLandmarksTrainLib.evaluation.robustness.results import (
    CLEAN,
    Measurement,
    Results,
    draw_results,
    paired_change,
)
from BrainLandmarksTrainLib.evaluation.robustness.retest import Rescan, Retest, with_margin
from BrainLandmarksTrainLib.evaluation.robustness.runner import Plan, measure, varied
from BrainLandmarksTrainLib.evaluation.robustness.scans import DatasetScans, Rendering, Scan
from BrainLandmarksTrainLib.synthesis import rendering
from BrainLandmarksTrainLib.synthesis.label_maps import AnnotatedMap
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.tissues import TISSUES

BY_NAME = {family.name: family for family in FAMILIES}
TRUTH = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -40.0]])


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def scan(tiny_protocol, blob_head):
    """A smooth head without a rendering, as a scanner gives it."""
    return Scan("blob", blob_head, LandmarkSet.from_points(tiny_protocol, TRUTH, "truth"))


@pytest.fixture(scope="module")
def rendered(phantom_truth):
    """A head of ellipsoids, rendered coarsely as a good T1 scan."""
    shape = phantom_truth.points - np.nanmean(phantom_truth.points, axis=0)
    head = AnnotatedMap("phantom", phantom_head(), phantom_truth).head(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "SCAN", Lattice((64, 72, 72), 3.4, 1))
        render = Rendering(head, phantom_truth.protocol.mirror_permutation(), (0, 0))
        volume, points = render.scan()
        truth = LandmarkSet.from_points(phantom_truth.protocol, points, "truth")
        yield Scan("phantom 1", volume, truth, render)


# Conditions ---------------------------------------------------------------------------------------


def test_families_have_names_of_their_own_and_all_tissues_a_signal():
    assert len(BY_NAME) == len({family.title for family in FAMILIES}) == len(FAMILIES)
    assert all(set(tissues) == set(TISSUES) for tissues in SIGNALS.values())
    assert sum(isinstance(family, Corruption) for family in FAMILIES) == 7
    assert all(len(f.strengths) == 3 for f in FAMILIES if isinstance(f, Corruption))


@pytest.mark.parametrize("name", [f.name for f in FAMILIES if isinstance(f, Corruption)])
def test_a_stronger_corruption_changes_more_and_moves_nothing(scan, name):
    family, changes = BY_NAME[name], []
    # Slices that are no thicker than the voxels are refused.
    for strength in family.strengths[1:] if name == "anisotropy" else family.strengths[::2]:
        worse = varied(scan, family, strength, seed=1, number=0)
        changes.append(float(np.abs(worse.volume.data - scan.volume.data).mean()))
        np.testing.assert_array_equal(worse.truth.points, TRUTH)
        again = varied(scan, family, strength, seed=1, number=0)
        np.testing.assert_array_equal(again.volume.data, worse.volume.data)
    assert 0 < changes[0] < changes[1]
    other = varied(scan, family, family.strengths[-1], seed=2, number=0)
    # Nothing about a blur of one width is left to chance, and little about thick slices.
    if name not in ("blur", "anisotropy"):
        assert np.abs(other.volume.data - worse.volume.data).max() > 0


def test_rotation_turns_head_and_landmarks_about_one_axis(scan):
    for strength in BY_NAME["rotation"].strengths:
        turned = varied(scan, BY_NAME["rotation"], strength, seed=3, number=0).truth.points
        centre = scan.volume.grid.center_ras
        a, b = TRUTH - centre, turned - centre
        # Landmarks that are turned by an angle about an axis keep their place along it.
        kept = np.abs(a - b).max(axis=0) < 1e-6
        assert kept.sum() == 1
        plane = ~kept
        angle = np.arctan2(*b[:, plane].T) - np.arctan2(*a[:, plane].T)
        off = np.abs(np.degrees(np.angle(np.exp(1j * angle))))
        np.testing.assert_allclose(off, strength, atol=1e-6)


def test_thick_slices_stay_where_they_are(scan):
    thick = varied(scan, BY_NAME["thickness"], 6.0, seed=0, number=0)
    grid = thick.volume.grid
    np.testing.assert_allclose(grid.spacing, (2, 2, 6))
    np.testing.assert_array_equal(thick.truth.points, TRUTH)
    middle = [
        np.tensordot(w, v.grid.ijk_to_ras(np.moveaxis(np.indices(v.grid.shape), 0, -1)), 3)
        for v in (scan.volume, thick.volume)
        for w in [v.data / v.data.sum()]
    ]
    np.testing.assert_allclose(middle[0], middle[1], atol=0.5)
    with pytest.raises(UserError, match="2 mm thick already"):
        varied(scan, BY_NAME["thickness"], 2.0, seed=0, number=0)


def test_cuts_end_where_they_say_and_take_landmarks_along(scan):
    low, high = TRUTH[:, 2].min(), TRUTH[:, 2].max()
    for name, expected in (("neck", {-10.0: 0, 10.0: 1, 30.0: 1}), ("top", {-10.0: 0, 10.0: 4})):
        for strength, lost in expected.items():
            cut = varied(scan, BY_NAME[name], strength, seed=0, number=0)
            edge = cut.volume.grid.ijk_to_ras([0, 0, 0])[2] - 1
            if name == "top":
                edge = cut.volume.grid.ijk_to_ras([0, 0, cut.volume.grid.shape[2] - 1])[2] + 1
            wanted = high - strength if name == "top" else low + strength
            assert abs(edge - wanted) <= 2.0
            assert cut.truth.missing.sum() == lost
    flat = replace(scan, volume=Volume(scan.volume.data[:, :, 40:60], scan.volume.grid.window(
        [0, 0, 40], (90, 100, 20))))  # fmt: skip
    with pytest.raises(UserError, match="nothing of the image"):
        varied(flat, BY_NAME["top"], 30.0, seed=0, number=0)


def test_contrasts_differ_in_grey_values_only(rendered, scan):
    clean = rendered.volume.data
    for name in ("contrast", "stripped"):
        for strength in BY_NAME[name].strengths:
            worse = varied(rendered, BY_NAME[name], strength, seed=0, number=0)
            assert worse.truth is rendered.truth
            data = worse.volume.data
            # The same head in the same place: where there was air, there still is.
            assert data[clean < 0.02].mean() < 0.1 * data.max()
            assert np.abs(data - clean)[clean > 0.3].mean() > 0.02
        with pytest.raises(UserError, match="cannot be changed afterwards"):
            varied(scan, BY_NAME[name], BY_NAME[name].strengths[0], seed=0, number=0)


# Results ------------------------------------------------------------------------------------------


def measurement(scan, family, strength, errors, there=3, note=""):
    missed = there - int(np.isfinite(errors).sum())
    return Measurement(scan, family, strength, tuple(map(float, errors)), there, missed, note)


def test_rows_by_hand(tmp_path):
    nan = math.nan
    noise = replace(BY_NAME["noise"], strengths=(0.04, 0.12))
    measured = [
        measurement("a", CLEAN, "", (1, 2, 3)),
        measurement("b", CLEAN, "", (2, 2, nan), there=2),
        measurement("a", "noise", 0.04, (2, 3, nan)),
        measurement("b", "noise", 0.04, (3, 3, nan), there=2),
        measurement("a", "noise", 0.12, (nan, nan, nan), note="no head was recognised"),
        measurement("b", "noise", 0.12, (4, 6, nan), there=2),
    ]
    assert Measurement.from_dict(json.loads(json.dumps(measured[1].to_dict()))).missed == 0
    results = Results.of(measured, ["a", "b"], [noise])
    clean, weak, strong = results.rows
    assert (clean.mean, clean.median, clean.missed, clean.landmarks) == (2.0, 2.0, 0, 5)
    assert (weak.mean, weak.missed, weak.change, weak.low, weak.high) == (2.75, 1, 1.0, 1.0, 1.0)
    assert (strong.mean, strong.missed, strong.change) == (5.0, 3, 3.0)
    assert math.isnan(strong.low)  # one scan has no interval
    assert results.notes == ("a, noise 0.12: no head was recognised",)
    assert "+1.00 (1.00 to 1.00)" in results.table().markdown()
    draw_results(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_interval_is_that_of_independent_scans():
    rng = np.random.default_rng(4)
    clean = rng.normal(3, 1, (60, 20))
    shift = rng.normal(0.5, 0.4, 60)
    change, low, high = paired_change(clean + shift[:, None], clean)
    assert change == pytest.approx(shift.mean())
    half = 1.96 * shift.std(ddof=1) / np.sqrt(60)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert all(map(math.isnan, paired_change(np.full((2, 3), np.nan), np.ones((2, 3)))))


# The commands -------------------------------------------------------------------------------------


@pytest.fixture
def tiny_set(tmp_path, tiny_protocol, blob_head):
    """Two scans of a made-up head with true landmarks."""
    dataset = Dataset.create(tmp_path / "set", tiny_protocol)
    for number in range(2):
        affine = blob_head.grid.affine.copy()
        affine[:3, 3] += 4.0 * number
        volume = Volume(blob_head.data, Grid(blob_head.grid.shape, affine))
        truth = LandmarkSet.from_points(tiny_protocol, TRUTH + 4.0 * number, "truth")
        dataset.add(volume, Review.of(truth), subject=f"S{number}", split="test")
    return tmp_path / "set"


def test_a_dataset_in_some_conditions(tiny_set, tiny_model, tmp_path, capsys, monkeypatch):
    report = tmp_path / "report"
    command = ["robustness", "--model", str(tiny_model), "--dataset", str(tiny_set)]
    command += ["--workers", "1", "-o", str(report), "--sheet"]
    assert main([*command, "--conditions", "noise"]) == 0
    assert "as it is" in capsys.readouterr().out
    assert {p.name for p in report.iterdir()} == {
        "measured.jsonl", "robustness.md", "robustness.csv", "robustness.png", "conditions.png",
    }  # fmt: skip
    first = (report / "measured.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(first) == 1 + 2 * 4
    # Killed in the middle of a line: what came before is kept, the rest is measured.
    (report / "measured.jsonl").write_text("\n".join(first[:6]) + "\n" + first[6][:30])
    calls = []
    real = detection.Detector.detect
    monkeypatch.setattr(
        detection.Detector, "detect",
        lambda self, volume, **options: calls.append(1) or real(self, volume, **options),
    )  # fmt: skip
    assert main([*command, "--conditions", "thickness", "noise"]) == 0
    rows = rows_of(report / "robustness.csv")
    assert [row["condition"] for row in rows] == [CLEAN] + 3 * ["noise"] + 5 * ["slice thickness"]
    # Noise on the second scan, and on both the slices that are thicker than its voxels.
    assert len(calls) == 3 + 2 * 4
    assert all(row["landmarks"] == "10" for row in rows if row["strength"] != "2")
    thin = next(row for row in rows if row["strength"] == "2")
    assert (thin["scans"], thin["mean"]) == ("0", "")
    # What the command says is what the model does.
    sample = next(iter(Dataset.open(tiny_set)))
    found = real(detection.Detector(tiny_model), sample.volume).landmarks.points
    errors = json.loads(first[1])["errors"]
    np.testing.assert_allclose(np.linalg.norm(found - TRUTH, axis=1), errors, atol=1e-3)
    capsys.readouterr()
    assert main([*command, "--seed", "5"]) == 2
    assert "measurements of another model" in capsys.readouterr().err
    # The same networks, and not the same model.
    cooler = shutil.copytree(tiny_model, tmp_path / "cooler")
    values = json.loads((cooler / "model.json").read_text(encoding="utf-8"))
    (cooler / "model.json").write_text(json.dumps({**values, "inverse_temperature": 2.0}))
    other = [str(cooler) if each == str(tiny_model) else each for each in command]
    assert main([*other, "--conditions", "noise"]) == 2
    assert "measurements of another model" in capsys.readouterr().err
    # The same names, and not the same heads: the landmarks have been corrected.
    dataset = Dataset.open(tiny_set)
    entry = dataset.entries[0]
    review = dataset.read_landmarks(entry)
    review.move(dataset.protocol.labels[0], review.current.points[0] + 1.0)
    dataset.revise(entry, review, {})
    assert main([*command, "--conditions", "noise"]) == 2
    assert "measurements of another model" in capsys.readouterr().err


def test_held_out_heads_in_other_contrasts(tmp_path, phantom_truth, capsys, monkeypatch):
    torch.manual_seed(1)
    networks = [
        HighRes3DNet(out_channels=88, features=2, residual_blocks=1, penultimate=8).eval()
        for _ in range(2)
    ]
    shape = phantom_truth.points - np.nanmean(phantom_truth.points, axis=0)
    held_out = {"heads": ["phantom"]}
    spec = ModelSpec("toy", CropSpec(16, 208.0), CropSpec(16, 256.0), shape, held_out=held_out)
    save_model(Model(phantom_truth.protocol, *networks, spec), tmp_path / "toy")
    label_map = phantom_head()
    (tmp_path / "maps").mkdir()
    image = nib.Nifti1Image(label_map.data.astype(np.int16), label_map.grid.affine)
    nib.save(image, tmp_path / "maps" / "phantom.nii.gz")
    report = tmp_path / "report"
    (report / "annotations").mkdir(parents=True)
    write_landmarks(report / "annotations" / "phantom.mrk.json", phantom_truth)
    monkeypatch.setattr(rendering, "SCAN", Lattice((52, 60, 60), 4.0, 1))
    command = ["robustness", "--model", str(tmp_path / "toy"), "--workers", "1", "-o", str(report)]
    command += ["--label-maps", str(tmp_path / "maps")]
    families = ["--conditions", "contrast", "stripped"]
    assert main([*command, *families, "--scans-per-head", "2"]) == 0
    rows = rows_of(report / "robustness.csv")
    assert [row["strength"] for row in rows] == ["", "T2", "FLAIR", "random", "brain only"]
    assert {row["landmarks"] for row in rows} == {rows[0]["landmarks"]}
    assert rows[0]["scans"] == "2"
    capsys.readouterr()
    for options, says in (
        ([*families, "--heads", "nobody"], "there is no label map nobody"),
        (["--conditions", "nose"], "did you mean 'noise'?"),
        ([*families, "--scans-per-head", "0"], "one scan at least"),
        (["--seed", "-1"], "--seed must be at least 0"),
    ):
        assert main([*command, *options]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.slow
def test_any_number_of_processes_measures_the_same(tiny_set, tiny_model, tmp_path):
    tables = []
    for workers in (1, 2):
        plan = Plan(str(tiny_model), DatasetScans(tiny_set), families=(BY_NAME["spikes"],))
        measured = measure(plan, tmp_path / str(workers), workers=workers)
        tables.append(measured.numbers().rows)
    for one, two in zip(*tables, strict=True):
        assert one[:6] == two[:6]
        np.testing.assert_allclose(one[6:], two[6:], atol=0.02)


# Test-retest --------------------------------------------------------------------------------------


def centroid(volume):
    """Centre of mass of the tissue, RAS mm."""
    points = volume.grid.ijk_to_ras(np.moveaxis(np.indices(volume.grid.shape), 0, -1))
    weight = np.where(volume.data > 30, volume.data, 0)
    return np.tensordot(weight / weight.sum(), points, 3)


def test_scanned_again_the_landmarks_move_with_the_head(tiny_protocol, blob_head):
    middle = centroid(blob_head)
    points = middle + np.array([[0, 0, 0], [50, 0, 0], [0, 60, 0], [0, 0, 50], [-40, -50, 30.0]])
    landmarks = LandmarkSet.from_points(tiny_protocol, points)
    rescan = Rescan(noise=0.02)
    for number in range(2):
        volume, moved = rescan.again(blob_head, landmarks, number)
        np.testing.assert_allclose(centroid(volume), moved[0], atol=0.3)
        assert np.linalg.norm(moved[0] - points[0]) > 1
        between = np.linalg.norm(points[:, None] - points, axis=-1)
        np.testing.assert_allclose(np.linalg.norm(moved[:, None] - moved, axis=-1), between)
    grid = blob_head.grid.coarser([0.5] * 3, 2 * np.array(blob_head.grid.shape) - 1)
    fine = Volume(resample(blob_head, grid), grid)
    survey, same = replace(rescan, survey=True).again(fine, landmarks, 1)
    assert (survey.grid.shape, tuple(survey.grid.spacing.round(6))) == (SHAPE, SPACING_MM)
    np.testing.assert_allclose(centroid(survey), same[0], atol=0.6)
    padded = with_margin(blob_head, 7.0)
    assert padded.grid.shape == (98, 108, 103)
    np.testing.assert_allclose(centroid(padded), middle, atol=1e-6)


def test_retest_command(head_file, tiny_model, tmp_path, capsys):
    report = tmp_path / "report"
    command = ["robustness", "retest", str(head_file), "--model", str(tiny_model)]
    command += ["-o", str(report), "--repetitions", "2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "2 repetitions of each image" in out
    assert {p.name for p in report.iterdir()} == {
        "retest.md", "retest_groups.csv", "retest_landmarks.csv",
    }  # fmt: skip
    groups = {row["group"]: row for row in rows_of(report / "retest_groups.csv")}
    assert list(groups) == ["Front", "Back", "All"]
    landmarks = rows_of(report / "retest_landmarks.csv")
    assert len(landmarks) == 5
    assert int(groups["All"]["n"]) == 10 - sum(int(row["missed"]) for row in landmarks)
    assert main([*command, "--noise", "2"]) == 2
    assert "--noise must lie between 0 and 1" in capsys.readouterr().err


def test_displacements_by_hand(tiny_protocol):
    moved = np.array([[[1, 2, 3, 4, math.nan], [3, 2, 3, 4, math.nan]]])
    result = Retest(tiny_protocol, ("head",), moved)
    rows = {row[0]: row[1:] for row in result.of_image(0).rows}
    assert rows["Front"][:2] == (6, 2.5)
    assert rows["All"] == (8, 3.0, 4.0, 4.0)
    assert result.worst(0).rows[0][:3] == ("C_L", "Back", 4.0)
    assert result.landmarks(0).rows[-1][-1] == 2
