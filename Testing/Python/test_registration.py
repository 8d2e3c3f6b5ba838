"""Points brought onto points: exactness, wrong points, errors, ITK's files, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine, ras_to_lps
from BrainLandmarksLib.geometry.alignment import FREEDOMS, affine_fit, robust_fit
from BrainLandmarksLib.geometry.fit_error import target_error
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.thin_plate import ThinPlate
from BrainLandmarksLib.imaging.warping import moved_onto, warped_onto
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.images.writing import write_image
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.io.transforms import read_linear, write_field, write_linear
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration.expected_error import (
    expected_errors,
    read_repeatability,
)
from BrainLandmarksLib.registration.register import KINDS, register
from BrainLandmarksLib.registration.report import fold_free, wrong

SEEDS = st.integers(0, 2**31)
KIND = st.sampled_from(sorted(FREEDOMS))


def motion(rng, kind="rigid"):
    """A random transform of a kind, 4x4."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    if kind == "similarity":
        affine[:3, :3] *= rng.uniform(0.7, 1.4)
    if kind == "affine":
        affine[:3, :3] = affine[:3, :3] @ (np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3)))
    affine[:3, 3] = rng.uniform(-80, 80, 3)
    return affine


def cloud(rng, count=30):
    return rng.normal(0, 45, (count, 3))


@pytest.fixture(scope="module")
def head():
    """The sample head's points, as a model that is sure of them would give them."""
    protocol = load_protocol("brain88")
    points = read_landmarks(resources.sample_landmarks("brain88"), protocol).points
    return as_found(protocol, points)


@pytest.fixture(scope="module")
def calibrated(head):
    return LandmarkErrors.of_model("brain88", head.protocol)


def as_found(protocol, points):
    return LandmarkSet.from_points(protocol, points, "model", np.full(len(points), 0.95))


# Fits ---------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(SEEDS, KIND)
def test_exact_points_give_back_the_transform(seed, kind):
    rng = np.random.default_rng(seed)
    points, affine = cloud(rng), motion(rng, kind)
    fit = robust_fit(points, apply_affine(affine, points), rng.uniform(0.5, 2, len(points)), kind)
    np.testing.assert_allclose(fit.affine, affine, atol=1e-8)
    assert fit.used.all()
    assert fit.scale < 1e-6


@settings(max_examples=12)
@given(SEEDS, KIND)
def test_a_third_of_grossly_wrong_points_has_no_say(seed, kind):
    rng = np.random.default_rng(seed)
    points, affine = cloud(rng), motion(rng, kind)
    moved = apply_affine(affine, points)
    exact = moved.copy()
    moved[:10] += rng.choice([-1, 1], (10, 3)) * rng.uniform(20, 100, (10, 3))
    fit = robust_fit(points, moved, np.ones(len(points)), kind)
    np.testing.assert_allclose(apply_affine(fit.affine, points), exact, atol=1e-6)
    assert not fit.used[:10].any()
    assert fit.used[10:].all()


@given(SEEDS)
def test_a_rigid_fit_is_never_a_reflection(seed):
    rng = np.random.default_rng(seed)
    points = cloud(rng, 12)
    fit = robust_fit(points, points * [-1, 1, 1], np.ones(12), "rigid")
    assert np.linalg.det(fit.affine[:3, :3]) == pytest.approx(1)


def test_points_with_small_errors_count_more():
    rng = np.random.default_rng(3)
    points = cloud(rng, 40)
    sigma = np.r_[np.full(10, 0.1), np.full(30, 4.0)]
    off = {True: [], False: []}
    for _ in range(30):
        moved = points + sigma[:, None] * rng.normal(size=points.shape)
        for known in off:
            fit = robust_fit(points, moved, sigma if known else np.ones(40), "rigid")
            off[known].append(np.linalg.norm(apply_affine(fit.affine, points) - points, axis=1))
    assert np.mean(off[True]) < 0.5 * np.mean(off[False])


def test_points_in_one_plane_fix_no_affine():
    points = cloud(np.random.default_rng(0)) * [1, 1, 0]
    with pytest.raises(ValueError, match="plane"):
        affine_fit(points, points)


# Thin-plate splines -------------------------------------------------------------------------------


def bent(points):
    return points + 4 * np.sin(points[:, [1, 2, 0]] / 50) + [3, -8, 1]


