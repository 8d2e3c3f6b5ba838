"""From image to landmarks: the pose, the passes, and what storage and sampling must not change.

Most tests run a stand-in network that finds balls of known brightness in a phantom head, so that
every error is the geometry's. The last ones run the shipped model on the sample head.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from BrainLandmarksLib import resources
from BrainLandmarksLib.detection import (
    QUALITIES,
    Detector,
    Quality,
    fit_pose,
    head_center,
)
from BrainLandmarksLib.detection.absent import NO_TISSUE, OUTSIDE
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.network.device import choose_device
from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec
from BrainLandmarksLib.protocol import load_protocol

BALLS = np.array([[-38, 10, -15], [38, 12, -20], [2, 50, 15], [0, -52, 5], [3, -2, 48.0]])
LEVELS = (0.3, 0.42, 0.54, 0.66, 0.78)
RADIUS = 17.0


class BallFinder(nn.Module):
    """One heatmap per brightness: high where a voxel and all its neighbours have it."""

    def __init__(self, inverse_temperature: float) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature
        self.register_buffer("levels", torch.tensor(LEVELS)[None, :, None, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        misfit = torch.nn.functional.avg_pool3d((x - self.levels).abs(), 3, 1, 1)
        return -self.inverse_temperature * misfit


@pytest.fixture(scope="session")
def ball_protocol(tmp_path_factory):
    labels = ["A_L", "A_R", "B_M", "C_M", "D_M"]
    landmarks = [
        {
            "index": n + 1,
            "label": label,
            "name": f"ball {label}",
            "group": "Balls",
            "side": label[-1],
            "role": "primary",
            "rule": "The centre of the ball.",
            "mirror": {"A_L": "A_R", "A_R": "A_L"}.get(label, label),
        }
        for n, label in enumerate(labels)
    ]
    groups = [{"name": "Balls", "first": 1, "last": 5, "color": "#3674fe"}]
    path = tmp_path_factory.mktemp("protocol") / "balls.json"
    path.write_text(
        json.dumps({"name": "balls", "title": "Balls", "groups": groups, "landmarks": landmarks})
    )
    return load_protocol(path)


@pytest.fixture(scope="session")
def detector(ball_protocol):
    shape = BALLS - [0, 0, 5]
    spec = ModelSpec("balls", CropSpec(64, 208.0), CropSpec(32, 256.0), shape)
    return Detector(Model(ball_protocol, BallFinder(300.0), BallFinder(120.0), spec), "cpu")


def phantom(grid: Grid, pose: np.ndarray | None = None, radius: float = RADIUS) -> Volume:
    """A head of brightness 100 with five darker balls, partial volume at every edge."""
    to_head = np.linalg.inv(np.eye(4) if pose is None else pose) @ grid.affine
    ijk = np.moveaxis(np.indices(grid.shape), 0, -1)
    head = apply_affine(to_head, ijk)
    edge = 2.0 / grid.spacing.min()
    tissue = np.clip(0.5 + edge * 20 * (1 - np.linalg.norm(head / [78, 98, 92], axis=-1)), 0, 1)
    for center, level in zip(BALLS, LEVELS, strict=True):
        distance = np.linalg.norm(head - center, axis=-1)
        inside = np.clip(0.5 + edge * (radius - distance), 0, 1)
        tissue = tissue * (1 - inside) + level * inside
    return Volume((100 * tissue).astype(np.float32), grid)


def head_grid(spacing=(2, 2, 2), extent=(190, 230, 220)) -> Grid:
    shape = tuple(int(np.ceil(e / s)) for e, s in zip(extent, spacing, strict=True))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    return Grid(shape, affine)


def pose_of(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[[a, a, b, b], [a, b, a, b]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        pose[:3, :3] = pose[:3, :3] @ turn
    pose[:3, 3] = shift
    return pose


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=1)


class SidedBallFinder(BallFinder):
    """Finds the paired balls by their side alone, as a network must that tells left from right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        misfit = torch.nn.functional.avg_pool3d((x - self.levels).abs(), 3, 1, 1)
        pair = misfit[:, :2].amin(1)
        right = (torch.arange(x.shape[2]) >= x.shape[2] / 2)[:, None, None]
        left_only, right_only = pair + right.float(), pair + (~right).float()
        parts = [left_only[:, None], right_only[:, None], misfit[:, 2:]]
        return -self.inverse_temperature * torch.cat(parts, 1)


