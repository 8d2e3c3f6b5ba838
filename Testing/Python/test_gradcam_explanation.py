"""Grad-CAM maps in the scan's space: where they lie, what the files say, what is refused."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.detection import Detection, Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.grid import cube
from BrainLandmarksLib.gradcam import explanation as explanation_module
from BrainLandmarksLib.gradcam.explanation import explain, rows_of
from BrainLandmarksLib.gradcam.figures import draw_comparison, draw_explanation
from BrainLandmarksLib.gradcam.output import normalised, write_maps
from BrainLandmarksLib.imaging.intensity import normalise
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

BALL = np.array([31.0, -22.0, 17.0])
"""Centre of the only bright thing in the test's image, RAS mm."""


def echo(signs: list[float]) -> HighRes3DNet:
    """A network whose maps are known: the image itself, or nothing where the sign is negative.

    Every kernel is zero but for one weight that passes the image on, so the layer's only feature is
    the image, and the gradient of heatmap c is a positive number times ``signs[c]``.
    """
    network = HighRes3DNet(
        out_channels=len(signs), features=1, residual_blocks=1, dilations=(1,), penultimate=1
    )
    block = network.stages[0][0]
    for conv in (network.first[0], block.conv1, block.conv2):
        conv.weight.data.zero_()
        conv.weight.data[0, 0, 1, 1, 1] = 1
    network.penultimate[0].weight.data.fill_(1)
    network.classifier.weight.data.copy_(torch.tensor(signs).reshape(-1, 1, 1, 1, 1))
    return network.eval().requires_grad_(False)


def turned(*degrees: float) -> np.ndarray:
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (n for n in range(3) if n != axis)
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        )  # fmt: skip
        rotation = rotation @ turn
    return rotation


@pytest.fixture(scope="module")
def ball_head() -> Volume:
    """A smooth ball in darkness, stored in an oblique grid of its own."""
    grid = cube([5, -3, 8], 180, 60, turned(10, -20, 5))
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    data = np.exp(-(((ras - BALL) / 14) ** 2).sum(-1))
    return Volume(data.astype(np.float32), grid)


@pytest.fixture(scope="module")
def detector(tiny_protocol) -> Detector:
    networks = (echo([1, 2, -1, 0.5, -3]), echo([1.0] * 5))
    spec = ModelSpec("echo", CropSpec(40, 200.0), CropSpec(16, 256.0), np.eye(5, 3) * 50)
    return Detector(Model(tiny_protocol, *networks, spec), "cpu")