@settings(max_examples=12)
@given(SEEDS)
def test_a_thin_plate_goes_through_its_points_and_keeps_affines(seed):
    rng = np.random.default_rng(seed)
    points, sigma = cloud(rng), np.ones(30)
    plate = ThinPlate.fit(points, bent(points), sigma, smoothing=0.0)
    np.testing.assert_allclose(plate(points[plate.used]), bent(points)[plate.used], atol=1e-6)
    affine = motion(rng, "affine")
    straight = ThinPlate.fit(points, apply_affine(affine, points), sigma)
    elsewhere = cloud(rng)
    np.testing.assert_allclose(straight(elsewhere), apply_affine(affine, elsewhere), atol=1e-5)


def test_a_thin_plate_is_inverted_and_does_not_fold(head):
    points = head.points
    plate = ThinPlate.fit(points, bent(points), np.ones(len(points)), smoothing=0.0)
    at = points + 5
    np.testing.assert_allclose(plate(plate.inverse(at)), at, atol=1e-3)
    assert (plate.volume_change(at) > 0.5).all()


def test_left_out_points_of_a_thin_plate_are_really_left_out(head):
    rng = np.random.default_rng(1)
    target = bent(head.points) + rng.normal(0, 0.5, head.points.shape)
    sigma = np.ones(len(target))
    plate = ThinPlate.fit(head.points, target, sigma, smoothing=1.0)
    rows = np.arange(len(target)) != 17
    without = ThinPlate.fit(head.points[rows], target[rows], sigma[rows], smoothing=1.0)
    away = np.linalg.norm(without(head.points[17]) - target[17])
    assert plate.left_out_mm[17] == pytest.approx(away, abs=1e-6)


def test_target_errors_of_a_thin_plate_are_those_of_simulated_heads(head):
    rng = np.random.default_rng(8)
    sigma, targets = rng.uniform(0.5, 1.5, len(head)), head.points[::9] + 6
    plate = ThinPlate.fit(head.points, bent(head.points), sigma, smoothing=3.0)
    off = []
    for _ in range(60):
        moved = plate.target + sigma[:, None] * rng.normal(size=plate.target.shape)
        off.append(ThinPlate.fit(plate.source, moved, sigma, 3.0)(targets) - plate(targets))
    really = np.sqrt((np.array(off) ** 2).sum(axis=2).mean(axis=0))
    said = np.sqrt(3 * plate.influence(targets) ** 2 @ sigma**2)
    np.testing.assert_allclose(said, really, rtol=0.3)


def test_a_thin_plate_leaves_out_a_wrong_point(head):
    rng = np.random.default_rng(2)
    target = bent(head.points) + rng.normal(0, 0.5, head.points.shape)
    target[[4, 60]] += [25, -20, 10]
    plate = ThinPlate.fit(head.points, target, np.ones(len(target)))
    assert np.flatnonzero(~plate.used).tolist() == [4, 60]


# Errors -------------------------------------------------------------------------------------------


def test_target_error_is_that_of_fitzpatrick():
    """Equal errors and weights: FLE^2 / N (1 + 1/3 sum of d_k^2 / f_k^2)."""
    rng = np.random.default_rng(5)
    points, targets = cloud(rng, 12), cloud(rng, 5)
    sigma = 0.8
    expected = []
    local = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(local)
    for target in targets - points.mean(axis=0):
        share = 0.0
        for axis in axes:
            d2 = (target @ target) - (target @ axis) ** 2
            f2 = ((local**2).sum(axis=1) - (local @ axis) ** 2).mean()
            share += d2 / f2
        expected.append(np.sqrt(3 * sigma**2 / 12 * (1 + share / 3)))
    found = target_error("rigid", points, np.ones(12), sigma**2 * np.eye(36), targets)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", sorted(FREEDOMS))
def test_estimated_target_errors_are_those_of_simulated_heads(head, calibrated, kind):
    rng = np.random.default_rng(7)
    root = np.linalg.cholesky(expected_errors(head, calibrated).covariance)
    squares, estimates = [], []

    def noisy_head():
        return head.points + (root @ rng.normal(size=len(root))).reshape(-1, 3)

    for _ in range(25):
        affine = motion(rng, kind)
        first, noisy = as_found(head.protocol, noisy_head()), noisy_head()
        found = register(
            first, as_found(head.protocol, apply_affine(affine, noisy)), kind, calibrated,
            calibrated,
        )  # fmt: skip
        size = np.cbrt(np.linalg.det(affine[:3, :3]))
        off = found.carried(head.points) - apply_affine(affine, head.points)
        squares.append(((off / size) ** 2).sum(axis=1))
        estimates.append((found.target_errors / size) ** 2)
    for group in head.protocol.groups:
        rows = slice(group.first - 1, group.last)
        really = np.sqrt(np.mean(np.array(squares)[:, rows]))
        said = np.sqrt(np.mean(np.array(estimates)[:, rows]))
        assert said == pytest.approx(really, rel=0.35), group.name