# The head and its pose ----------------------------------------------------------------------------


def test_head_center_ignores_the_neck():
    head = phantom(head_grid())
    neck_grid = head.grid.window([0, 0, -80], (*head.grid.shape[:2], head.grid.shape[2] + 80))
    data = np.zeros(neck_grid.shape, np.float32)
    data[:, :, 80:] = head.data
    data[40:90, 50:100, :110] = 70
    np.testing.assert_allclose(head_center(head), 0, atol=12)
    np.testing.assert_allclose(head_center(Volume(data, neck_grid)), 0, atol=15)


def test_head_center_needs_tissue():
    with pytest.raises(UserError, match="air"):
        head_center(Volume(np.zeros((20, 20, 20), np.float32), Grid((20, 20, 20), np.eye(4))))


def test_fit_pose_survives_a_third_of_wild_points():
    rng = np.random.default_rng(3)
    shape = rng.normal(0, 45, (30, 3))
    pose = pose_of((20, -15, 30), (5, 40, -12))
    points = apply_affine(pose, shape) + rng.normal(0, 1, (30, 3))
    points[:10] += rng.normal(0, 80, (10, 3))
    found = fit_pose(shape, points)
    assert np.median(distances(apply_affine(found, shape), apply_affine(pose, shape))) < 1.5


def test_fit_pose_refuses_points_that_fit_no_head():
    rng = np.random.default_rng(3)
    with pytest.raises(UserError, match="no head"):
        fit_pose(rng.normal(0, 45, (30, 3)), rng.uniform(-128, 128, (30, 3)))
    with pytest.raises(UserError, match="no head"):
        fit_pose(rng.normal(0, 45, (30, 3)), np.zeros((30, 3)))


# What must not matter -----------------------------------------------------------------------------


def test_finds_the_balls(detector):
    result = detector.detect(phantom(head_grid()))
    assert distances(result.landmarks.points, BALLS).max() < 0.5
    assert result.landmarks.status == ["model"] * 5
    assert result.device == "cpu"
    assert set(result.seconds) == {"prepare", "locate", "resample", "network", "check"}
    np.testing.assert_allclose(result.pose[:3, :3], np.eye(3), atol=0.1)


@pytest.mark.parametrize(
    ("degrees", "shift"),
    [((0, 0, 0), (200, -340, 77)), ((25, -20, 30), (10, 0, -15)), ((-35, 15, -10), (0, 20, 0))],
)
def test_pose_of_the_head_does_not_matter(detector, degrees, shift):
    pose = pose_of(degrees, shift)
    grid = head_grid(extent=(260, 260, 260))
    affine = grid.affine.copy()
    affine[:3, 3] += shift
    result = detector.detect(phantom(Grid(grid.shape, affine), pose))
    assert distances(result.landmarks.points, apply_affine(pose, BALLS)).max() < 1.0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (True, True, True)])
