"""`brainlandmarks correct`: the guidelines applied to annotations, and what may not move."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom import phantom_head, phantom_scan

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging import edges
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.protocol import compliance, constraints, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review
from BrainLandmarksLib.review.batch_correction import apply_guidelines, uncertainties

PROTOCOL = load_protocol("brain88")
PRIMARY = np.array([lm.role == "primary" for lm in PROTOCOL.landmarks])
ROW = {label: k for k, label in enumerate(PROTOCOL.labels)}


@pytest.fixture(scope="module")
def truth(phantom_truth):
    return phantom_truth.points


def disturbed(truth, seed, size=1.2):
    """An annotation with errors in every direction, of secondary points along their outline too."""
    rng = np.random.default_rng(seed)
    points = truth + rng.normal(0, size, truth.shape)
    for chain in PROTOCOL.chains:
        rows = constraints.chain_rows(PROTOCOL, chain)
        curve = constraints.outline(truth[rows], chain, 20)
        for k, row in enumerate(rows):
            if not PRIMARY[row]:
                points[row] += curve[(20 * k + rng.integers(-4, 5)) % len(curve)] - curve[20 * k]
    return points


def review_of(points):
    return Review.of(LandmarkSet.from_points(PROTOCOL, points, "edited"))


def swap(points, *pairs):
    result = points.copy()
    for a, b in pairs:
        result[[ROW[a], ROW[b]]] = result[[ROW[b], ROW[a]]]
    return result


@settings(max_examples=8)
@given(st.integers(0, 2**31))
def test_secondary_points_come_into_plane_and_step_and_primary_ones_stay(truth, seed):
    before = disturbed(truth, seed)
    review = review_of(before)
    edits = apply_guidelines(review)
    after = review.current.points
    np.testing.assert_array_equal(after[PRIMARY], before[PRIMARY])
    assert {PROTOCOL.by_label(edit.label).role for edit in edits} == {"secondary"}
    assert max(s.variation for s in compliance.spacings(PROTOCOL, after)) < 0.02
    off = compliance.off_plane(PROTOCOL, after)[~PRIMARY]
    # The robust plane shifts a little when the points it is fitted to move onto it.
    assert np.nanmax(off) < 0.3
    error = [np.linalg.norm(p - truth, axis=1)[~PRIMARY].mean() for p in (before, after)]
    assert error[1] < error[0]
    # Once more moves next to nothing.
    again = apply_guidelines(review)
    assert max((edit.distance_mm for edit in again), default=0) < 0.4


def test_every_rule_is_one_step_to_undo(truth):
    before = swap(disturbed(truth, 1), ("EYE_A_L", "EYE_A_R"))
    review = review_of(before)
    kinds = [edit.kind for edit in apply_guidelines(review)]
    assert list(dict.fromkeys(kinds)) == ["swapped", "projected", "respaced"]
    for _ in range(3):
        review.undo()
    assert not review.can_undo
    np.testing.assert_allclose(review.current.points, before, atol=1e-4)


def test_swapped_names_are_swapped_back(truth):
    pairs = [("EYE_A_L", "EYE_A_R"), ("AX_2_L", "AX_2_R"), ("BB_3", "BB_6")]
    review = review_of(swap(truth, *pairs))
    edits = apply_guidelines(review)
    swapped = {edit.label for edit in edits if edit.kind == "swapped"}
    assert swapped == {label for pair in pairs for label in pair}
    rest = ~np.isin(np.arange(88), [ROW[e.label] for e in edits if e.kind != "swapped"])
    np.testing.assert_allclose(review.current.points[rest], truth[rest], atol=1e-4)
    assert np.linalg.norm(review.current.points - truth, axis=1).max() < 2.0


def test_only_the_groups_that_are_asked_for(truth):
    before = swap(disturbed(truth, 2), ("EYE_A_L", "EYE_A_R"))
    review = review_of(before)
    edits = apply_guidelines(review, ["Brain Axial Boundary"])
    assert {PROTOCOL.group_of(e.label).name for e in edits} == {"Brain Axial Boundary"}


def test_primary_points_move_only_when_asked(truth):
    before = truth.copy()
    before[ROW["CC_G"]] += [3.0, 0, 0]
    review = review_of(before)
    apply_guidelines(review)
    np.testing.assert_array_equal(review.current.point("CC_G"), before[ROW["CC_G"]])
    (uncertainty,) = uncertainties(review)
    assert (uncertainty.label, round(uncertainty.mm)) == ("CC_G", 3)
    apply_guidelines(review, primary=True)
    assert np.linalg.norm(review.current.point("CC_G") - truth[ROW["CC_G"]]) < 0.3
    assert uncertainties(review) == []


def test_missing_points_stay_missing_and_their_chain_as_it_is(truth):
    before = disturbed(truth, 3)
    before[ROW["BB_4"]] = np.nan
    review = review_of(before)
    kinds = {edit.label: edit.kind for edit in apply_guidelines(review)}
    assert "BB_4" not in kinds
    assert review.current.status[ROW["BB_4"]] == "missing"
    assert {kinds.get(f"BB_{k}") for k in (1, 2, 3, 5)} <= {"projected", None}
    assert kinds["AX_1_L"] == "respaced"


# Traced on the image ------------------------------------------------------------------------------


def ellipse_image(a=40.0, b=30.0, spacing=1.0):
    """A bright elliptic cylinder, and its boundary in the plane z = 0."""
    shape = (120, 120, 40)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine)
    x, y = grid.ijk_to_ras(np.stack(np.indices(shape), -1))[..., :2].transpose(3, 0, 1, 2)
    radius = np.hypot(x / a, y / b)
    data = np.clip((1 - radius) * min(a, b) / spacing + 0.5, 0, 1) * 100
    angles = np.linspace(0, 2 * np.pi, 4001)
    boundary = np.stack([a * np.cos(angles), b * np.sin(angles), 0 * angles], -1)
    return Volume(data.astype(np.float32), grid), boundary


def test_an_outline_is_traced_onto_the_edge_of_the_image():
    volume, boundary = ellipse_image()
    chain = next(c for c in PROTOCOL.chains if c.closed)
    rows = constraints.chain_rows(PROTOCOL, chain)
    rng = np.random.default_rng(0)
    points = np.full((88, 3), np.nan)
    start = boundary[(np.arange(len(rows)) * 400 + 100) % 4000]
    points[rows] = start * (1 + rng.uniform(-0.06, 0.06, (len(rows), 1)))
    curve = edges.traced(volume, PROTOCOL, points, chain)
    away = np.linalg.norm(curve[:, None] - boundary, axis=-1).min(1)
    assert away.mean() < 0.25
    assert away.max() < 0.8
    spread = constraints.respaced(PROTOCOL, points, chain.group, edges.tracer(volume, PROTOCOL))[
        rows
    ]
    assert np.linalg.norm(spread[:, None] - boundary, axis=-1).min(1).max() < 0.8
    plain = constraints.respaced(PROTOCOL, points, chain.group)[rows]
    off = [np.linalg.norm(p[:, None] - boundary, axis=-1).min(1).mean() for p in (spread, plain)]
    assert off[0] < 0.5 * off[1]


def test_an_image_without_edges_changes_nothing():
    volume, boundary = ellipse_image()
    flat = Volume(np.full_like(volume.data, 7.0), volume.grid)
    chain = next(c for c in PROTOCOL.chains if c.closed)
    rows = constraints.chain_rows(PROTOCOL, chain)
    points = np.full((88, 3), np.nan)
    points[rows] = boundary[(np.arange(len(rows)) * 400 + 100) % 4000]
    curve = edges.traced(flat, PROTOCOL, points, chain)
    np.testing.assert_allclose(curve, constraints.outline(points[rows], chain, 24), atol=1e-6)


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def annotation(tmp_path, truth):
    path = tmp_path / "head.mrk.json"
    points = swap(disturbed(truth, 5), ("EYE_A_L", "EYE_A_R"))
    write_landmarks(path, LandmarkSet.from_points(PROTOCOL, points, "edited"))
    return path


def test_a_dry_run_shows_the_moves_and_writes_nothing(annotation, capsys):
    before = annotation.read_bytes()
    assert main(["correct", str(annotation), "--dry-run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:5] == ["landmark", "group", "role", "what", "mm"]
    rows = [line.split() for line in out if " swapped " in line]
    assert sorted(row[0] for row in rows) == ["EYE_A_L", "EYE_A_R"]
    assert out[-1] == "dry run: nothing was written"
    assert [p.name for p in annotation.parent.iterdir()] == ["head.mrk.json"]
    assert annotation.read_bytes() == before
    assert main(["correct", str(annotation)]) == 0
    # The table says what happened: the sum of the steps is the move.
    review, _ = read_review(annotation.with_name("head_corrected.mrk.json"), PROTOCOL)
    original = read_landmarks(annotation, PROTOCOL).points
    np.testing.assert_allclose(review.found.points, original, atol=1e-3)
    shown = {
        (row[0], row[-8]) for row in (line.split() for line in out) if row[-8:-7] == ["respaced"]
    }
    assert {(e.label, e.kind) for e in review.edits if e.kind == "respaced"} == shown


def test_formats_and_names(annotation, tmp_path, capsys):
    for name in ("out.csv", "out.fcsv", "out.mrk.json"):
        assert main(["correct", str(annotation), "-o", str(tmp_path / name)]) == 0
    points = [read_landmarks(tmp_path / n, PROTOCOL).points for n in ("out.csv", "out.mrk.json")]
    np.testing.assert_allclose(points[0], points[1], atol=2e-4)
    assert main(["correct", str(tmp_path / "out.csv")]) == 0
    assert (tmp_path / "out_corrected.csv").exists()


def test_a_folder(annotation, tmp_path, truth, capsys):
    folder = tmp_path / "rater"
    folder.mkdir()
    for seed, name in enumerate(("0001.mrk.json", "0002.csv")):
        points = LandmarkSet.from_points(PROTOCOL, disturbed(truth, seed), "edited")
        write_landmarks(folder / name, points)
    assert main(["correct", str(folder)]) == 0
    out = capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "rater_corrected").iterdir()) == [
        "0001.mrk.json", "0002.csv",
    ]  # fmt: skip
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["head", "0001", "0002"]


def test_with_the_image(annotation, tmp_path, capsys):
    scan = phantom_scan(phantom_head(), 3.0)
    images = tmp_path / "images"
    images.mkdir()
    nib.save(nib.Nifti1Image(scan.data, scan.grid.affine), images / "head.nii.gz")
    (images / "head").mkdir()  # of other files of this head
    command = ["correct", str(annotation), "--group", "Corpus Callosum"]
    for image, name in ((images / "head.nii.gz", "a.csv"), (images, "b.csv")):
        assert main([*command, "--image", str(image), "-o", str(tmp_path / name)]) == 0
    assert main([*command, "-o", str(tmp_path / "c.csv")]) == 0
    a, b, c = (read_landmarks(tmp_path / f"{x}.csv", PROTOCOL).points for x in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)
    np.testing.assert_array_equal(a[PRIMARY], c[PRIMARY])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--group", "Toe"], "no group called 'Toe'"),
        (["-o", "{folder}/x.txt"], "no known suffix"),
        (["-o", "{folder}/head.mrk.json"], "--overwrite"),
        (["--image", "{folder}/no.nii"], "does not exist"),
        (["--image", "{folder}"], "no image of head.mrk.json"),
        (["--protocol", "afids32"], "does not know"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(annotation, tmp_path, capsys, options, says):
    options = [option.format(folder=tmp_path) for option in options]
    assert main(["correct", str(annotation), *options]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["head.mrk.json"]


def test_files_that_are_no_annotations(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty.csv").write_text("label,r,a,s\nCC_G,,,\n")
    for name, says in (
        ("notes.txt", "not a landmark file"),
        ("nowhere.csv", "cannot read"),
        ("empty.csv", "no landmark to correct"),
    ):
        assert main(["correct", str(tmp_path / name)]) == 2
        assert says in capsys.readouterr().err