def seen(detector: Detector, head: Volume, rotation: np.ndarray) -> Detection:
    """What a detection in this pose would hold; its points are of no interest but for the last."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, (12, -9, 4)
    grid = cube(pose[:3, 3], 200.0, 40, rotation)
    points = np.array([BALL, BALL + 9, -BALL, BALL - [3, 0, 12], [np.nan] * 3])
    landmarks = LandmarkSet.from_points(detector.model.protocol, points)
    input_cube = Volume(normalise(resample(head, grid)), grid)
    return Detection(landmarks, pose, input_cube, {}, "cpu", "float32")


@pytest.fixture(scope="module")
def explained(detector, ball_head):
    return explain(detector, seen(detector, ball_head, turned(25, -15, 35)))


@pytest.mark.parametrize("degrees", [(0, 0, 0), (25, -15, 35), (-80, 40, 170)])
def test_a_known_map_lies_where_its_cause_is(tmp_path, detector, ball_head, degrees):
    """Read back with nibabel alone, the map's centre of mass is the ball's centre in the world."""
    found = explain(detector, seen(detector, ball_head, turned(*degrees)))
    assert found.seen.layer == "stages.0.0.conv2"
    paths = write_maps(tmp_path, found, [0, 3], image="head")
    for path in paths[:2]:
        image = nib.load(path)
        values = image.get_fdata()
        assert values.shape == (40, 40, 40)
        assert values.max() == 1
        for affine in (image.affine, image.get_qform(), image.get_sform()):
            ras = apply_affine(affine, np.argwhere(values > 0.05))
            weights = values[values > 0.05]
            assert np.linalg.norm(np.average(ras, axis=0, weights=weights) - BALL) < 0.5
        assert image.header.get_xyzt_units()[0] == "mm"
    expected = resample(ball_head, found.grid)
    np.testing.assert_allclose(values, expected / expected.max(), atol=1e-5)
    # Where the heatmap was read: its brightest voxel.
    assert np.linalg.norm(found.read_at[0] - BALL) < 5


def test_evidence_against_a_landmark_gives_an_empty_map(tmp_path, explained):
    assert explained.maps([2]).max() == 0
    maps, maxima = normalised(explained.maps([0, 2]))
    assert maxima[1] == 0
    assert maps[1].max() == 0
    *_, record = write_maps(tmp_path, explained, [2], image="head")
    assert json.loads(record.read_text(encoding="utf-8"))["maps"][0]["raw_maximum"] == 0


def test_the_softmax_is_read_between_voxels(detector, ball_head):
    detection = seen(detector, ball_head, turned(0, 0, 0))
    found = explain(detector, detection, target="softmax")
    inside = found.grid.ras_to_ijk(found.read_at)
    assert np.abs(inside - np.round(inside)).max() > 0.01
    np.testing.assert_allclose(
        normalised(found.maps([0]))[0], normalised(explain(detector, detection).maps([0]))[0]
    )


def test_the_record_says_what_the_files_hold(tmp_path, explained):
    for sets, names in (
        ("landmark", ["A_L", "A_R", "C_L"]),
        ("group", ["front", "back"]),
        ("4d", [None]),
    ):
        folder = tmp_path / sets
        folder.mkdir()
        written = write_maps(folder, explained, [0, 1, 3], image="head", sets=sets)
        expected = [f"head_gradcam{'_' + n if n else ''}.nii.gz" for n in names]
        assert [path.name for path in written] == [*expected, "head_gradcam.json"]
        assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in written)
        record = json.loads(written[-1].read_text(encoding="utf-8"))
        assert record["layer"] == "stages.0.0.conv2"
        assert record["target"] == "argmax"
        assert (record["model"], record["protocol"]["name"]) == ("echo", "tiny")
        assert "no measure of confidence" in record["meaning"]
        assert [entry["label"] for entry in record["maps"]] == ["A_L", "A_R", "C_L"]
        np.testing.assert_allclose(record["grid"]["ijk_to_ras"], explained.grid.affine)
        raw = explained.maps([0, 1, 3])
        for number, entry in enumerate(record["maps"]):
            assert entry["file"] in expected
            assert entry["raw_maximum"] == pytest.approx(float(raw[number].max()))
            np.testing.assert_allclose(
                entry["landmark"], explained.detection.landmarks.points[entry["index"] - 1]
            )
            image = nib.load(folder / entry["file"]).get_fdata()
            values = image[..., entry["volume"]] if sets == "4d" else image
            # A group's file is the largest of its maps; here its maps are alike.
            np.testing.assert_allclose(
                values * entry["raw_maximum"], raw[number], atol=1e-6 * raw.max()
            )


def test_a_landmark_outside_the_image_has_no_place_in_the_record(tmp_path, explained):
    *_, record = write_maps(tmp_path, explained, [4], image="head")
    assert json.loads(record.read_text(encoding="utf-8"))["maps"][0]["landmark"] is None


def test_one_map_by_label(explained):
    volume = explained.map("a_r")
    np.testing.assert_array_equal(volume.data, explained.maps([1])[0])
    assert volume.grid is explained.grid


@pytest.mark.parametrize(
    ("landmarks", "groups", "rows"),
    [
        ([], [], [0, 1, 2, 3, 4]),
        (["C_R", "a_l"], [], [0, 4]),
        (["2", "B_M", "3"], [], [1, 2]),
        (["5"], ["front"], [0, 1, 2, 4]),
        ([], ["Back", "Front"], [0, 1, 2, 3, 4]),
    ],
)
def test_choice_of_landmarks(tiny_protocol, landmarks, groups, rows):
    assert rows_of(tiny_protocol, landmarks, groups) == rows


@pytest.mark.parametrize(
    ("landmarks", "groups", "near"),
    [
        (["A_X"], [], "did you mean A_[LR]"),
        (["zzz"], [], "did you mean"),
        (["0"], [], "1 to 5"),
        (["6"], [], "1 to 5"),
        ([], ["Frnt"], "did you mean Front"),
    ],
)
def test_what_cannot_be_chosen(tiny_protocol, landmarks, groups, near):
    with pytest.raises(UserError, match=near):
        rows_of(tiny_protocol, landmarks, groups)


def test_gpu_out_of_memory_goes_on_on_the_cpu(detector, ball_head, monkeypatch):
    own = Detector(detector.model, "cpu")
    own.device = torch.device("meta")  # stands for a GPU
    real = explanation_module.observe

    def observe(network, input_cube, *args, **kwargs):
        if input_cube.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, input_cube, *args, **kwargs)

    monkeypatch.setattr(explanation_module, "observe", observe)
    found = explain(own, seen(detector, ball_head, turned(0, 0, 0)))
    assert "memory" in found.detection.notes[0]
    assert found.maps([0]).max() > 0
    assert own.model.network.classifier.weight.device.type == "cpu"


# Pictures -----------------------------------------------------------------------------------------


def glow(path) -> np.ndarray:
    """Where the colours of a map are, (n, 2) rows and columns from the top left, 0 to 1."""
    pixels = imread(path)[..., :3]
    # Inferno's bright end is yellow; grey values, texts and the test's group colours are not.
    hot = (pixels[..., 0] > 0.6) & (pixels[..., 2] < pixels[..., 0] - 0.35)
    hot &= pixels[..., 1] < pixels[..., 0] - 0.1
    found = np.argwhere(hot)
    return found[found[:, 1] < 0.8 * pixels.shape[1]] / pixels.shape[:2]


def test_the_picture_shows_the_map_below_the_landmarks(tmp_path, ball_head, explained):
    draw_explanation(ball_head, explained, [0, 1], tmp_path / "a.png", title="Ball")
    draw_explanation(ball_head, explained, [2], tmp_path / "empty.png")
    bright, dark = glow(tmp_path / "a.png"), glow(tmp_path / "empty.png")
    assert len(bright) > 100
    assert len(dark) < 0.2 * len(bright)
    assert (bright[:, 0] > 0.5).mean() > 0.9


def test_the_picture_survives_landmarks_that_are_not_there(tmp_path, ball_head, explained):
    draw_explanation(ball_head, explained, [4], tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 1000


def test_two_models_are_drawn_below_each_other(tmp_path, ball_head, explained):
    path = tmp_path / "two.png"
    draw_comparison(ball_head, [explained, explained], ["MSE", "Mixed"], [0, 1], path)
    rows = glow(path)[:, 0]
    upper, lower = rows[rows < 0.5], rows[rows > 0.5]
    assert min(len(upper), len(lower)) > 100
    assert len(upper) == pytest.approx(len(lower), rel=0.2)


# The command --------------------------------------------------------------------------------------


def run(*arguments) -> int:
    return main(["explain", *map(str, arguments)])


@pytest.mark.parametrize(("order", "flips"), [((2, 0, 1), (0,)), ((1, 0, 2), (0, 1, 2))])
def test_storage_order_does_not_matter(tmp_path, blob_head, head_file, tiny_model, order, flips):
    data, affine = blob_head.data.transpose(order), blob_head.grid.affine[:, [*order, 3]].copy()
    for axis in flips:
        affine[:3, 3] += (data.shape[axis] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
        data = np.flip(data, axis)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "head.nii.gz")
    options = ["--model", tiny_model, "--files", "4d", "--no-picture"]
    assert run(head_file, "-o", tmp_path / "a", *options) == 0
    assert run(tmp_path / "head.nii.gz", "-o", tmp_path / "b", *options) == 0
    a, b = (nib.load(tmp_path / name / "head_gradcam.nii.gz") for name in "ab")
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-3)
    assert a.shape == (16, 16, 16, 5)
    np.testing.assert_allclose(a.get_fdata(), b.get_fdata(), atol=1e-3)


def test_the_command_writes_maps_record_and_picture(tmp_path, head_file, tiny_model, capsys):
    output = tmp_path / "new" / "maps"
    options = ["--model", tiny_model, "--landmark", "a_l", "5", "--target", "softmax"]
    assert run(head_file, "-o", output, *options) == 0
    names = ["head_gradcam_A_L.nii.gz", "head_gradcam_C_R.nii.gz", "head_gradcam.json",
             "head_gradcam.png"]  # fmt: skip
    assert sorted(p.name for p in output.iterdir()) == sorted(names)
    out = capsys.readouterr().out
    assert "2 of 5 landmarks explained" in out
    assert "2 map files" in out
    assert run(head_file, "-o", output, *options) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(head_file, "-o", output, *options, "--overwrite") == 0
    record = json.loads((output / "head_gradcam.json").read_text(encoding="utf-8"))
    assert record["target"] == "softmax"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--landmark", "A_l_"], "did you mean A_L?"),
        (["--landmark", "99"], "has 1 to 5"),
        (["--group", "Bak"], "did you mean Back?"),
        (["--layer", "stages.2.0.conv3"], "did you mean stages.2.0.conv"),
    ],
)
def test_wrong_names_are_one_sentence(tmp_path, head_file, tiny_model, options, word, capsys):
    assert run(head_file, "-o", tmp_path / "x", "--model", tiny_model, *options) == 2
    error = capsys.readouterr().err
    assert word in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "x").exists()
