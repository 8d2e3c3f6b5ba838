"""Abnormal anatomy in augmentation: tissue and landmarks move together, or both are gone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.augmentation import (
    AugmentationConfig,
    AugmentWithLandmarks,
    Record,
    regenerate,
)
from BrainLandmarksTrainLib.augmentation.abnormal_side import (
    Atrophy,
    Cavity,
    Enhancement,
    Mass,
    MetalVoid,
    Ventricles,
    WhiteMatterLesions,
    centred,
)
from BrainLandmarksTrainLib.augmentation.brain_frame import (
    CEREBRUM,
    VENTRICLES,
    BrainFrame,
    Levels,
)
from BrainLandmarksTrainLib.augmentation.change import Body, Warp
from BrainLandmarksTrainLib.augmentation.config import Policy
from BrainLandmarksTrainLib.augmentation.landmark_transform import moved_points
from BrainLandmarksTrainLib.augmentation.policies import allocate, choose
from BrainLandmarksTrainLib.augmentation.record import Step
from BrainLandmarksTrainLib.data.scans import ScanSampler
from BrainLandmarksTrainLib.engine.losses import MixedLoss
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import Variation

ABNORMAL = AugmentationConfig().abnormal
STAYING = ("white_matter_lesions", "void", "enhancement")
VOXEL = 3.0
TURN = np.array(
    [[0.98, -0.17, 0.05, 4.0], [0.17, 0.95, -0.2, 20.0], [-0.02, 0.2, 0.93, -9.0], [0, 0, 0, 1]]
)
"""From the reference to the test's head: turned, shifted, and a little smaller."""

T1 = {"white": 100.0, "grey": 70.0, "fluid": 20.0, "skull": 5.0, "scalp": 120.0}
T2 = {"white": 35.0, "grey": 55.0, "fluid": 120.0, "skull": 5.0, "scalp": 70.0}
FLAIR = {"white": 60.0, "grey": 80.0, "fluid": 12.0, "skull": 5.0, "scalp": 80.0}