def test_expected_errors_of_a_model_are_those_of_its_held_out_scans(head, calibrated):
    measured = json.loads(
        (resources.model_folder("brain88") / "model.json").read_text(encoding="utf-8")
    )["held_out"]["real_scans"]["errors_mm"]
    for group in head.protocol.groups:
        if group.name in measured:
            rows = slice(group.first - 1, group.last)
            mean = 2 * np.sqrt(2 / np.pi) * np.sqrt((calibrated.sigma[rows] ** 2).mean())
            assert mean == pytest.approx(measured[group.name]["mean"], rel=1e-6)
    assert np.linalg.eigvalsh(expected_errors(head, calibrated).covariance).min() > 0
    unsure = as_found(head.protocol, head.points)
    unsure.confidence[3] = 0.3
    placed = as_found(head.protocol, head.points)
    placed.status[3] = "edited"
    usual, doubted, by_hand = (
        expected_errors(s, calibrated).sigma[3] for s in (head, unsure, placed)
    )
    assert doubted > 1.5 * usual
    assert by_hand == 0.5 < usual


def test_repeatability_is_read_from_a_retest(tmp_path, head):
    table = tmp_path / "retest_landmarks.csv"
    table.write_text("image,landmark,median\na,CC_G,0.6\nb,CC_G,0.8\na,CC_S,0.2\n")
    sigma = read_repeatability(table, head.protocol)
    row = head.protocol.by_label("CC_G").index - 1
    assert sigma[row] == pytest.approx(np.sqrt((0.36 + 0.64) / 2) / 1.5382 / np.sqrt(2), rel=1e-4)
    assert sigma[0] == sigma.max() == sigma[row]
    wrong_tables = (
        ("a,b\n1,2\n", "no columns"),
        ("landmark,median\nX,1\n", "lacks"),
        ("landmark,median\nCC_G,-0.5\n", "within -0.5 mm, which no head is"),
        ("landmark,median\nCC_G,1e200\n", "within 1e200 mm, which no head is"),
    )
    for text, words in wrong_tables:
        table.write_text(text)
        with pytest.raises(UserError, match=words):
            read_repeatability(table, head.protocol)


# Heads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_head_is_brought_back(head, calibrated, kind):
    affine = motion(np.random.default_rng(0))
    found = register(head.moved(affine), head, kind, calibrated, calibrated)
    at = head.points[::7] + 3
    np.testing.assert_allclose(found.carried(apply_affine(affine, at)), at, atol=2e-3)
    np.testing.assert_allclose(found.back(at), apply_affine(affine, at), atol=2e-3)
    assert fold_free(found)
    assert wrong(found) == []
    turn = np.degrees(Rotation.from_matrix(affine[:3, :3]).magnitude())
    assert found.turn_degrees == pytest.approx(turn, abs=0.01)


def test_missing_landmarks_are_carried_to_nowhere(head, calibrated):
    points = head.points.copy()
    points[[0, 44]] = np.nan
    found = register(as_found(head.protocol, points), head, "rigid", calibrated, calibrated)
    assert np.flatnonzero(np.isnan(found.carried(points)).any(axis=1)).tolist() == [0, 44]
    assert not found.used[[0, 44]].any()
    assert np.isfinite(found.target_errors).all()
    assert np.isnan(found.left_out_mm[[0, 44]]).all()


