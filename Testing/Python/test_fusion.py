"""Landmarks by rule on a parcellation with probabilities, and their say beside the heatmaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom import phantom_head, phantom_scan
from scipy import ndimage
from test_detection import Fixed, pose_of
from torch import nn

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.annotation.labelmap import BRAIN_STEM, HIPPOCAMPUS
from BrainLandmarksLib.annotation.probability_map import ProbabilityMap
from BrainLandmarksLib.annotation.schemes import MIDLINE, PAIRED
from BrainLandmarksLib.detection import Detector, detector, fusion, parcellation
from BrainLandmarksLib.detection.detector import RULES, Quality, head_center
from BrainLandmarksLib.detection.parcellation import box_input, brain_box, parcellate
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.geometry.correction import (
    ANSWER,
    FEWEST_HEADS,
    WITH_RULES,
    read_correction,
    write_correction,
)
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.imaging.preprocessing import preprocessed
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec, ParcellationSpec
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksTrainLib.pipeline.calibrate import correction_of

PROTOCOL = load_protocol("brain88")
STRUCTURES = (0, *(n for pair in PAIRED.values() for n in pair), *MIDLINE.values())
VOXEL_MM = 2.0


def seen_on(labels: Volume, grid: Grid) -> ProbabilityMap:
    """What a good network would see of a label map: its structures, smooth at the voxels."""
    numbers = labels.data.astype(int)
    volumes = np.zeros((len(STRUCTURES), *grid.shape), np.float16)
    for row, number in enumerate(STRUCTURES[1:], start=1):
        if (numbers == number).any():
            one = Volume((numbers == number).astype(np.float32), labels.grid)
            volumes[row] = resample(one, grid)
    volumes[0] = np.clip(1 - volumes[1:].sum(0), 0, 1)
    return ProbabilityMap(volumes, STRUCTURES, grid)


@pytest.fixture(scope="module")
def head():
    return phantom_head()


@pytest.fixture(scope="module")
def truth(head):
    return annotate(head).points


def box(pose, points):
    eyes = [row for row, label in enumerate(PROTOCOL.labels) if label.startswith("EYE")]
    return brain_box(pose, np.delete(points, eyes, axis=0), VOXEL_MM)


@pytest.fixture(scope="module")
def seen(head, truth):
    pose = pose_of((4, -6, 5), (3, -2, 5))
    return seen_on(head, box(pose, truth))


def test_rules_read_boundaries_between_the_voxels(truth, seen):
    """Voxels of 2 mm in an oblique box: the points are those of the fine map."""
    found = fusion.rule_points(PROTOCOL, seen)
    both = np.isfinite(found).all(1) & np.isfinite(truth).all(1)
    away = np.linalg.norm(found - truth, axis=1)[both]
    assert both.sum() >= 70
    assert np.median(away) < 0.6
    assert np.quantile(away, 0.9) < 1.5
    voxels = replace_by_voxels(seen)
    coarse = fusion.rule_points(PROTOCOL, voxels)
    both &= np.isfinite(coarse).all(1)
    assert away.mean() < np.linalg.norm(coarse - truth, axis=1)[both].mean()


def replace_by_voxels(seen: ProbabilityMap) -> ProbabilityMap:
    """The same parcellation without its probabilities."""
    best = seen.probabilities.argmax(0)
    sure = np.stack([best == row for row in range(len(STRUCTURES))]).astype(np.float16)
    return ProbabilityMap(sure, STRUCTURES, seen.grid)


def test_a_parcellation_needs_a_volume_for_each_structure(seen):
    with pytest.raises(ValueError, match="one volume of probabilities"):
        ProbabilityMap(seen.probabilities[:3], STRUCTURES, seen.grid)


def test_structures_of_impossible_size_place_nothing(seen):
    """A hippocampus that is hardly there takes the points that hang on it along, no others."""
    volumes = seen.probabilities.copy()
    left = STRUCTURES.index(HIPPOCAMPUS["L"][0])
    volumes[0] += volumes[left] * np.float16(0.9)
    volumes[left] *= np.float16(0.1)
    found = fusion.rule_points(PROTOCOL, ProbabilityMap(volumes, STRUCTURES, seen.grid))
    gone = ~np.isfinite(found).all(1)
    names = {PROTOCOL.labels[row] for row in np.flatnonzero(gone)}
    assert {"HIP_H_L", "HIP_B_R", "TOH_L_L"} <= names
    assert np.isfinite(found[PROTOCOL.labels.index("FP_L")]).all()
    stem = [row for row, number in enumerate(STRUCTURES) if number in BRAIN_STEM]
    volumes[0] += volumes[stem].sum(0)
    volumes[stem] = 0
    without = fusion.rule_points(PROTOCOL, ProbabilityMap(volumes, STRUCTURES, seen.grid))
    assert np.isnan(without).all()


def test_an_empty_parcellation_places_nothing(seen):
    volumes = np.zeros_like(seen.probabilities)
    volumes[0] = 1
    assert np.isnan(
        fusion.rule_points(PROTOCOL, ProbabilityMap(volumes, STRUCTURES, seen.grid))
    ).all()


def test_tiles_give_what_the_whole_gives(monkeypatch):
    """A network that sees no farther than the margin does not know where tiles end."""
    torch.manual_seed(0)
    network = HighRes3DNet(1, 3, features=2, residual_blocks=1, dilations=(1, 2, 2), penultimate=4)
    network.eval()
    rng = np.random.default_rng(1)
    grid = Grid((20, 88, 40), np.diag([2.0, 2, 2, 1]))
    scan = Volume(ndimage.gaussian_filter(rng.random(grid.shape), 1).astype(np.float32), grid)
    monkeypatch.setattr(parcellation, "TILE_VOXELS", 30_000)
    monkeypatch.setattr(parcellation, "ProbabilityMap", lambda made, *_: made)
    told = []
    made = parcellate(network, (0, 2, 41), scan, grid, "float32", told.append)
    assert told == [0.0, 1 / 3, 2 / 3]
    with torch.no_grad():
        whole = network(torch.from_numpy(box_input(scan, grid))[None, None])[0].softmax(0).numpy()
    assert np.abs(whole - made).max() < 2e-3


def test_what_is_no_brain_is_cleared(head, truth, seen):
    """Muscles of the neck that look like cortex, and thin bridges to them."""
    volumes = seen.probabilities.copy()
    cortex = STRUCTURES.index(3)
    volumes[:, 60:70, 80:90, 0:8] = 0
    volumes[cortex, 60:70, 80:90, 0:8] = 1
    assert ((seen.labels == 0)[60:70, 80:90, 0:8]).all()
    cleared = ProbabilityMap(volumes, STRUCTURES, seen.grid)
    assert (cleared.labels == seen.labels).mean() > 0.9999
    here, there = (fusion.rule_points(PROTOCOL, m) for m in (seen, cleared))
    assert np.allclose(here, there, atol=0.05, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(-30, 30)] * 3), st.floats(1.0, 3.0))
def test_the_box_holds_the_brain_in_any_pose(degrees, voxel_mm):
    pose = pose_of(degrees, (5, -8, 3))
    rng = np.random.default_rng(4)
    points = apply_affine(pose, rng.uniform(-70, 70, (40, 3)))
    points[3] = np.nan
    grid = brain_box(pose, points, voxel_mm)
    assert np.allclose(grid.spacing, voxel_mm)
    assert all(n % 4 == 0 for n in grid.shape)
    assert grid.contains(np.delete(points, 3, axis=0)).all()
    assert np.allclose(grid.affine[:3, :3] / voxel_mm, pose[:3, :3])


# Fusion -------------------------------------------------------------------------------------------

HEADS = 60


def simulated(mean, count, seed):
    """Heads, what a network finds on them (right in some places), and what rules find (others)."""
    rng = np.random.default_rng(seed)
    heads = np.array([mean * (1 + 0.04 * rng.normal()) for _ in range(count)])
    sigma = np.where(np.arange(len(mean)) % 2, 3.0, 0.7)[:, None]
    found = heads + sigma * rng.normal(size=heads.shape)
    rules = heads + (3.7 - sigma) * rng.normal(size=heads.shape) + [0, 0, 1.0]
    return heads, found, rules


@pytest.fixture(scope="module")
def mean(truth):
    return np.where(np.isfinite(truth), truth, 0.0) - np.nanmean(truth, axis=0)


@pytest.fixture(scope="module")
def model(mean, truth, head):
    heads, _, _ = simulated(mean, HEADS, 1)
    shape = ShapeModel.fit(list(heads), PROTOCOL.mirror_permutation(), mean)
    crop = CropSpec(48, 240.0)
    spec = ModelSpec("fake", crop, crop, mean, parcellation=ParcellationSpec(VOXEL_MM, STRUCTURES))
    network = Fixed(mean, crop)
    return Model(PROTOCOL, network, network, spec, shape, parcellation=nn.Identity())


@pytest.fixture(scope="module")
def correction(model, mean):
    heads, found, rules = simulated(mean, HEADS, 2)
    return correction_of(model, list(heads), {"fine": found, RULES: rules}, heads)


def test_each_source_is_believed_where_it_is_exact(correction, mean):
    heads, found, rules = simulated(mean, 20, 3)
    fused = [correction.fused(p, r, "fine") for p, r in zip(found, rules, strict=True)]
    error = np.linalg.norm([f.points for f in fused] - heads, axis=2).mean()
    alone = np.linalg.norm([correction(p, "fine") for p in found] - heads, axis=2).mean()
    by_rule = np.linalg.norm(rules - [0, 0, 1.0] - heads, axis=2).mean()
    assert error < 0.8 * min(alone, by_rule)
    assert np.mean([f.by_rule for f in fused]) > 0.9


def test_a_useless_parcellation_gives_the_answer_without_one(correction, mean):
    """Nothing by rule, or rules that have jumped: bit by bit today's answer."""
    _, found, rules = simulated(mean, 1, 4)
    alone = correction(found[0], "fine")
    for useless in (np.full_like(rules[0], np.nan), rules[0] + [25.0, 0, 0], -rules[0]):
        fused = correction.fused(found[0], useless, "fine")
        assert np.array_equal(fused.points, alone)
        assert not fused.by_rule.any()
    unknown = correction.fused(found[0], rules[0], "refinement")
    assert np.array_equal(unknown.points, found[0])


