"""What has changed in a head since: nothing in a head that has not, a landmark that has moved."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.agreement.raters import STEPS, Raters, rated
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures.displacements import FACTORS, arrow_factor
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.io.transforms import read_linear
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration.expected_error import (
    expected_errors,
    repeated_errors,
)
from BrainLandmarksLib.registration.follow_up import LEVEL, follow, holm

HEADS = 40
MOVED = "CC_S"


@pytest.fixture(scope="module")
def head():
    protocol = load_protocol("brain88")
    points = read_landmarks(resources.sample_landmarks("brain88"), protocol).points
    return as_found(protocol, points)


@pytest.fixture(scope="module")
def errors(head):
    return expected_errors(head, LandmarkErrors.of_model("brain88", head.protocol))


def as_found(protocol, points):
    return LandmarkSet.from_points(protocol, points, "model", np.full(len(points), 0.95))


def scanned(head, root, rng, change=0.0):
    """The head found again with errors, in another position."""
    noise = (root @ rng.normal(size=len(root))).reshape(-1, 3)
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.normal(0, 6, 3), degrees=True)
    affine[:3, :3], affine[:3, 3] = turn.as_matrix(), rng.normal(0, 10, 3)
    return as_found(head.protocol, head.points + noise + change).moved(affine)


def test_an_unchanged_head_is_called_changed_no_more_often_than_stated(head, errors):
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(errors.covariance)
    changes = [
        follow(scanned(head, root, rng), scanned(head, root, rng), errors, errors)
        for _ in range(HEADS)
    ]
    flagged = sum(bool(change.changed) for change in changes)
    # More than 6 of 40 have a probability of less than 1 % if one in 20 is flagged.
    assert flagged <= 6
    # The expected errors are those that there are: neither too small nor too cautious.
    sizes = np.array([[move.length_mm for move in change.moves] for change in changes])
    expected = np.array([[move.expected_mm for move in change.moves] for change in changes])
    assert np.sqrt((sizes**2).mean()) == pytest.approx(np.sqrt((expected**2).mean()), rel=0.1)
    grown = np.array([[d.mm / d.expected_mm for d in change.distances] for change in changes])
    assert grown.std() == pytest.approx(1, rel=0.15)
    assert np.mean([move.p < LEVEL for change in changes for move in change.moves]) < 0.07


def test_what_has_moved_is_found_and_nothing_else(head, errors):
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(errors.covariance)
    row = head.protocol.by_label(MOVED).index - 1
    change = np.zeros_like(head.points)
    change[row] = [0, -9, 4]
    found = [
        follow(scanned(head, root, rng), scanned(head, root, rng, change), errors, errors)
        for _ in range(10)
    ]
    called = [{move.label for move in each.moves if move.changed} for each in found]
    assert sum(MOVED in names for names in called) >= 9
    assert sum(names == {MOVED} for names in called) >= 8
    for each in found:
        move = each.moves[row]
        assert not move.stable or move.length_mm < 8
        # In the baseline's space, wherever the head lay.
        np.testing.assert_allclose(np.linalg.norm(move.mm), np.sqrt(81 + 16), atol=5)
    lengths = [
        growth for each in found for growth in each.distances
        if growth.name == "corpus callosum, length"
    ]  # fmt: skip
    assert np.mean([growth.z for growth in lengths]) > 3


def test_a_scanner_s_own_repeatability_makes_it_sensitive(head, errors):
    rng = np.random.default_rng(2)
    sigma = np.full(len(head), 0.2)
    exact = repeated_errors(head, sigma)
    row = head.protocol.by_label(MOVED).index - 1
    change = np.zeros_like(head.points)
    change[row] = [0, 2, 0]
    root = 0.2 * np.eye(3 * len(head))
    before, after = scanned(head, root, rng), scanned(head, root, rng, change)
    sharp = follow(before, after, exact, exact)
    assert [move.label for move in sharp.moves if move.changed] == [MOVED]
    assert not follow(before, after, errors, errors).changed


def test_landmarks_farther_apart_than_expected_widen_the_errors(head):
    rng = np.random.default_rng(3)
    exact = repeated_errors(head, np.full(len(head), 0.1))
    root = 1.0 * np.eye(3 * len(head))
    changes = [
        follow(scanned(head, root, rng), scanned(head, root, rng), exact, exact) for _ in range(12)
    ]
    assert [change.scale for change in changes] == pytest.approx([10] * 12, rel=0.2)
    assert sum(bool(change.changed) for change in changes) <= 3


def test_holm():
    assert holm([0.01, 0.04, 0.02]) == [True, True, True]
    assert holm([0.01, 0.06, 0.03]) == [True, False, False]
    assert holm([]) == []


def test_missing_landmarks_are_left_out_and_too_few_refused(head, errors):
    points = head.points.copy()
    points[[3, 40]] = np.nan
    later = as_found(head.protocol, points)
    change = follow(head, later, errors, errors)
    assert len(change.moves) == len(head) - 2
    points[4:86] = np.nan
    with pytest.raises(UserError, match="in common, and a follow-up needs 6"):
        follow(head, as_found(head.protocol, points), errors, errors)
    mirrored = as_found(head.protocol, head.points[head.protocol.mirror_permutation()])
    with pytest.raises(UserError, match="exchanged"):
        follow(head, mirrored, errors, errors)


def test_the_command_writes_a_table_over_time_and_a_picture(tmp_path, head, capsys):
    rng = np.random.default_rng(4)
    root = 0.2 * np.eye(3 * len(head))
    change = np.zeros_like(head.points)
    row = head.protocol.by_label(MOVED).index - 1
    change[row] = [0, -11, 5]
    later = scanned(head, root, rng, change)
    write_landmarks(tmp_path / "first.mrk.json", head)
    write_landmarks(tmp_path / "2027.csv", scanned(head, root, rng))
    write_landmarks(tmp_path / "2028.csv", later)
    files = [str(tmp_path / name) for name in ("first.mrk.json", "2027.csv", "2028.csv")]
    assert main(["follow", *files, "-o", str(tmp_path / "out")]) == 0
    assert MOVED in capsys.readouterr().out
    with (tmp_path / "out" / "landmarks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(head)
    flagged = [(r["time"], r["landmark"]) for r in rows if r["changed"] == "yes"]
    assert flagged == [("2028", MOVED)]
    about = json.loads((tmp_path / "out" / "follow.json").read_text(encoding="utf-8"))
    first, second = about["times"]
    assert (first["time"], first["changed"]) == ("2027", [])
    assert MOVED in second["changed"]
    assert MOVED not in second["aligned_by"]
    assert len(second["aligned_by"]) > 80
    back = read_linear(tmp_path / "out" / "2028_to_baseline.tfm")
    away = np.linalg.norm(apply_affine(back, later.points) - head.points, axis=1)
    assert np.delete(away, row).max() < 1
    assert (tmp_path / "out" / "follow.png").read_bytes()[1:4] == b"PNG"
    twice = [files[0], files[1], files[1]]
    assert main(["follow", *twice, "-o", str(tmp_path / "two")]) == 2
    assert "called 2027" in capsys.readouterr().err


def test_arrows_are_enlarged_as_far_as_they_fit():
    assert arrow_factor(np.array([[0.0, 0.0, 30.0]])) == 1
    assert arrow_factor(np.array([[0.0, 2.0, 0.0], [np.nan] * 3])) == 10
    assert arrow_factor(np.full((2, 3), np.nan)) == max(FACTORS)


# A person's own scale -----------------------------------------------------------------------------


def test_raters_are_compared_with_the_others(tiny_protocol):
    base = np.arange(15.0).reshape(5, 3)
    raters = {name: [base.copy()] for name in "abc"}
    raters["c"][0][0] += [3, 0, 4]
    lonely = {"only": [base + 100]}
    table = rated(tiny_protocol, {"x": raters, "y": lonely}, "made up", "none")
    assert set(table.count.values()) == {3}
    first, second = tiny_protocol.labels[:2]
    # The others of c agree; those of a and b are c and one another: their median is halfway.
    np.testing.assert_allclose(table.quantiles_mm[first][[0, -1]], [2.5, 5.0])
    assert table.percentile(first, 10.0) == 100
    assert table.percentile(first, 0.0) == 0
    assert not table.quantiles_mm[second].any()
    assert np.isnan(table.percentile("none", 1.0))


def test_the_table_that_ships_has_every_afid_and_its_licence():
    raters = Raters.of_protocol("afids32")
    protocol = load_protocol("afids32")
    assert set(raters.quantiles_mm) == set(protocol.labels)
    assert "MIT" in raters.licence
    assert min(raters.count.values()) > 100
    for values in raters.quantiles_mm.values():
        assert len(values) == len(STEPS)
        assert (np.diff(values) >= 0).all()
    # Published for all raters: AC 0.37 and PC 0.38 mm in the middle.
    for label in ("AC", "PC"):
        assert raters.percentile(label, 0.4) == pytest.approx(50, abs=6)
    assert json.loads(raters.to_json())["landmarks"]["AC"]["count"] == raters.count["AC"]
    assert Raters.of_protocol("brain88") is None


def test_distance_gives_the_percentile_of_human_raters(tmp_path, capsys):
    protocol = load_protocol("afids32")
    expert = np.random.default_rng(0).uniform(-70, 70, (32, 3))
    moved = expert.copy()
    moved[0] += [0.4, 0, 0]
    moved[1] += [0, 30, 0]
    for name, points in (("found.csv", moved), ("expert.fcsv", expert)):
        write_landmarks(tmp_path / name, LandmarkSet.from_points(protocol, points))
    files = [str(tmp_path / name) for name in ("found.csv", "expert.fcsv")]
    assert main(["distance", *files, "--protocol", "afids32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    share = float(lines[0].split("mm")[1].split("%")[0])
    assert 40 < share < 60
    assert lines[1].endswith("100 % of raters were nearer")
