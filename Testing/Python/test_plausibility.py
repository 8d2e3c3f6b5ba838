"""What is a head and what is not: the score, the search for a head that lies wrong, the refusal."""

from __future__ import annotations

import csv
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bids_tree import write_dataset
from scipy.spatial.transform import Rotation
from test_detection import BALLS, BallFinder, ball_protocol, head_grid, phantom

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.cohort.derivatives import Derivatives
from BrainLandmarksLib.detection import Detector, Quality
from BrainLandmarksLib.detection.detector import (
    TURNED_NOTE,
    _Located,
    _turned_guess,
    choose_quality,
)
from BrainLandmarksLib.detection.plausibility import (
    LIMIT,
    Judge,
    plausibility_of,
    usual_shape,
    weakened,
)
from BrainLandmarksLib.errors import ImplausibleError
from BrainLandmarksLib.geometry.affine import axis_rotations
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    load_model,
    load_shape,
    save_model,
)
from BrainLandmarksLib.protocol import landmarks, load_protocol
from BrainLandmarksLib.review import read_review, write_review
from BrainLandmarksLib.review.edits import is_implausible
from BrainLandmarksLib.worker.jobs import Jobs
from BrainLandmarksLib.worker.messages import REQUESTS, MessageError, decode, encode
from BrainLandmarksLib.worker.server import Server

__all__ = ["ball_protocol"]  # a fixture

FAST = Quality(1)
NO_HEADS = ("ball", "noise", "blobs")


# The score ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shape() -> ShapeModel:
    found = load_shape("brain88", 88)
    assert found is not None
    return found


def heads(shape: ShapeModel, count: int, seed: int = 4) -> np.ndarray:
    """(count, K, 3) heads as the shape model has them, with a network's error of 1 mm."""
    rng = np.random.default_rng(seed)
    flat = rng.normal(size=(count, len(shape.modes))) @ shape.modes
    spread = np.hypot(shape.residual_mm, 1.0)
    return shape.mean + (flat + rng.normal(0, spread, flat.shape)).reshape(count, -1, 3)


@pytest.fixture(params=["its own", "none"])
def judge(request, shape) -> Judge:
    return Judge(shape if request.param == "its own" else None, shape.mean)


def test_heads_are_plausible_in_any_pose_and_size(judge, shape):
    turn = axis_rotations()[17]
    for points in heads(shape, 8):
        assert judge(points) > 0.85
        assert judge(points @ turn.T + [300, -70, 20]) == pytest.approx(judge(points), abs=1e-6)
        assert judge(1.12 * points) > 0.75
        assert judge(0.88 * points) > 0.75


def test_a_few_points_that_are_far_off_do_not_matter(judge, shape):
    rng = np.random.default_rng(5)
    points = heads(shape, 1)[0]
    points[rng.permutation(88)[:4]] += rng.normal(0, 30, (4, 3))
    assert judge(points) > landmarks.PLAUSIBLE


@pytest.mark.parametrize("size", [0.02, 0.5, 2.0])
def test_a_head_of_no_head_s_size_is_implausible(judge, shape, size):
    """Such points fit one another well: all in about one place, or voxels of a wrong size."""
    points = size * heads(shape, 1)[0] + np.random.default_rng(9).normal(0, 0.5, (88, 3))
    assert judge(points) < 0.2


@pytest.mark.parametrize("kind", ["cloud", "one place", "one line", "ball", "mirrored", "half"])
def test_what_is_no_head_is_implausible(judge, shape, kind):
    rng = np.random.default_rng(6)
    points = heads(shape, 1)[0]
    if kind == "cloud":
        points = rng.uniform(-100, 100, points.shape)
    elif kind == "one place":
        points = np.zeros_like(points)
    elif kind == "one line":
        points = points * [0, 0, 1]
    elif kind == "ball":  # every point about half way to where it belongs
        points = 0.5 * points + rng.normal(0, 15, points.shape)
    elif kind == "mirrored":  # the points, but not their names
        points = points * [-1, 1, 1]
    else:
        points[44:] = points[44:] * [1, -1, -1]
    assert judge(points) < 0.05


def test_a_shape_model_of_heads_that_are_all_alike_refuses_no_other(shape):
    few = heads(shape, 1) + np.random.default_rng(7).normal(0, 0.2, (4, 88, 3))
    mirror = load_protocol("brain88").mirror_permutation()
    narrow = ShapeModel.fit(few, mirror, shape.mean)
    for points in heads(shape, 4, seed=8):
        assert Judge(narrow, shape.mean)(points) > 0.8
        assert narrow.deviation(points, 4.0).mean() > LIMIT