def test_a_point_that_has_jumped_does_not_count(correction, mean):
    _, found, rules = simulated(mean, 1, 5)
    usual = correction.fused(found[0], rules[0], "fine")
    jumped = rules[0].copy()
    row = int(np.flatnonzero(usual.by_rule)[7])
    jumped[row] += [0, 18.0, 0]
    fused = correction.fused(found[0], jumped, "fine")
    gone = rules[0].copy()
    gone[row] = np.nan
    assert not fused.by_rule[row]
    assert np.array_equal(fused.points, correction.fused(found[0], gone, "fine").points)


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.integers(0, 100))
def test_fusion_turns_with_the_head(correction, mean, degrees, seed):
    _, found, rules = simulated(mean, 1, seed)
    pose = pose_of(degrees, (10, -20, 30))
    moved = correction.fused(apply_affine(pose, found[0]), apply_affine(pose, rules[0]), "fine")
    here = correction.fused(found[0], rules[0], "fine")
    assert np.allclose(moved.points, apply_affine(pose, here.points), atol=1e-4)


def test_what_is_known_of_both_is_kept_in_the_file(correction, mean, tmp_path):
    _, found, rules = simulated(mean, 1, 6)
    file = tmp_path / "correction.safetensors"
    write_correction(file, correction)
    again = read_correction(file)
    assert set(again.errors) == {"fine", "fine" + WITH_RULES, ANSWER}
    there = again.fused(found[0], rules[0], "fine").points
    assert np.allclose(there, correction.fused(found[0], rules[0], "fine").points, atol=1e-2)