def test_heads_that_do_not_fit_are_refused_in_a_sentence(head, calibrated, tiny_protocol):
    few = np.full_like(head.points, np.nan)
    few[:3] = head.points[:3]
    with pytest.raises(UserError, match="3 landmarks in common, and rigid registration needs 4"):
        register(as_found(head.protocol, few), head, "rigid")
    other = LandmarkSet.from_points(tiny_protocol, np.eye(5, 3) * 30)
    for one, two in ((other, head), (head, other)):
        with pytest.raises(UserError, match="same protocol"):
            register(one, two, "rigid", calibrated, calibrated)
    mirrored = as_found(head.protocol, head.points * [-1, 1, 1])
    with pytest.raises(UserError, match="left and right are exchanged"):
        register(mirrored, head, "rigid")
    named = as_found(head.protocol, head.points[head.protocol.mirror_permutation()])
    with pytest.raises(UserError, match="left and right are exchanged"):
        register(named, head, "affine")
    flat = as_found(head.protocol, head.points * [1, 1, 0])
    with pytest.raises(UserError, match="one plane"):
        register(flat, flat, "affine")


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FREEDOMS))
def test_itk_maps_lps_points_of_the_fixed_head_as_we_do(tmp_path, kind):
    rng = np.random.default_rng(4)
    affine = motion(rng, kind)
    write_linear(tmp_path / "t.tfm", affine)
    transform = sitk.ReadTransform(str(tmp_path / "t.tfm"))
    moving = cloud(rng, 5)
    fixed = apply_affine(affine, moving)
    for there, here in zip(fixed, moving, strict=True):
        found = transform.TransformPoint(tuple(ras_to_lps(there)))
        np.testing.assert_allclose(found, ras_to_lps(here), atol=1e-9)
    np.testing.assert_allclose(read_linear(tmp_path / "t.tfm"), affine, atol=1e-9)


def test_no_linear_transform_is_read_from_anything_else(tmp_path):
    (tmp_path / "a.tfm").write_text("hello")
    for name in ("a.tfm", "missing.tfm"):
        with pytest.raises(UserError, match="transform of ITK"):
            read_linear(tmp_path / name)


