"""What is measured on Grad-CAM maps: focus, two models side by side, and the sanity check."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from BrainLandmarksLib.cli import joined, main
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.gradcam import sanity
from BrainLandmarksLib.gradcam.comparison import FILES, MapComparison
from BrainLandmarksLib.gradcam.explanation import explain
from BrainLandmarksLib.gradcam.focus import Focus, measure, neighbours_of
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import load_model, save_model

NONE = np.array([-1])


def gaussian(grid: Grid, centre, sigma: float) -> np.ndarray:
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    return np.exp(-(((ras - centre) / sigma) ** 2).sum(-1) / 2)[None]


def rotation(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rigid_fit(rng.normal(size=(4, 3)), rng.normal(size=(4, 3)))[:3, :3]


# Focus --------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), sigma=st.floats(8, 14))
def test_a_gaussian_has_the_focus_of_a_gaussian(seed, sigma):
    """In a cube of any pose; the numbers are the quantiles and entropy of a 3-D Gaussian."""
    grid = cube([10, -20, 5], 200, 50, rotation(seed))
    centre = np.array([14.0, -17.0, 11.0])
    found = measure(gaussian(grid, centre, sigma), grid, centre[None] + [3, 0, -4], NONE)
    assert found.radius50_mm[0] == pytest.approx(1.5382 * sigma, rel=0.03)
    assert found.radius90_mm[0] == pytest.approx(2.5003 * sigma, rel=0.03)
    assert found.distance_mm[0] == pytest.approx(5, abs=0.05)
    bits = 1.5 * np.log2(2 * np.pi * np.e * sigma**2) - np.log2(4.0**3)
    assert found.entropy_bits[0] == pytest.approx(bits, abs=0.02)
    assert found.volume_ml[0] == pytest.approx((2 * np.pi * np.e) ** 1.5 * sigma**3 / 1e3, rel=0.02)
    assert np.isnan(found.overlap[0])


def test_extremes_of_focus():
    grid = cube([0, 0, 0], 160, 16)
    maps = np.zeros((4, 16, 16, 16), np.float32)
    maps[0, 3, 4, 5] = 7  # one voxel
    maps[1] = 2  # everywhere
    maps[2, 3, 4, 5] = maps[2, 9, 4, 5] = 1  # two voxels, 60 mm apart; the last map is empty
    points = np.repeat(grid.ijk_to_ras([[3, 4, 5]]), 4, axis=0)
    points[1] = np.nan
    found = measure(maps, grid, points, np.array([2, 0, 0, 1]))
    np.testing.assert_allclose(found.radius50_mm[[0, 2]], [0, 30])
    np.testing.assert_allclose(found.entropy_bits[:3], [0, 12, 1], atol=1e-9)
    np.testing.assert_allclose(found.volume_ml[:3], [1, 4096, 2])
    np.testing.assert_allclose(found.distance_mm[[0, 2]], [0, 30], atol=1e-9)
    np.testing.assert_allclose(found.overlap[:3], [0.5, 1 / 4096, 0.5])
    assert np.isnan(found.distance_mm[1])
    for name in Focus.names():
        assert np.isnan(getattr(found, name)[3]), name


def test_neighbours_are_the_nearest_of_the_group(brain88, tiny_protocol):
    shape = np.array([[0, 0, 0], [10, 0, 0], [4, 0, 0], [4.5, 0, 0], [40, 0, 0.0]])
    assert neighbours_of(tiny_protocol, shape).tolist() == [2, 2, 0, 4, 3]
    rng = np.random.default_rng(1)
    found = neighbours_of(brain88, rng.normal(size=(len(brain88), 3)))
    for row, other in enumerate(found):
        assert other != row
        assert brain88.landmarks[other].group == brain88.landmarks[row].group


# Two models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_models(tmp_path_factory, tiny_model):
    """The small random model, and one with other weights."""
    model = load_model(tiny_model)
    torch.manual_seed(11)
    network = HighRes3DNet(**model.network.spec()).eval()
    other = replace(model, network=network, spec=replace(model.spec, name="other"))
    return tiny_model, save_model(other, tmp_path_factory.mktemp("models") / "other")


def test_comparison_of_two_models(tmp_path, two_models, head_file, capsys):
    arguments = ["explain", "compare", *map(str, two_models), str(head_file), str(head_file)]
    assert main([*arguments, "-o", str(tmp_path / "report")]) == 0
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == sorted(FILES)
    printed = capsys.readouterr().out
    assert "| Front | tiny |" in printed
    assert "other has the smaller r50 in" in printed
    with (tmp_path / "report" / FILES[0]).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 5
    assert {row["model"] for row in rows} == {"tiny", "other"}
    for row in rows:
        assert 0 < float(row["radius50_mm"]) < float(row["radius90_mm"]) < 208
        assert 0 <= float(row["overlap"]) <= 1
        nearest = {"A_L": "B_M", "A_R": "B_M", "B_M": "A_L", "C_L": "C_R", "C_R": "C_L"}
        assert row["neighbour"] == nearest[row["label"]]
    text = (tmp_path / "report" / FILES[1]).read_text(encoding="utf-8")
    own = [float(row["radius50_mm"]) for row in rows if row["model"] == "other"]
    assert f"| All | other | {np.mean(own):.1f} |" in text
    assert text.count("| `") == 5
    assert (tmp_path / "report" / FILES[2]).read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "-o", str(tmp_path / "report")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_model_is_as_focused_as_itself(tiny_model, blob_head):
    detector = Detector(tiny_model, "cpu")
    comparison = MapComparison([detector, detector], ["a", "b"], [0, 3])
    comparison.add("head", blob_head)
    a, b = (line.split("|")[3:] for line in comparison.summary().splitlines() if "| All" in line)
    assert a == b
    assert "b has the smaller r50 in 0 of 2 maps" in comparison.summary()


def test_one_bad_image_does_not_stop_a_comparison(tmp_path, two_models, head_file, capsys):
    bad = tmp_path / "bad.nii"
    bad.write_text("no image")
    arguments = ["explain", "compare", *map(str, two_models), str(bad)]
    assert main([*arguments, str(head_file), "-o", str(tmp_path / "report")]) == 2
    assert "bad.nii" in capsys.readouterr().err
    assert (tmp_path / "report" / FILES[1]).exists()
    assert main([*arguments, "-o", str(tmp_path / "empty")]) == 2
    assert "no image could be used" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()


def test_models_of_different_landmarks_cannot_be_compared(tiny_model):
    with pytest.raises(UserError, match="different landmarks"):
        MapComparison([Detector(tiny_model, "cpu"), Detector("brain88", "cpu")], ["a", "b"])


# The sanity check ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explained(tiny_model, blob_head):
    detector = Detector(tiny_model, "cpu")
    return explain(detector, detector.detect(blob_head))


def test_unchanged_weights_give_unchanged_maps(explained, monkeypatch):
    trained = explained.model.network
    monkeypatch.setattr(sanity, "HighRes3DNet", lambda **spec: trained)
    check = sanity.randomise(explained, [0, 2, 4])
    assert check.steps == (
        "classifier", "penultimate", "stages.2.0", "stages.1.0", "stages.0.0", "first",
    )  # fmt: skip
    known = check.correlations[np.isfinite(check.correlations)]
    assert len(known) >= len(check.steps)
    np.testing.assert_allclose(known, 1)


def test_random_weights_give_other_maps_and_leave_the_model_alone(explained):
    before = {k: v.clone() for k, v in explained.model.network.state_dict().items()}
    state = torch.get_rng_state()
    check = sanity.randomise(explained, range(5), seed=3)
    for name, tensor in explained.model.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(torch.get_rng_state(), state)
    assert np.nanmean(np.abs(check.correlations[-1])) < 0.9
    again = sanity.randomise(explained, range(5), seed=3)
    np.testing.assert_array_equal(check.correlations, again.correlations)


def test_rank_correlation_is_spearman_s():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(5)
    a = np.clip(rng.normal(size=(3, 400)), 0, None)  # many equal values, as below a ReLU
    b = np.clip(a + rng.normal(size=(3, 400)), 0, None)
    found = (sanity._standardised_ranks(a) * sanity._standardised_ranks(b)).sum(axis=1)
    np.testing.assert_allclose(found, [spearmanr(x, y).statistic for x, y in zip(a, b)])
    assert np.isnan(sanity._standardised_ranks(np.zeros((1, 9)))).all()


def test_the_sanity_command(tmp_path, head_file, tiny_model, capsys):
    arguments = ["explain", "sanity", str(head_file), "--model", str(tiny_model)]
    assert main([*arguments, "-o", str(tmp_path), "--group", "back"]) == 0
    names = ["head_gradcam_sanity.csv", "head_gradcam_sanity.md"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    out = capsys.readouterr().out
    assert "| random down to | all | sd | empty maps | Back |" in out
    assert (tmp_path / names[1]).read_text(encoding="utf-8") in out + "\n"
    with (tmp_path / names[0]).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 2
    assert {row["label"] for row in rows} == {"C_L", "C_R"}


def test_two_words_are_one_command():
    assert joined(["explain", "compare", "a", "b"]) == ["explain compare", "a", "b"]
    assert joined(["explain", "./compare"]) == ["explain", "./compare"]
    assert joined(["explain", "comparison.nii"]) == ["explain", "comparison.nii"]
    assert joined(["--help"]) == ["--help"]