def test_rules_of_which_few_heads_tell_have_no_say(model, mean):
    count = FEWEST_HEADS - 1
    heads, found, rules = simulated(mean, HEADS, 7)
    rules[count:] = np.nan
    own = correction_of(model, list(heads), {"fine": found, RULES: rules}, heads)
    assert not own.fused(found[0], rules[0], "fine").by_rule.any()


# In a detection -----------------------------------------------------------------------------------


@pytest.fixture
def parcellating(model, correction, head, monkeypatch):
    """A detector that is a few millimetres off, with a parcellation that is exact."""
    center = head_center(preprocessed(phantom_scan(head)))
    usual = annotate(head).points - center
    off = usual + np.random.default_rng(9).normal(0, 1.5, usual.shape)
    off = apply_affine(np.linalg.inv(rigid_fit(usual, off)), off)  # the same in every pass
    spec = replace(model.spec, mean_shape=usual)
    network = Fixed(off, spec.fine)
    made = []

    def see(_network, structures, _scan, grid, *_):
        made.append(grid)
        up = np.eye(4)
        up[2, 3] = 1.0  # as far as rules usually lie too high (`simulated`)
        return ProbabilityMap(
            seen_on(head, grid).probabilities, structures, Grid(grid.shape, up @ grid.affine)
        )

    monkeypatch.setattr(detector, "parcellate", see)
    own = replace(model, spec=spec, network=network, locator=network, shape=None)
    return Detector(replace(own, correction=correction), "cpu"), made