def grid() -> Grid:
    shape = (60, 72, 62)
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = TURN[:3, :3] @ CEREBRUM[0] + TURN[:3, 3] - VOXEL * (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def reference_positions(where: Grid) -> np.ndarray:
    ras = where.ijk_to_ras(np.moveaxis(np.indices(where.shape), 0, -1))
    return apply_affine(np.linalg.inv(TURN), ras)


def head(levels: dict[str, float]) -> Volume:
    """A brain of ellipsoids with thalami, ventricles, fluid, skull and scalp."""
    where = grid()
    at = reference_positions(where)
    radius = np.linalg.norm((at - CEREBRUM[0]) / CEREBRUM[1], axis=-1)
    data = np.zeros(where.shape)
    for edge, tissue in ((1.22, "scalp"), (1.12, "skull"), (1.04, "fluid"), (0.98, "grey"),
                         (0.90, "white")):  # fmt: skip
        data[radius < edge] = levels[tissue]
    for side in (1, -1):
        for centre in ([12, -18, 7], [27, 0, 3]):
            data[np.linalg.norm(at - np.array(centre) * [side, 1, 1], axis=-1) < 8] = levels["grey"]
        tube = np.min([np.linalg.norm(at - p * [side, 1, 1], axis=-1) for p in VENTRICLES], axis=0)
        data[tube < 5.5] = levels["fluid"]
    return Volume(data.astype(np.float32), where)


@pytest.fixture(scope="module")
def landmarks(brain88) -> LandmarkSet:
    sample = read_landmarks(resources.folder("sample") / "ch2_brain88.mrk.json", brain88)
    return LandmarkSet.from_points(brain88, apply_affine(TURN, sample.points), "truth")


@pytest.fixture(scope="module")
def t1() -> Volume:
    return head(T1)


def only(name: str, **changes) -> AugmentWithLandmarks:
    config = AugmentationConfig(policies={"one": Policy(1.0, (name,))}, **changes)
    return AugmentWithLandmarks(config)


def depth(record: Record, volume: Volume, points: np.ndarray) -> np.ndarray:
    """mm below the surface of the record's body."""
    body = Body.of_json(record.steps[0].parameters["body"])
    return body.depth(points - volume.grid.center_ras)


# In general ---------------------------------------------------------------------------------------


def test_it_is_off_until_it_is_given_a_probability(landmarks, t1):
    paper = AugmentationConfig()
    assert paper.policies["DA5"] == Policy(0.0, ("abnormal",))
    rng = np.random.default_rng(2)
    assert "DA5" not in {choose(paper, rng) for _ in range(500)}
    assert "DA5" not in allocate(paper, 101, rng)
    policies = {
        **paper.policies,
        "DA4": Policy(0.1, ("elastic",)),
        "DA5": Policy(0.2, ("abnormal",)),
    }
    wanted = replace(paper, policies=policies)
    assert Counter(allocate(wanted, 100, rng))["DA5"] == 20
    kinds = {
        AugmentWithLandmarks(paper)(t1, landmarks, seed, "DA5").record.steps[0].transform
        for seed in range(6)
    }
    assert len(kinds) > 2
    assert kinds <= set(ABNORMAL)


@pytest.mark.parametrize("name", ABNORMAL)
def test_a_sample_is_made_again_from_its_record_and_from_its_seed(name, landmarks, t1):
    augment = only(name)
    first = augment(t1, landmarks, seed=11)
    record = Record.from_dict(json.loads(json.dumps(first.record.to_dict())))
    assert record == first.record
    for again in (regenerate(record, t1, landmarks), augment(t1, landmarks, seed=11)):
        assert np.array_equal(again.volume.data, first.volume.data)
        assert np.array_equal(again.landmarks.points, first.landmarks.points, equal_nan=True)
    assert not np.array_equal(augment(t1, landmarks, seed=12).volume.data, first.volume.data)
    assert not np.array_equal(first.volume.data, t1.data)
    assert np.array_equal(t1.data, head(T1).data), "the scan itself stays as it is"
    assert np.isfinite(first.volume.data).all()
    missing = np.isnan(first.landmarks.points).any(axis=1)
    assert missing.sum() == len(first.record.gone) + len(first.record.folded)
    assert not first.record.folded


def test_records_of_earlier_versions_are_read(landmarks, t1):
    values = only("blur")(t1, landmarks, seed=1).record.to_dict()
    del values["gone"]
    assert Record.from_dict(values).gone == ()


def test_without_its_landmarks_there_is_no_way_about_the_brain(tiny_protocol, t1):
    points = t1.grid.ijk_to_ras(np.random.default_rng(0).uniform(10, 50, (len(tiny_protocol), 3)))
    others = LandmarkSet.from_points(tiny_protocol, points, "truth")
    with pytest.raises(UserError, match="abnormal anatomy needs 8 landmarks of brain88"):
        only("ventricles")(t1, others, seed=0)


@pytest.mark.parametrize("levels", [T1, T2, FLAIR])
def test_the_contrast_is_read_from_the_scan(levels, landmarks):
    volume = head(levels)
    frame = BrainFrame.of(landmarks, volume.grid.center_ras)
    found = Levels.of(centred(volume), frame)
    assert found.white == levels["white"]
    assert found.grey == levels["grey"]
    assert found.fluid == levels["fluid"]


# Maps ---------------------------------------------------------------------------------------------


MAPS = {
    "ventricles": Ventricles(enlargement=(0.6, 0.6)),
    "atrophy": Atrophy(shrinkage_mm=(4.0, 4.0)),
    "mass": Mass(radius_mm=(18.0, 18.0), effect=(0.6, 0.6)),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_point_stays_on_its_tissue(name, landmarks):
    """A bright ball at a point is, in the new image, a ball about the moved point."""
    where = grid()
    parameters = MAPS[name].draw_for(np.random.default_rng(5), head(T1), landmarks)
    change = MAPS[name].build(parameters)
    middle = centred(Volume(np.zeros(where.shape, np.float32), where))
    at = middle.grid.ijk_to_ras(np.moveaxis(np.indices(where.shape), 0, -1))
    warp = change.backward(middle.grid)
    assert isinstance(warp, Warp)
    points = landmarks.points - where.center_ras
    import torchio

    image = torchio.ScalarImage(tensor=torch.zeros(1, *where.shape), affine=middle.grid.affine)
    moved = moved_points(change, image, points)
    assert not moved.folded.any()
    inside = middle.grid.contains(points, margin=-4)
    shift = np.linalg.norm(moved.points - points, axis=1)
    rows = [int(row) for row in np.argsort(-np.nan_to_num(shift)) if inside[row]][:4]
    assert shift[rows[0]] > 1.5
    for row in rows:
        ball = np.exp(-((at - points[row]) ** 2).sum(-1) / (2 * 4.5**2)).astype(np.float32)
        seen = warp.resampled(ball)
        # The map is smooth: the ball is stretched, and its brightest place is the point's.
        near = np.exp(-((at - moved.points[row]) ** 2).sum(-1) / (2 * 4.5**2))
        weight = (seen * near) ** 2
        centre = (weight[..., None] * at).sum((0, 1, 2)) / weight.sum()
        assert np.linalg.norm(centre - moved.points[row]) < 0.25 * shift[row] + 0.15
        back = warp(moved.points[[row]])
        np.testing.assert_allclose(back, points[[row]], atol=2e-3)


@pytest.mark.parametrize("name", MAPS)
def test_the_image_goes_through_the_map_of_the_points(name, landmarks, t1):
    """Resampled coordinates are the coordinates that the map gives, voxel by voxel."""
    parameters = MAPS[name].draw_for(np.random.default_rng(5), t1, landmarks)
    middle = centred(t1).grid
    warp = MAPS[name].build(parameters).backward(middle)
    ijk = np.moveaxis(np.indices(middle.shape), 0, -1)
    at = middle.ijk_to_ras(ijk)
    rows = tuple(np.random.default_rng(0).integers(6, np.array(middle.shape) - 6, (300, 3)).T)
    expected = warp(at[rows])
    for axis in range(3):
        seen = warp.resampled(at[..., axis].astype(np.float32))
        np.testing.assert_allclose(seen[rows], expected[:, axis], atol=5e-3)


def test_maps_do_not_fold(landmarks, t1):
    """Also at the strongest settings: neighbours in the new image are in order in the old one."""
    strongest = {
        "ventricles": Ventricles(enlargement=(0.7, 0.7)),
        "atrophy": Atrophy(shrinkage_mm=(6.0, 6.0)),
        "mass": Mass(radius_mm=(40.0, 40.0), effect=(0.7, 0.7)),
    }
    middle = centred(t1).grid
    at = middle.ijk_to_ras(np.moveaxis(np.indices(middle.shape), 0, -1))
    for name, transform in strongest.items():
        parameters = transform.draw_for(np.random.default_rng(1), t1, landmarks)
        warp = transform.build(parameters).backward(middle)
        old = np.stack([warp.resampled(at[..., k].astype(np.float32)) for k in range(3)], -1)
        gradient = np.stack(np.gradient(old.astype(float), VOXEL, axis=(0, 1, 2)), axis=-1)
        inner = np.linalg.det(gradient)[2:-2, 2:-2, 2:-2]
        assert inner.min() > 0, name


def test_ventricles_grow_and_the_skull_stays(landmarks, t1):
    fluid = {}
    at = reference_positions(t1.grid)
    radius = np.linalg.norm((at - CEREBRUM[0]) / CEREBRUM[1], axis=-1)

    def content(volume: Volume) -> float:
        """Voxels of fluid in the middle of the brain, parts of voxels counted as such.

        A voxel of grey matter counts as well, a little; of that there is hardly more or less.
        """
        share = np.clip((T1["white"] - volume.data) / (T1["white"] - T1["fluid"]), 0, 1)
        return float(share[radius < 0.7].sum())

    for share in (0.2, 0.4, 0.6):
        varied = only("ventricles", ventricles=Ventricles(enlargement=(share, share)))(
            t1, landmarks, seed=2
        )
        fluid[share] = content(varied.volume)
        warp = Ventricles.build(varied.record.steps[0].parameters).backward(centred(t1).grid)
        beyond = centred(t1).grid.ijk_to_ras(np.argwhere(radius > 1.1)[::50])
        assert np.linalg.norm(warp(beyond) - beyond, axis=1).max() < 0.5  # mm
    before = content(t1)
    assert before < fluid[0.2] < fluid[0.4] < fluid[0.6]
    assert fluid[0.6] > 1.8 * before


def test_atrophy_widens_the_space_round_the_brain(landmarks, t1):
    at = reference_positions(t1.grid)
    radius = np.linalg.norm((at - CEREBRUM[0]) / CEREBRUM[1], axis=-1)
    upper = (radius > 0.85) & (radius < 1.05) & (at[..., 2] > 10)
    varied = only("atrophy", atrophy=Atrophy(shrinkage_mm=(4.0, 4.0)))(t1, landmarks, seed=2)
    before, after = (int(((d < 45) & upper).sum()) for d in (t1.data, varied.volume.data))
    assert after > 1.2 * before
    inward = landmarks.points - t1.grid.center_ras
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    row = landmarks.protocol.labels.index("BB_5")
    step = ((varied.landmarks.points - landmarks.points) * inward)[row].sum()
    assert -4.5 < step < -2.5


# Tissue that is gone ------------------------------------------------------------------------------


def test_a_mass_pushes_landmarks_away_and_takes_those_inside(landmarks, t1):
    seen = Counter()
    for seed in range(5):
        made = only("mass", mass=Mass(radius_mm=(25.0, 25.0), effect=(0.5, 0.5)))(
            t1, landmarks, seed
        )
        missing = np.isnan(made.landmarks.points).any(axis=1)
        labels = landmarks.protocol.labels
        assert made.record.gone == tuple(np.array(labels)[missing].tolist())
        assert (depth(made.record, t1, made.landmarks.points[~missing]) <= 0).all()
        centre = np.array(made.record.steps[0].parameters["body"]["centre"]) + t1.grid.center_ras
        before = np.linalg.norm(landmarks.points[~missing] - centre, axis=1)
        after = np.linalg.norm(made.landmarks.points[~missing] - centre, axis=1)
        assert (after > before - 0.02).all()
        assert (after - before).max() > 2
        seen["gone"] += int(missing.sum())
        seen["status"] += sum(s == "missing" for s in made.landmarks.status)
    # One that grows where a landmark is takes it away.
    row = landmarks.protocol.labels.index("HIP_B_R")
    parameters = dict(made.record.steps[0].parameters)
    here = (landmarks.points[row] - t1.grid.center_ras).tolist()
    parameters["body"] = {**parameters["body"], "centre": here}
    there = regenerate(replace(made.record, steps=(Step("mass", parameters),)), t1, landmarks)
    seen["gone"] += len(there.record.gone)
    seen["status"] += sum(s == "missing" for s in there.landmarks.status)
    assert "HIP_B_R" in there.record.gone
    assert there.landmarks.status[row] == "missing"
    assert seen["status"] == seen["gone"]


def test_a_cavity_is_fluid_as_far_as_the_brain_reaches(landmarks, t1):
    at = reference_positions(t1.grid)
    radius = np.linalg.norm((at - CEREBRUM[0]) / CEREBRUM[1], axis=-1)
    ras = t1.grid.ijk_to_ras(np.moveaxis(np.indices(t1.grid.shape), 0, -1))
    gone = 0
    for seed in range(5):
        made = only("cavity", cavity=Cavity(radius_mm=(24.0, 24.0)))(t1, landmarks, seed)
        deep = depth(made.record, t1, ras)
        inside = (deep > 3) & (radius < 0.9)
        assert inside.sum() > 100
        assert np.abs(made.volume.data[inside] - T1["fluid"]).mean() < 6
        outside = (radius > 1.14) | (deep < -9)
        assert np.array_equal(made.volume.data[outside], t1.data[outside])
        missing = np.isnan(made.landmarks.points).any(axis=1)
        expected = depth(made.record, t1, landmarks.points) > 0
        assert (missing <= expected).all()
        kept = landmarks.points[~missing]
        np.testing.assert_allclose(made.landmarks.points[~missing], kept, atol=1e-9)
        gone += int(missing.sum())
    assert gone > 3


def test_training_sees_what_is_gone_as_missing(landmarks):
    """From the cavity to the loss: no gradient comes from a landmark that is gone."""
    lattice = Lattice((48, 48, 48), 4.0)
    middle = landmarks.points - np.nanmean(landmarks.points, axis=0)
    policies = {"one": Policy(1.0, ("cavity",))}
    config = AugmentationConfig(policies=policies, cavity=Cavity(radius_mm=(45.0, 45.0)))
    sampler = ScanSampler([], middle, landmarks.protocol, Variation(), lattice, config)
    image = torch.full(lattice.shape, 50.0)
    for seed in range(8):
        _, points = sampler._varied(config, image, middle, seed)
        absent = np.isnan(points).any(axis=1)
        if absent.any():
            break
    assert absent.any()
    voxels = torch.as_tensor(lattice.grid.ras_to_ijk(points), dtype=torch.float32)[None]
    heatmaps = torch.randn(1, len(points), *(12,) * 3, requires_grad=True)
    MixedLoss(alpha=0.4, sigma=1.0)(heatmaps, voxels / 4).total.backward()
    assert heatmaps.grad is not None
    assert float(heatmaps.grad[0, absent].abs().max()) == 0
    assert float(heatmaps.grad[0, ~absent].abs().max()) > 0


# What leaves the landmarks ------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAYING)
def test_landmarks_stay_where_tissue_stays(name, landmarks, t1):
    for seed in range(3):
        made = only(name)(t1, landmarks, seed)
        np.testing.assert_allclose(made.landmarks.points, landmarks.points, atol=1e-9)
        assert not made.record.gone


@pytest.mark.parametrize(("levels", "sign"), [(T1, -1), (T2, 1), (FLAIR, 1)])
def test_spots_are_dark_on_t1_and_bright_on_t2_and_flair(levels, sign, landmarks):
    volume = head(levels)
    spots = WhiteMatterLesions(count=(20, 20), radius_mm=(3.0, 5.0))
    made = only("white_matter_lesions", white_matter_lesions=spots)(volume, landmarks, seed=4)
    assert len(made.record.steps[0].parameters["bodies"]) > 10
    change = made.volume.data - volume.data
    strong = np.abs(change) > 0.1 * abs(levels["white"] - levels["fluid"])
    assert strong.sum() > 40
    assert (np.sign(change[strong]) == sign).all()
    # What is changed was white matter; elsewhere nothing happens.
    assert (volume.data[strong] == levels["white"]).mean() > 0.95
    between = sorted((levels["white"], made.volume.data[strong].mean()))
    assert between[0] < between[1]


def test_metal_leaves_no_signal(landmarks, t1):
    ras = t1.grid.ijk_to_ras(np.moveaxis(np.indices(t1.grid.shape), 0, -1))
    for seed in range(4):
        made = only("void", void=MetalVoid(radius_mm=(20.0, 20.0)))(t1, landmarks, seed)
        deep = depth(made.record, t1, ras)
        assert (made.volume.data[deep > 2] == 0).all()
        assert np.array_equal(made.volume.data[deep < -9], t1.data[deep < -9])
        rim = (deep < -1) & (deep > -2) & (t1.data > 0)
        if rim.any():
            assert (made.volume.data[rim] > t1.data[rim]).mean() > 0.9


def test_contrast_agent_only_brightens_vessels_and_dura(landmarks, t1):
    at = reference_positions(t1.grid)
    radius = np.linalg.norm((at - CEREBRUM[0]) / CEREBRUM[1], axis=-1)
    strongest = Enhancement(level=(1.6, 1.6))
    made = only("enhancement", enhancement=strongest)(t1, landmarks, seed=3)
    change = made.volume.data - t1.data
    assert change.min() >= -1e-3
    shell = (radius > 0.98) & (radius < 1.1) & (at[..., 2] > 20)
    deep = (radius < 0.7) & (np.abs(at[..., 0]) > 25) & (at[..., 2] > 25)
    assert (change[shell] > 10).mean() > 0.2
    assert change[shell].mean() > 5 * change[~shell].mean()
    assert change[deep].max() < 1
    row = at[np.abs(at[..., 0]) < 1.5]
    top = row[np.abs(row[:, 1] + 12) < 2]
    assert top[:, 2].max() > 79
    sinus = np.linalg.norm(at - [0, -12, 79], axis=-1) < 2
    assert made.volume.data[sinus].max() > 1.3 * T1["white"]


# Parts --------------------------------------------------------------------------------------------


def test_a_body_is_inside_its_box_and_travels_as_json():
    where = grid()
    body = Body.random(np.random.default_rng(3), where.center_ras, 20.0, 0.35)
    again = Body.of_json(json.loads(json.dumps(body.to_json())))
    assert again == body
    ras = where.ijk_to_ras(np.moveaxis(np.indices(where.shape), 0, -1))
    inside = body.depth(ras) > 0
    mask = np.zeros(where.shape, bool)
    mask[body.box(where)] = True
    assert inside.any()
    assert not (inside & ~mask).any()