def test_storage_order_does_not_matter(detector, order, flips):
    head = phantom(head_grid())
    data, affine = head.data.transpose(order), head.grid.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += (data.shape[axis] - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    expected = detector.detect(head).landmarks.points
    found = detector.detect(Volume(data, Grid(data.shape, affine))).landmarks.points
    assert distances(found, expected).max() < 0.01


def test_padding_and_cropping_air_do_not_matter(detector):
    head = phantom(head_grid())
    expected = detector.detect(head).landmarks.points
    shape = tuple(n + 41 for n in head.grid.shape)
    grid = head.grid.window([-17, -30, -5], shape)
    data = np.zeros(shape, np.float32)
    data[17:-24, 30:-11, 5:-36] = head.data
    assert distances(detector.detect(Volume(data, grid)).landmarks.points, expected).max() < 0.5
    used = np.argwhere(head.data > 0)
    low, high = used.min(axis=0), used.max(axis=0) + 1
    block = head.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    cropped = Volume(block, head.grid.window(low, block.shape))
    assert distances(detector.detect(cropped).landmarks.points, expected).max() < 0.5


@pytest.mark.parametrize(
    "spacing", [(1.4, 1.4, 1.4), (0.9, 0.9, 3.2), (5, 1.2, 1.2), (2.5, 2.5, 2.5)]
)
def test_spacing_does_not_matter(detector, spacing):
    result = detector.detect(phantom(head_grid(spacing)))
    assert distances(result.landmarks.points, BALLS).max() < 1.5


def test_oblique_sampling_does_not_matter(detector):
    turned = cube([3, -5, 2], 250, 125, pose_of((12, 20, -25), (0, 0, 0))[:3, :3])
    assert distances(detector.detect(phantom(turned)).landmarks.points, BALLS).max() < 1.0


@pytest.mark.parametrize(("factor", "offset"), [(0.001, 0), (40, 0), (10, 500), (1, -1024)])
def test_grey_scale_does_not_matter(detector, factor, offset):
    head = phantom(head_grid())
    expected = detector.detect(head).landmarks.points
    changed = Volume(factor * head.data + np.float32(offset), head.grid)
    assert distances(detector.detect(changed).landmarks.points, expected).max() < 0.5


class Fixed(nn.Module):
    """Points at the same voxels whatever it sees."""

    def __init__(self, points: np.ndarray, crop: CropSpec) -> None:
        super().__init__()
        self.size = crop.size
        ijk = cube([0, 0, 0], crop.field_of_view_mm, crop.size).ras_to_ijk(points)
        self.register_buffer("ijk", torch.from_numpy(ijk).float()[:, None, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index = [torch.arange(self.size)] * 3
        lattice = torch.stack(torch.meshgrid(*index, indexing="ij"), dim=-1)
        return -((lattice - self.ijk) ** 2).sum(dim=-1)[None]


def test_points_outside_the_image_are_missing(ball_protocol):
    spec = ModelSpec("fixed", CropSpec(32, 208.0), CropSpec(16, 256.0), BALLS)
    networks = (Fixed(BALLS, spec.fine), Fixed(BALLS, spec.locator))
    head = phantom(head_grid(extent=(72, 230, 220)))
    landmarks = Detector(Model(ball_protocol, *networks, spec), "cpu").detect(head).landmarks
    # The slab ends 36 mm from the midline, the paired balls are 38 mm from it.
    assert landmarks.status == ["missing", "missing", "model", "model", "model"]
    assert landmarks.notes == [OUTSIDE, OUTSIDE, "", "", ""]
    assert np.isnan(landmarks.points[:2]).all()
    assert np.isnan(landmarks.confidence[:2]).all()
    assert distances(landmarks.points[2:], BALLS[2:]).max() < 15


def test_points_where_the_head_is_cut_away_are_missing_and_say_so(ball_protocol):
    spec = ModelSpec("fixed", CropSpec(32, 208.0), CropSpec(16, 256.0), BALLS)
    networks = (Fixed(BALLS, spec.fine), Fixed(BALLS, spec.locator))
    head = phantom(head_grid())
    away = head.grid.ijk_to_ras(np.moveaxis(np.indices(head.grid.shape), 0, -1)) - BALLS[2]
    hole = np.linalg.norm(away, axis=-1) < 32
    cut = Volume(np.where(hole, np.float32(0), head.data), head.grid)
    landmarks = Detector(Model(ball_protocol, *networks, spec), "cpu").detect(cut).landmarks
    assert landmarks.status == ["model", "model", "missing", "model", "model"]
    assert landmarks.notes == ["", "", NO_TISSUE, "", ""]
    assert np.isnan(landmarks.confidence[2])


# Devices ------------------------------------------------------------------------------------------


def test_auto_takes_the_cpu_when_the_gpu_fails_its_kernel(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def broken(*args, **kwargs):
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no kernel image") as error:
        choose_device("cuda")
    assert "\n" not in str(error.value)


def test_falling_back_to_the_cpu_is_said_once(detector, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.functional, "conv3d", lambda *args: torch.zeros(1))
    own = Detector(detector.model, "auto")
    head = phantom(head_grid((3, 3, 3)))
    assert "GPU" in own.detect(head).notes[0]
    assert not own.detect(head).notes


def test_auto_never_takes_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "cpu"


def test_every_quality_finds_the_balls(detector, ball_protocol):
    """Turned and mirrored passes come back to where they belong, left and right included."""
    networks = (SidedBallFinder(300.0), BallFinder(120.0))
    own = Detector(Model(ball_protocol, *networks, detector.model.spec), "cpu")
    pose = pose_of((8, -5, 12), (4, 0, -6))
    head = phantom(head_grid((3, 3, 3), extent=(230, 260, 250)), pose)
    seen = {}
    for quality in QUALITIES:
        stages: list[tuple[str, float]] = []
        result = own.detect(
            head, quality=quality, progress=lambda *stage, into=stages: into.append(stage)
        )
        seen[quality] = sum(stage == "detect" for stage, _ in stages) - 1
        assert distances(result.landmarks.points, apply_affine(pose, BALLS)).max() < 1.0
        assert [f for _, f in stages] == sorted(f for _, f in stages)
        assert stages[-1] == ("detect", 1.0)
    assert seen == {name: q.passes + q.turned for name, q in QUALITIES.items()}
    alone = own.detect(head, quality=Quality(1, 2)).landmarks.points
    assert distances(alone, apply_affine(pose, BALLS)).max() < 1.0
    with pytest.raises(UserError, match="no quality 'perfect'; choose fast, standard, best"):
        own.detect(head, quality="perfect")


def test_the_refinement_network_sees_boxes_round_the_points(detector, ball_protocol):
    """The fine network is off by some millimetres, the refinement network sees small balls."""
    off = detector.model.spec.mean_shape + [
        [3, -2, 2],
        [-2, 3, 2],
        [3, 2, -2],
        [2, 2, 3],
        [-3, 2, -2],
    ]
    spec = replace(detector.model.spec, refinement=CropSpec(48, 78.0))
    fine = Fixed(off, spec.fine)
    found = Fixed(off, spec.locator)
    model = Model(ball_protocol, fine, found, spec, None, BallFinder(900.0))
    own = Detector(model, "cpu")
    head = phantom(head_grid((1, 1, 1)), radius=5.0)
    stages: list[tuple[str, float]] = []
    coarse = own.detect(head, quality=Quality(1)).landmarks
    closer = own.detect(
        head, quality=Quality(1, refinement=True), progress=lambda *stage: stages.append(stage)
    ).landmarks
    before, after = distances(coarse.points, BALLS), distances(closer.points, BALLS)
    assert (after < 0.5 * before).all()
    assert after.max() < 2.5
    np.testing.assert_array_equal(closer.confidence, coarse.confidence)
    assert [f for _, f in stages] == sorted(f for _, f in stages)
    assert sum(stage == "detect" for stage, _ in stages) > 3  # more than one box
    assert own.estimate(Quality(1, refinement=True)) > own.estimate(Quality(1))
    # Without a refinement network the same quality is the fine network's.
    bare = Detector(replace(model, refinement=None, spec=replace(spec, refinement=None)), "cpu")
    assert np.array_equal(
        bare.detect(head, quality=Quality(1, refinement=True)).landmarks.points, coarse.points
    )


def test_unknown_device():
    with pytest.raises(UserError, match="tpu"):
        choose_device("tpu")


def test_gpu_out_of_memory_goes_on_on_the_cpu(detector, ball_protocol, monkeypatch):
    own = Detector(detector.model, "cpu")
    own.device = torch.device("meta")  # stands for a GPU
    real = own._forward

    def forward(*arguments):
        if own.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(own, "_forward", forward)
    result = own.detect(phantom(head_grid((2, 2, 2))))
    assert result.device == "cpu"
    assert "memory" in result.notes[0]
    assert not own.detect(phantom(head_grid((2, 2, 2)))).notes


# The shipped model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return Detector("brain88", "cpu")


@pytest.fixture(scope="module")
def sample_volume(sample_head):
    return read_image(sample_head)


@pytest.fixture(scope="module")
def fast_points(shipped, sample_volume):
    return shipped.detect(sample_volume, quality="fast").landmarks.points


@pytest.fixture(scope="module")
def usual_points(shipped, sample_volume):
    return shipped.detect(sample_volume).landmarks.points


def errors_by_eye(shipped, points):
    """From points that were placed by eye, with an error of their own; the README has the rest."""
    by_eye = read_landmarks(resources.sample_landmarks("brain88"), shipped.model.protocol)
    errors = distances(points, by_eye.points)
    assert np.isfinite(errors).all()
    return errors


def test_shipped_model_finds_the_points_of_a_real_head(shipped, fast_points):
    errors = errors_by_eye(shipped, fast_points)
    assert errors.mean() < 4.0
    assert np.median(errors) < 3.0
    assert errors.max() < 14.0  # a point of the axial ring, which hangs on the AC-PC line


@pytest.mark.slow
def test_shipped_model_finds_them_in_the_usual_quality(shipped, usual_points):
    errors = errors_by_eye(shipped, usual_points)
    assert errors.mean() < 3.5
    assert errors.max() < 9.0


def other_storage(volume, order, flip):
    data, affine = volume.data.transpose(order), volume.grid.affine[:, [*order, 3]]
    for axis in flip:
        affine[:3, 3] += (data.shape[axis] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
        data = np.flip(data, axis)
    return Volume(data, Grid(data.shape, affine))


def test_shipped_model_does_not_see_the_storage_order(shipped, sample_volume, fast_points):
    stored = other_storage(sample_volume, (2, 0, 1), (0,))
    found = shipped.detect(stored, quality="fast").landmarks.points
    assert np.nanmax(distances(found, fast_points)) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("order", "flip"), [((2, 0, 1), (0,)), ((1, 0, 2), (0, 1, 2))])
def test_nor_in_the_usual_quality(shipped, sample_volume, usual_points, order, flip):
    found = shipped.detect(other_storage(sample_volume, order, flip)).landmarks.points
    assert np.nanmax(distances(found, usual_points)) < 0.01


@pytest.mark.slow
def test_shipped_model_does_not_see_padding(shipped, sample_volume, usual_points):
    shape = tuple(n + 30 for n in sample_volume.grid.shape)
    data = np.zeros(shape, np.float32)
    data[10:-20, 20:-10, 15:-15] = sample_volume.data
    padded = Volume(data, sample_volume.grid.window([-10, -20, -15], shape))
    assert np.nanmax(distances(shipped.detect(padded).landmarks.points, usual_points)) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [(1.3, 0.8, 1.1), (1, 1, 2.0)])
def test_shipped_model_hardly_sees_the_spacing(shipped, sample_volume, usual_points, spacing):
    shape = tuple(int(e / s) for e, s in zip(sample_volume.grid.extent, spacing, strict=True))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = sample_volume.grid.center_ras - (np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine)
    found = shipped.detect(Volume(resample(sample_volume, grid), grid)).landmarks.points
    both = np.isfinite(found) & np.isfinite(usual_points)
    assert both.all(axis=1).sum() > 80
    assert np.nanmax(distances(found, usual_points)) < 1.5
