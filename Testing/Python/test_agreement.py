"""`brainlandmarks agreement`: people who agree, who differ by habit, and who err."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.agreement.ratings import (
    Ratings,
    deviations,
    disputes,
    group_table,
    landmark_table,
)
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.alignment import common_pose
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.synthesis.demonstration_set import write_raters
from BrainLandmarksTrainLib.synthesis.simulated_rater import Rater, RaterErrors

PROTOCOL = load_protocol("brain88")
ROW = {label: k for k, label in enumerate(PROTOCOL.labels)}


@pytest.fixture(scope="module")
def annotated(tmp_path_factory, twelve_heads):
    """Six heads annotated by two simulated people."""
    folder = shutil.copytree(twelve_heads, tmp_path_factory.mktemp("agreement") / "set")
    dataset = Dataset.open(folder)
    dataset.update(dataset.entries[:6], {"what": "test"})
    write_raters(dataset, 2, seed=3)
    return folder


@pytest.fixture(scope="module")
def heads_truth(twelve_heads):
    dataset = Dataset.open(twelve_heads)
    return np.array([dataset.read_landmarks(e).current.points for e in dataset.entries])


def ratings_of(*people):
    points = np.stack(people, axis=1)
    heads = tuple(f"{n:04d}" for n in range(len(points)))
    return Ratings(PROTOCOL, heads, tuple("ABC"[: len(people)]), points)


def test_the_same_points_agree_perfectly(heads_truth):
    ratings = ratings_of(heads_truth, heads_truth)
    assert np.nanmax(ratings.distances()) == 0
    table = group_table(ratings)
    assert table.rows[-1][2] == 0
    for row in landmark_table(ratings).rows:
        icc = np.array(row[8:14], float)
        np.testing.assert_allclose(icc[np.isfinite(icc)], 1.0, atol=1e-6)


def test_a_habit_is_a_bias_and_no_noise(heads_truth):
    """A person who places one landmark 2 mm to the right on every head."""
    rng = np.random.default_rng(0)
    a, b = (heads_truth + rng.normal(0, 0.3, heads_truth.shape) for _ in range(2))
    a[:, ROW["AMY_R"], 0] += 2.0
    table = landmark_table(ratings_of(a, b))
    column = {name: k for k, name in enumerate(table.header)}
    row = table.rows[ROW["AMY_R"]]
    assert row[column["A - B, bias R"]] == pytest.approx(2.0, abs=0.3)
    assert row[column["A - B, low R"]] < row[column["A - B, bias R"]] < row[column["A - B, high R"]]
    assert abs(row[column["A - B, bias S"]]) < 0.3
    assert row[column["ICC(3,1) R"]] > row[column["ICC(2,1) R"]] + 0.1
    assert row[column["mean"]] == pytest.approx(2.1, abs=0.2)


def test_distances_by_hand(heads_truth):
    offset = np.zeros((88, 3))
    offset[ROW["CC_G"]] = [3.0, 4.0, 0]
    two = ratings_of(heads_truth, heads_truth + offset).distances()
    np.testing.assert_allclose(two[:, ROW["CC_G"]], 5.0)
    # Three people, one of them away: two of the three pairs are 5 mm apart.
    three = ratings_of(heads_truth, heads_truth, heads_truth + offset)
    np.testing.assert_allclose(three.distances()[:, ROW["CC_G"]], 10 / 3)
    gap = heads_truth.copy()
    gap[0, ROW["CC_G"]] = np.nan
    assert np.isnan(ratings_of(gap, heads_truth).distances()[0, ROW["CC_G"]])


@settings(max_examples=3)
@given(st.integers(0, 2**31))
def test_where_the_heads_lie_in_the_scanner_does_not_count(heads_truth, seed):
    rng = np.random.default_rng(seed)
    a, b = (heads_truth + rng.normal(0, 1.0, heads_truth.shape) for _ in range(2))
    moves = np.tile(np.eye(4), (12, 1, 1))
    moves[:, :3, :3] = Rotation.from_euler(
        "z", rng.uniform(-20, 20, (12, 1)), degrees=True
    ).as_matrix()
    moves[:, :3, 3] = rng.uniform(-40, 40, (12, 3))
    still = landmark_table(ratings_of(a, b)).rows
    moved = landmark_table(
        ratings_of(*(np.array([apply_affine(m, h) for m, h in zip(moves, p)]) for p in (a, b)))
    ).rows
    for before, after in zip(still, moved):
        np.testing.assert_allclose(after[4:8], before[4:8], atol=1e-6)
        # The common pose has the heads' average pitch, to which turns about z add very little.
        np.testing.assert_allclose(after[8:14], before[8:14], atol=0.1)


def test_the_common_pose_is_upright(heads_truth):
    motions, mean = common_pose(PROTOCOL, heads_truth)
    midline = [k for k, lm in enumerate(PROTOCOL.landmarks) if lm.side == "M"]
    assert np.abs(mean[midline, 0]).max() < 0.5
    assert mean[ROW["EYE_A_L"], 1] > mean[ROW["BB_O"], 1] + 100
    assert mean[ROW["BB_5"], 2] > mean[ROW["OBEX"], 2] + 60
    for motion, head in zip(motions, heads_truth):
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.norm(apply_affine(motion, head) - mean, axis=1).max() < 12


def test_errors_that_break_the_guidelines_are_measured(heads_truth):
    rng = np.random.default_rng(0)
    quiet = {"anatomy_mm": 0.0, "off_plane_mm": 0.0, "spacing": 0.0, "habit_mm": 0.0,
             "swapped": 0.0}  # fmt: skip

    def rater(**errors):
        person = Rater.random(PROTOCOL, rng, RaterErrors(**{**quiet, **errors}))
        return np.array([person.annotate(head, rng) for head in heads_truth])

    np.testing.assert_allclose(rater(), heads_truth, atol=1e-9)
    found = deviations(ratings_of(rater(off_plane_mm=1.5), rater(spacing=0.15), rater()))
    groups = list(found.groups)
    axial, eye = groups.index("Brain Axial Boundary"), groups.index("Eye")
    plane, spacing = found.plane_mm[axial], found.spacing[axial]
    assert 0.8 < plane[0] < 1.8 > plane[1]
    assert plane[1] == pytest.approx(0, abs=1e-3)
    assert spacing[1] == pytest.approx(0.15 * np.sqrt(2), rel=0.25)
    assert spacing[0] < 0.05 < spacing[1]
    assert found.spacing_mm[axial, 1] > 3 > found.spacing_mm[axial, 2]
    assert np.isnan(found.spacing[eye]).all()


def test_what_to_annotate_again_is_ranked_with_reasons(heads_truth):
    other = heads_truth.copy()
    other[4][[ROW["TP_L"], ROW["TP_R"]]] = other[4][[ROW["TP_R"], ROW["TP_L"]]]
    other[7][ROW["CC_T"]] += [6.0, 0, 0]
    ranked = disputes(ratings_of(heads_truth, other))
    assert {(d.head, d.label) for d in ranked[:2]} == {("0004", "TP_L"), ("0004", "TP_R")}
    assert (ranked[2].head, ranked[2].label) == ("0007", "CC_T")
    assert any("B: swapped with TP_" in reason for reason in ranked[0].reasons)
    assert any("mm off its plane" in reason for reason in ranked[2].reasons)
    assert ranked[-1].distance_mm == 0
    assert len(ranked) == int(np.isfinite(heads_truth).all(-1).sum())


def test_the_command_before_and_after_correction(annotated, tmp_path, capsys):
    people = [str(annotated / "raters" / name) for name in "AB"]
    corrected = [str(tmp_path / name) for name in "AB"]
    for before, after in zip(people, corrected):
        assert main(["correct", before, "-o", after]) == 0
    output = tmp_path / "report"
    assert main(["agreement", *people, "-o", str(output), "--corrected", *corrected]) == 0
    out = capsys.readouterr().out
    assert "after correction" in out
    tables = {"landmarks", "groups", "guidelines", "reannotate"}
    pictures = {"distances", "head", "guidelines", "bland_altman", "bland_altman_corrected"}
    assert {p.name for p in output.iterdir()} == {
        *(f"{name}{suffix}.csv" for name in tables for suffix in ("", "_corrected")),
        *(f"{name}.png" for name in pictures),
        "agreement.md",
    }
    for name in pictures:
        assert (output / f"{name}.png").stat().st_size > 10_000

    def means(name):
        with open(output / name, newline="", encoding="utf-8") as file:
            return {row["group"]: float(row["mean"]) for row in csv.DictReader(file)}

    before, after = means("groups.csv"), means("groups_corrected.csv")
    for group in ("Brain Axial Boundary", "Brain Boundary MSP", "Corpus Callosum"):
        assert after[group] < 0.8 * before[group]
    page = (output / "agreement.md").read_text(encoding="utf-8")
    assert "ICC(2,1)" in page
    assert page.count("## Annotate again") == 2


def test_what_does_not_fit_together(annotated, tmp_path, capsys):
    a, b = (str(annotated / "raters" / name) for name in "AB")
    (tmp_path / "empty").mkdir()
    few = tmp_path / "few"
    few.mkdir()
    for name in ("0001.mrk.json", "0002.mrk.json"):
        shutil.copy(annotated / "raters" / "A" / name, few)
    output = str(tmp_path / "report")
    for arguments, says in (
        ([a], "two people or more"),
        ([a, a], "the same"),
        ([a, str(tmp_path / "empty")], "no landmark files"),
        ([a, str(tmp_path / "no")], "is not a folder"),
        ([a, b, "--corrected", a], "--corrected names 1 folders"),
        ([a, b, "--corrected", str(few), b], "not of the same heads"),
        ([a, b, "--protocol", "afids32"], "does not know"),
    ):
        assert main(["agreement", *arguments[:2], "-o", output, *arguments[2:]]) == 2, arguments
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "report").exists()
    # Heads that only some have annotated are named and left out.
    ratings = Ratings.read([a, few], PROTOCOL)
    assert ratings.heads == ("0001", "0002")
    assert ratings.left_out[0] == "0003"
    assert ratings.raters == ("A", "few")


def test_three_people_other_landmarks_and_one_head(tmp_path, tiny_protocol, capsys):
    protocol = tmp_path / "tiny.json"
    protocol.write_text(tiny_protocol.to_json())
    points = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]])
    for name, shift in (("a", 0.0), ("b", 1.0), ("c", 3.0)):
        (tmp_path / name).mkdir()
        lines = [
            f"{label},{p[0] + shift},{p[1]},{p[2]}"
            for label, p in zip(tiny_protocol.labels, points, strict=True)
        ]
        (tmp_path / name / "1.csv").write_text("\n".join(["label,r,a,s", *lines]) + "\n")
    people = [str(tmp_path / name) for name in "abc"]
    command = ["agreement", *people, "--protocol", str(protocol), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    last = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in last if line.startswith("All")]
    # One head: distances, but nothing to correlate.
    assert row == ["All", "5", "2.00", "2.00", "2.00", "-", "-"]
    with open(tmp_path / "out" / "landmarks.csv", newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert [h for h in header if h.endswith("bias R")] == [
        "a - b, bias R", "a - c, bias R", "b - c, bias R",
    ]  # fmt: skip


def test_people_who_share_the_work(tmp_path, tiny_protocol):
    """Two of three people have no landmark in common."""
    protocol = tmp_path / "tiny.json"
    protocol.write_text(tiny_protocol.to_json())
    points = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]])
    for name, rows in (("a", (0, 1)), ("b", range(5)), ("c", (2, 3, 4))):
        for head in ("1", "2"):
            path = tmp_path / name / f"{head}.csv"
            path.parent.mkdir(exist_ok=True)
            given = [points[row] if row in rows else np.full(3, np.nan) for row in range(5)]
            write_landmarks(path, LandmarkSet.from_points(tiny_protocol, given, "truth"))
    command = ["agreement", "--protocol", str(protocol), "-o", str(tmp_path / "out")]
    assert main([*command, *(str(tmp_path / name) for name in "abc")]) == 0
    assert (tmp_path / "out" / "bland_altman.png").is_file()


def test_too_few_landmarks_in_common():
    points = np.full((2, 2, 88, 3), np.nan)
    points[:, :, 0] = 1.0
    ratings = Ratings(PROTOCOL, ("1", "2"), ("A", "B"), points)
    with pytest.raises(UserError, match="too few landmarks"):
        landmark_table(ratings)