def test_a_detection_fuses_and_says_where_each_point_comes_from(parcellating, head, truth):
    own, made = parcellating
    scan = phantom_scan(head)
    plain = own.detect(scan, quality=Quality(1), force=True)
    result = own.detect(scan, quality=Quality(1, parcellation=True), force=True)
    assert len(made) == 1
    assert set(result.sources) == {"fine", RULES}
    assert set(plain.sources) == {"fine"}
    assert result.parcellation is not None
    assert plain.parcellation is None
    known = ~result.landmarks.missing
    notes = np.array(result.landmarks.notes)
    assert set(notes[known]) == {fusion.HEATMAP, fusion.BOTH}
    assert (notes[known] == fusion.BOTH).sum() > 40
    assert not set(plain.landmarks.notes) & {fusion.HEATMAP, fusion.BOTH}
    both = known & ~plain.landmarks.missing & np.isfinite(truth).all(1)
    before, after = (
        np.linalg.norm(d.landmarks.points - truth, axis=1)[both].mean() for d in (plain, result)
    )
    assert after < 0.8 * before


def test_a_detection_with_a_useless_parcellation_is_one_without(parcellating, head, monkeypatch):
    own, _ = parcellating

    def nothing(_network, structures, _scan, grid, *_):
        volumes = np.zeros((len(structures), *grid.shape), np.float16)
        volumes[0] = 1
        return ProbabilityMap(volumes, structures, grid)

    monkeypatch.setattr(detector, "parcellate", nothing)
    scan = phantom_scan(head)
    plain = own.detect(scan, quality=Quality(1), force=True).landmarks
    other = own.detect(scan, quality=Quality(1, parcellation=True), force=True).landmarks
    assert np.array_equal(other.points, plain.points, equal_nan=True)
    assert set(np.array(other.notes)[~other.missing]) == {fusion.HEATMAP}


def test_a_model_without_the_network_parcellates_nothing(model):
    spec = replace(model.spec, parcellation=None)
    own = Detector(replace(model, spec=spec, parcellation=None), "cpu")
    scan = phantom_scan(phantom_head())
    result = own.detect(scan, quality="standard", force=True)
    assert result.parcellation is None
    assert not any(result.landmarks.notes) or set(result.sources) == {"fine"}