def test_a_displacement_field_maps_as_the_spline(tmp_path, head):
    plate = ThinPlate.fit(head.points, bent(head.points), np.ones(len(head)), smoothing=0.0)
    affine = np.diag([6.0, 5.0, -5.5, 1.0])
    affine[:3, 3] = -70, -90, 80
    affine[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix() @ affine[:3, :3]
    grid = Grid((24, 30, 28), affine)
    write_field(tmp_path / "field.nii.gz", grid, plate)
    image = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    assert image.GetNumberOfComponentsPerPixel() == 3
    transform = sitk.DisplacementFieldTransform(image)
    for ijk in ([0, 0, 0], [10, 11, 12], [23, 29, 27], [3, 20, 7]):
        at = grid.ijk_to_ras(ijk)
        found = transform.TransformPoint(tuple(ras_to_lps(at)))
        np.testing.assert_allclose(found, ras_to_lps(plate(at)), atol=1e-3)


def test_an_image_is_resampled_as_simple_itk_does_with_the_file(tmp_path, blob_head):
    affine = motion(np.random.default_rng(9))
    grid = Grid((60, 70, 66), np.diag([3.0, 2.8, 3.1, 1.0])).moved(
        [[1, 0, 0, -90], [0, 1, 0, -98], [0, 0, 1, -94], [0, 0, 0, 1]]
    )
    moved = blob_head.grid.moved(np.linalg.inv(affine))
    write_image(tmp_path / "moving.nii.gz", blob_head.data, moved)
    write_image(tmp_path / "fixed.nii.gz", np.zeros(grid.shape, np.float32), grid)
    write_linear(tmp_path / "t.tfm", affine)
    theirs = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "moving.nii.gz")),
        sitk.ReadImage(str(tmp_path / "fixed.nii.gz")),
        sitk.ReadTransform(str(tmp_path / "t.tfm")),
    )
    moving = read_image(tmp_path / "moving.nii.gz")
    back = np.linalg.inv(affine)
    ours = warped_onto(moving, lambda points: apply_affine(back, points), grid)
    at = apply_affine(back, grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1)))
    inside = moving.grid.contains(at, margin=0)  # ITK goes on for half a voxel
    assert inside.mean() > 0.2
    np.testing.assert_allclose(ours[inside], sitk.GetArrayFromImage(theirs).T[inside], atol=0.05)
    smoothed = moved_onto(moving, affine, grid)
    assert np.corrcoef(smoothed.ravel(), ours.ravel())[0, 1] > 0.999


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, head):
    """Landmarks of one head in two positions, one of them wrong in one place."""
    affine = motion(np.random.default_rng(1))
    # A head that lies on its back as usual: files that are turned round are another matter.
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -5, 15], degrees=True).as_matrix()
    points = head.points.copy()
    points[30] += [0, 15, 20]
    write_landmarks(tmp_path / "fixed.mrk.json", head)
    write_landmarks(tmp_path / "moving.csv", as_found(head.protocol, points).moved(affine))
    return tmp_path, affine


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_writes_transform_tables_and_landmarks(files, head, kind, capsys):
    folder, affine = files
    out = folder / "out"
    arguments = ["register", str(folder / "moving.csv"), str(folder / "fixed.mrk.json")]
    assert main([*arguments, "-o", str(out), "--kind", kind]) == 0
    printed = capsys.readouterr().out
    label = head.protocol.labels[30]
    assert f"left out as wrong: {label}" in printed
    moved = read_landmarks(out / "moved.mrk.json", head.protocol)
    away = np.linalg.norm(moved.points - head.points, axis=1)
    assert np.delete(away, 30).max() < 0.05
    about = json.loads((out / "registration.json").read_text(encoding="utf-8"))
    assert (about["kind"], about["left_out_as_wrong"]) == (kind, [label])
    assert about["expected_errors_from"]["moving"] == "calibrated"
    assert set(about["regions_mm"]) == {g.name for g in head.protocol.groups} | {"All"}
    rows = (out / "landmarks.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(head)
    assert rows[31].startswith(label)
    assert rows[31].endswith(",no")
    if kind == "thin-plate":
        assert not (out / "transform.tfm").exists()
        field = sitk.ReadImage(str(out / "displacement.nii.gz"), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(field)
        there = ras_to_lps(head.points[50])
        found = ras_to_lps(transform.TransformPoint(tuple(there)))
        np.testing.assert_allclose(found, apply_affine(affine, head.points[50]), atol=0.05)
    else:
        np.testing.assert_allclose(
            read_linear(out / "transform.tfm"), np.linalg.inv(affine), atol=0.02
        )
    assert main([*arguments, "-o", str(out), "--kind", kind]) == 2
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--resample"], "needs two images"),
        (["--smoothing", "1"], "thin-plate only"),
        (["--kind", "thin-plate", "--smoothing", "-1"], "a number from 0"),
        (["--kind", "thin-plate", "--smoothing", "inf"], "a number from 0"),
        (["--protocol", "afids32"], "does not know"),
    ],
)
def test_options_that_do_not_fit_are_refused(files, more, words, capsys):
    folder, _ = files
    arguments = ["register", str(folder / "moving.csv"), str(folder / "fixed.mrk.json")]
    assert main([*arguments, "-o", str(folder / "out"), *more]) == 2
    assert words in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_map_that_folds_is_refused(tmp_path, head, capsys):
    for name, mm in (("a.csv", 9.0), ("b.csv", 0.0)):
        points = head.points + np.random.default_rng(3).normal(0, mm, head.points.shape)
        write_landmarks(tmp_path / name, as_found(head.protocol, points))
    arguments = ["register", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--kind"]
    folded = [*arguments, "thin-plate", "--smoothing", "0", "-o", str(tmp_path / "out")]
    assert main(folded) == 2
    assert "the map folds" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
    # Where every landmark has a place all the same, it is said.
    points = head.points + np.random.default_rng(1).normal(0, 9, head.points.shape)
    write_landmarks(tmp_path / "a.csv", as_found(head.protocol, points))
    assert main(folded) == 0
    assert "note: the map folds somewhere" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["register", "follow"])
def test_the_protocol_of_files_is_not_that_of_images(tmp_path, command, capsys):
    """It is said before anything is detected."""
    afids = load_protocol("afids32")
    points = np.random.default_rng(0).normal(0, 30, (32, 3))
    write_landmarks(tmp_path / "a.csv", LandmarkSet.from_points(afids, points, "truth"))
    arguments = [command, str(tmp_path / "a.csv"), "sample:colin27", "--protocol", "afids32"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert "--protocol is of landmark files" in capsys.readouterr().err


def test_a_file_in_the_wrong_system_is_refused(files, head, capsys):
    folder, _ = files
    turned = as_found(head.protocol, ras_to_lps(head.points))
    write_landmarks(folder / "turned.csv", turned)
    arguments = ["register", str(folder / "turned.csv"), str(folder / "fixed.mrk.json")]
    assert main([*arguments, "-o", str(folder / "out")]) == 2
    assert "turned.csv: all left landmarks are on the patient's right" in capsys.readouterr().err