def test_three_points_say_nothing():
    assert Judge(None, np.eye(3) * 50)(np.random.default_rng(1).normal(0, 90, (3, 3))) == 1.0


def test_confidence_goes_to_0_with_the_plausibility():
    confidence = np.array([0.49, 0.9, np.nan])
    assert weakened(confidence, landmarks.PLAUSIBLE) is confidence
    assert np.nanmax(weakened(confidence, plausibility_of(2 * LIMIT))) < 0.01
    assert plausibility_of(LIMIT) == landmarks.PLAUSIBLE
    assert plausibility_of(np.inf) == 0.0
    steps = [plausibility_of(misfit) for misfit in np.linspace(0, 5, 40)]
    assert steps == sorted(steps, reverse=True)


def test_the_usual_shape_grows_with_what_is_marked():
    mean = np.random.default_rng(2).normal(0, 40, (20, 3))
    assert usual_shape(mean).residual_mm == pytest.approx(0.16 * 40 * np.sqrt(3), rel=0.2)
    assert usual_shape(mean / 100).residual_mm == 2.0


# The other orientations ---------------------------------------------------------------------------


def test_there_are_24_rotations_and_the_first_is_none():
    rotations = axis_rotations()
    assert len({tuple(rotation.ravel()) for rotation in rotations}) == 24
    assert np.array_equal(rotations[0], np.eye(3))
    for rotation in rotations:
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)


class UprightBallFinder(BallFinder):
    """Sees a ball only where it is in an upright head: on its own side, in front, at the top ..."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        misfit = torch.nn.functional.avg_pool3d((x - self.levels).abs(), 3, 1, 1)
        here = torch.stack(
            torch.meshgrid(*[torch.linspace(-1, 1, n) for n in x.shape[2:]], indexing="ij")
        )
        for row, ball in enumerate(BALLS):
            axis = int(np.abs(ball).argmax())
            misfit[:, row] += 0.5 * (here[axis] * np.sign(ball[axis]) < 0.05)
        return -self.inverse_temperature * misfit


@pytest.fixture(scope="module")
def finder(ball_protocol) -> Detector:
    spec = ModelSpec("balls", CropSpec(40, 208.0), CropSpec(36, 256.0), BALLS - [0, 0, 5])
    networks = (UprightBallFinder(300.0), UprightBallFinder(150.0))
    return Detector(Model(ball_protocol, *networks, spec), "cpu")


@pytest.fixture
def runs(finder, monkeypatch) -> list[str]:
    """Which networks were run."""
    names: list[str] = []
    real = finder._run

    def run(name, *arguments, **options):
        names.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(finder, "_run", run)
    return names


def turned(volume: Volume, rotation: np.ndarray) -> Volume:
    """The same voxels under a header that turns the head in the world."""
    affine = np.eye(4)
    affine[:3, :3] = rotation
    return Volume(volume.data, Grid(volume.grid.shape, affine @ volume.grid.affine))


@pytest.mark.parametrize(
    "number",
    [n if n in (0, 9, 17, 23) else pytest.param(n, marks=pytest.mark.slow) for n in range(24)],
)
def test_a_head_that_lies_wrong_is_found(finder, runs, number):
    head = phantom(head_grid((4, 4, 4)), radius=22.0)
    rotation = axis_rotations()[number]
    stages: list[tuple[str, float]] = []
    found = finder.detect(
        turned(head, rotation), quality=FAST, progress=lambda *stage: stages.append(stage)
    )
    assert np.linalg.norm(found.landmarks.points - BALLS @ rotation.T, axis=1).max() < 1.5
    np.testing.assert_allclose(found.pose[:3, :3], rotation, atol=0.15)
    assert found.plausible
    assert [f for _, f in stages] == sorted(f for _, f in stages)
    # A head that is plausible costs no look more; one on its side may be looked at from there.
    looks = runs.count("locator")
    assert looks in ((2, 2 + 2, 2 + 23 + 2) if number else (2,))
    assert looks > 2 or number != 23
    assert ["header" in note for note in found.notes] == [True] * (looks > 2)
    assert runs == [*["locator"] * looks, "fine"]


def test_the_note_of_a_turned_head_is_not_of_the_next_one(finder):
    head = phantom(head_grid((4, 4, 4)), radius=22.0)
    on_its_side = turned(head, axis_rotations()[23])
    # A detection that was stopped on the way leaves no note behind either.
    with pytest.raises(InterruptedError):
        finder.detect(on_its_side, quality=FAST, progress=_stop_at_the_end)
    images = (head, on_its_side, head)
    notes = [finder.detect(image, quality=FAST).notes for image in images]
    assert notes == [(), (TURNED_NOTE,), ()]


def _stop_at_the_end(_stage, fraction):
    if fraction == 1.0:
        raise InterruptedError


@pytest.mark.parametrize("number", [2, 9, 17])
def test_a_head_on_its_side_is_located_from_that_side(finder, monkeypatch, number):
    """A locator may know such a head at once, but then its pose is askew."""
    rotation = axis_rotations()[number]
    askew = np.eye(4)
    askew[:3, :3] = Rotation.from_euler("xyz", [16, -9, 12], degrees=True).as_matrix()
    located, begun = finder._located, []

    def known_at_once(work, pose):
        begun.append(pose[:3, :3])
        if len(begun) > 1:
            return located(work, pose)
        there = replace(_upright_guess(work, rotation), plausibility=0.9)
        return replace(there, pose=there.pose @ askew)

    monkeypatch.setattr(finder, "_located", known_at_once)
    head = phantom(head_grid((4, 4, 4)), radius=22.0)
    found = finder.detect(turned(head, rotation), quality=FAST)
    np.testing.assert_array_equal(begun, [np.eye(3), rotation])
    assert "header" in found.notes[0]
    monkeypatch.undo()
    upright = finder.detect(head, quality=FAST).landmarks.points
    np.testing.assert_allclose(found.landmarks.points, upright @ rotation.T, atol=0.01)


def _upright_guess(work, rotation):
    pose = _turned_guess(work.head, rotation)
    return _Located(BALLS @ rotation.T, pose, 1.0)


def test_an_orientation_that_the_locator_is_unsure_of_is_tried(finder, monkeypatch):
    """It prefers a wrong one, in which the fine network sees no head."""
    located = finder._located
    wrong = np.eye(4)
    wrong[:3, :3] = axis_rotations()[9]

    def uncertain(work, pose):
        return replace(located(work, pose), plausibility=0.3)

    def wrongly_sure(work, first):
        work.searched = True
        return replace(first, pose=first.pose @ wrong, plausibility=0.9)

    monkeypatch.setattr(finder, "_located", uncertain)
    monkeypatch.setattr(finder, "_from_all_sides", wrongly_sure)
    found = finder.detect(phantom(head_grid((4, 4, 4)), radius=22.0), quality=FAST)
    assert np.linalg.norm(found.landmarks.points - BALLS, axis=1).max() < 1.5
    assert found.plausible
    assert not found.notes


def test_what_is_no_head_is_refused_unless_it_is_forced(finder, runs):
    noise = np.random.default_rng(0).random((50, 50, 50)).astype(np.float32)
    image = Volume(noise, Grid(noise.shape, np.diag([4, 4, 4, 1.0])))
    with pytest.raises(ImplausibleError, match=r"no head was recognised .*; give a T1") as error:
        finder.detect(image, quality=FAST)
    assert error.value.plausibility < 0.1
    assert runs.count("locator") >= 2 + 23
    forced = finder.detect(image, quality=FAST, force=True)
    assert not forced.plausible
    assert forced.plausibility == pytest.approx(error.value.plausibility)
    assert np.nanmax(forced.landmarks.confidence) < 0.1
    assert "implausible" in forced.notes[0]
    plain = finder.detect(phantom(head_grid((4, 4, 4)), radius=22.0), quality=FAST)
    assert plain.plausible
    assert not plain.notes


def test_tests_can_let_everything_be_a_head(finder, monkeypatch):
    noise = np.random.default_rng(0).random((50, 50, 50)).astype(np.float32)
    monkeypatch.setattr(landmarks, "PLAUSIBLE", 0.0)
    found = finder.detect(Volume(noise, Grid(noise.shape, np.diag([4, 4, 4, 1.0]))), quality=FAST)
    assert not found.notes


# Every path ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lost_model(tmp_path_factory, tiny_model) -> Path:
    """Its heads are large, and it finds all points in one place."""
    tiny = load_model(tiny_model)
    spec = replace(tiny.spec, mean_shape=8 * BALLS / 10)
    return save_model(replace(tiny, spec=spec), tmp_path_factory.mktemp("models") / "lost")


def test_the_command_refuses_and_writes_with_force(
    tmp_path, head_file, lost_model, tiny_protocol, capsys
):
    command = ["detect", str(head_file), "-o", str(tmp_path / "out"), "--model", str(lost_model)]
    command += ["--format", "csv,fcsv,mrk.json"]
    assert main(command) == 2
    assert "no head was recognised" in (said := capsys.readouterr().err)
    assert "--force" in said
    assert "head:" in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert main([*command, "--force"]) == 0
    printed = capsys.readouterr()
    assert "implausible" in printed.err
    assert "plausibility 0.0" in printed.out
    base = tmp_path / "out" / "head_landmarks"
    content = json.loads(Path(f"{base}.mrk.json").read_text(encoding="utf-8"))
    assert content["plausibility"] < landmarks.PLAUSIBLE
    assert [m["name"] for m in content["markups"]] == ["Front (implausible)", "Back (implausible)"]
    with open(f"{base}.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {float(row["plausibility"]) < 0.1 for row in rows} == {True}
    assert {float(row["confidence"]) < 0.1 for row in rows} == {True}
    assert "# plausibility = 0.0" in Path(f"{base}.fcsv").read_text(encoding="utf-8")
    for suffix in ("csv", "fcsv", "mrk.json"):
        assert not read_landmarks(f"{base}.{suffix}", tiny_protocol).missing.any()


def test_maps_of_what_is_no_head_are_made_with_force(tmp_path, head_file, lost_model, capsys):
    output = tmp_path / "maps"
    command = ["explain", str(head_file), "-o", str(output), "--model", str(lost_model)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "no head was recognised" in said
    assert "--force" in said
    assert not output.exists() or not list(output.iterdir())
    assert main([*command, "--force"]) == 0
    assert "implausible" in capsys.readouterr().err
    record = json.loads((output / "head_gradcam.json").read_text(encoding="utf-8"))
    assert record["plausibility"] < landmarks.PLAUSIBLE


def test_the_mark_stays_through_a_review(tmp_path, some_landmarks, brain88):
    path = tmp_path / "head.mrk.json"
    write_landmarks(path, some_landmarks, plausibility=0.004)
    review, source = read_review(path, brain88)
    assert is_implausible(source)
    write_review(path, review, source)
    names = [m["name"] for m in json.loads(path.read_text(encoding="utf-8"))["markups"]]
    assert all(name.endswith(" (implausible)") for name in names)
    assert is_implausible(read_review(path, brain88)[1])
    write_landmarks(path, some_landmarks, plausibility=0.98)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["plausibility"] == 0.98
    assert "implausible" not in text


def test_a_cohort_has_a_row_with_the_reason(tmp_path, blob_head, lost_model):
    data = write_dataset(tmp_path / "data", blob_head, ["sub-01_T1w.nii.gz"])
    output = tmp_path / "out"
    command = ["detect", "--bids", str(data), "-o", str(output), "--model", str(lost_model)]

    def row() -> dict[str, str]:
        with (output / "cohort.tsv").open(encoding="utf-8", newline="") as file:
            return next(csv.DictReader(file, delimiter="\t"))

    assert main(command) == 2
    assert row()["status"] == "failed"
    assert "no head was recognised" in row()["warnings"]
    assert main([*command, "--force"]) == 0
    assert row()["status"] == "check"
    assert "implausible" in row()["warnings"]
    assert float(row()["plausibility"]) < 0.1
    record = Derivatives.open(output).records()[0]
    assert record.about is not None
    assert record.about["Plausibility"] < landmarks.PLAUSIBLE
    text = next(output.rglob("*.mrk.json")).read_text(encoding="utf-8")
    assert json.loads(text)["plausibility"] < landmarks.PLAUSIBLE


def test_a_pool_of_processes_takes_the_error_home() -> None:
    error = pickle.loads(pickle.dumps(ImplausibleError("no head was recognised.", 0.1)))
    assert (type(error), str(error)) == (ImplausibleError, "no head was recognised.")
    assert error.plausibility == 0.1


def request(head: Path, model: Path, output: Path, **more: object) -> dict[str, object]:
    return {
        "v": 1, "id": "a", "type": "detect", "image": str(head), "output": str(output),
        "model": str(model), "device": "cpu", "quality": "fast", **more,
    }  # fmt: skip


def test_the_worker_says_implausible_and_can_be_forced(tmp_path, head_file, lost_model):
    output = tmp_path / "out.mrk.json"
    replies = io.BytesIO()
    server = Server(io.BytesIO(), replies, Jobs())
    server._do(request(head_file, lost_model, output))
    last = json.loads(replies.getvalue().splitlines()[-1])
    assert (last["type"], last["code"]) == ("error", "implausible")
    assert "no head" in last["message"]
    assert not output.exists()
    server._do(decode(encode(request(head_file, lost_model, output, force=True)), REQUESTS))
    last = json.loads(replies.getvalue().splitlines()[-1])
    assert last["type"] == "result"
    assert last["plausibility"] < landmarks.PLAUSIBLE
    assert json.loads(output.read_text(encoding="utf-8"))["plausibility"] < landmarks.PLAUSIBLE


def test_force_is_an_optional_yes_or_no(head_file, tiny_model, tmp_path):
    for force in (True, False):
        line = encode(request(head_file, tiny_model, tmp_path, force=force))
        assert decode(line, REQUESTS)["force"] is force
    with pytest.raises(MessageError, match="force"):
        decode(encode(request(head_file, tiny_model, tmp_path, force="yes")), REQUESTS)


# The shipped model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Detector:
    return Detector("brain88", "cpu")


@pytest.fixture(scope="module")
def sample() -> Volume:
    return read_image(resources.sample_head())


def no_head(kind: str) -> Volume:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    grid = head_grid((3, 3, 3), extent=(210, 240, 240))
    if kind == "ball":
        ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
        data = 100.0 * (np.linalg.norm(ras, axis=-1) < 85)
    elif kind == "noise":
        data = rng.random(grid.shape)
    else:
        data = gaussian_filter(rng.normal(size=grid.shape), 5)
        data -= data.min()
    return Volume(data.astype(np.float32), grid)


def test_the_shipped_locator_knows_where_to_look_further(shipped, sample):
    """The slow tests below show what comes of it."""

    def plausibility(volume: Volume) -> float:
        work = shipped._begun(volume, FAST, lambda *_: None)
        return shipped._located(work, work.pose).plausibility

    assert plausibility(sample) > 0.9
    assert plausibility(turned(sample, axis_rotations()[7])) < landmarks.PLAUSIBLE
    assert plausibility(no_head("ball")) < landmarks.PLAUSIBLE


@pytest.fixture(scope="module")
def upright(shipped, sample) -> np.ndarray:
    found = shipped.detect(sample, quality="fast")
    assert found.plausibility > 0.99
    return found.landmarks.points


@pytest.fixture(scope="module")
def usual(shipped, sample) -> np.ndarray:
    return shipped.detect(sample).landmarks.points


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 24))
def test_the_sample_head_is_found_however_its_header_turns_it(shipped, sample, upright, number):
    rotation = axis_rotations()[number]
    found = shipped.detect(turned(sample, rotation), quality="fast").landmarks.points
    assert np.linalg.norm(found - upright @ rotation.T, axis=1).max() < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 23])
def test_and_in_the_usual_quality(shipped, sample, usual, number):
    """One that the locator knows at once, and one that it must look for."""
    rotation = axis_rotations()[number]
    found = shipped.detect(turned(sample, rotation))
    apart = np.linalg.norm(found.landmarks.points - usual @ rotation.T, axis=1)
    assert np.isfinite(apart).all()
    assert apart.max() < 1.0
    assert any("header" in note for note in found.notes)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 24))
def test_every_orientation_ends_in_the_same_pose(shipped, sample, number):
    """All that follows depends on the pose and the voxels alone, in every quality."""

    def pose(volume: Volume) -> np.ndarray:
        work = shipped._begun(volume, choose_quality("standard"), lambda *_: None)
        return shipped._oriented(work)[1].pose

    rotation = np.eye(4)
    rotation[:3, :3] = axis_rotations()[number]
    expected = rotation @ pose(sample)
    np.testing.assert_allclose(pose(turned(sample, rotation[:3, :3])), expected, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NO_HEADS)
def test_the_shipped_model_sees_no_head_where_there_is_none(shipped, kind):
    with pytest.raises(ImplausibleError) as error:
        shipped.detect(no_head(kind), quality="fast")
    assert error.value.plausibility < 0.05
