"""Augmentation: policies in proportion, TorchIO's transforms, and samples made again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.augmentation import (
    AugmentationConfig,
    AugmentWithLandmarks,
    Record,
    config,
    load_augmentation,
    regenerate,
)
from BrainLandmarksTrainLib.augmentation import transform as member
from BrainLandmarksTrainLib.augmentation.config import Policy, augmentation_from_dict
from BrainLandmarksTrainLib.augmentation.contact_sheet import SheetRow, draw_contact_sheet
from BrainLandmarksTrainLib.augmentation.policies import allocate, choose

PATIENT = {"elastic", "affine", "anisotropy"}
MACHINE = {"ghosting", "spikes", "bias_field", "noise", "motion", "blur"}


def small_head(origin=(0.0, 0.0, 0.0)) -> Volume:
    """A lopsided ball in air, 40 x 44 x 36 voxels of 4 mm."""
    shape = (40, 44, 36)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = origin
    x, y, z = np.indices(shape) - np.array([19, 21, 18])[:, None, None, None]
    ball = (x / 15) ** 2 + (y / 17) ** 2 + (z / 14) ** 2 < 1
    texture = 1 + 0.3 * np.sin(x / 2) * np.cos(y / 3) + 0.2 * (z > 3)
    return Volume((100 * ball * texture).astype(np.float32), Grid(shape, affine))


def five(protocol, volume: Volume) -> LandmarkSet:
    ijk = [[10, 20, 18], [28, 20, 18], [19, 33, 18], [19, 10, 25], [19, 20, 8.5]]
    return LandmarkSet.from_points(protocol, volume.grid.ijk_to_ras(ijk), "truth")


def only(*names: str, **changes) -> AugmentationConfig:
    return AugmentationConfig(policies={"one": Policy(1.0, names)}, **changes)


# Policies -----------------------------------------------------------------------------------------


def test_a_hundred_scans_get_the_paper_s_numbers():
    policies = allocate(AugmentationConfig(), 100, np.random.default_rng(3))
    assert Counter(policies) == {"DA1": 20, "DA2": 25, "DA3": 25, "DA4": 30}
    assert policies != sorted(policies)


@given(
    weights=st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any),
    count=st.integers(0, 500),
)
def test_an_allocation_is_never_more_than_one_off(weights, count):
    total = sum(weights)
    policies = {f"P{n}": Policy(w / total, ("blur",)) for n, w in enumerate(weights)}
    given_out = Counter(
        allocate(AugmentationConfig(policies=policies), count, np.random.default_rng(0))
    )
    assert given_out.total() == count
    for name, policy in policies.items():
        assert abs(given_out[name] - policy.probability * count) < 1
        assert policy.probability > 0 or given_out[name] == 0


def test_by_chance_the_policies_come_by_their_probability():
    rng = np.random.default_rng(5)
    drawn = Counter(choose(AugmentationConfig(), rng) for _ in range(2000))
    for name, share in (("DA1", 0.2), ("DA2", 0.25), ("DA3", 0.25), ("DA4", 0.3)):
        assert drawn[name] / 2000 == pytest.approx(share, abs=0.04)


def test_each_policy_takes_from_its_sides(tiny_protocol):
    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    augment = AugmentWithLandmarks()
    # DA5 needs a brain; test_abnormal has one.
    seen = {name: set() for name in augment.config.policies if name != "DA5"}
    for seed in range(8):
        for policy, kinds in seen.items():
            record = augment(volume, landmarks, seed, policy).record
            assert record.policy == policy
            kinds.add(tuple(step.transform for step in record.steps))
    assert all(len(k) == 2 and k[0] in PATIENT and k[1] in MACHINE for k in seen["DA1"])
    assert all(len(k) == 1 and k[0] in MACHINE for k in seen["DA2"])
    assert all(len(k) == 1 and k[0] in PATIENT for k in seen["DA3"])
    assert seen["DA4"] == {("elastic",)}
    assert len(seen["DA2"]) > 2
    assert len(seen["DA3"]) > 1


# One sample ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PATIENT | MACHINE))
def test_a_sample_is_made_again_from_its_record_and_from_its_seed(name, tiny_protocol):
    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    augment = AugmentWithLandmarks(only(name))
    first = augment(volume, landmarks, seed=11)
    record = Record.from_dict(json.loads(json.dumps(first.record.to_dict())))
    assert record == first.record
    for again in (regenerate(record, volume, landmarks), augment(volume, landmarks, seed=11)):
        assert np.array_equal(again.volume.data, first.volume.data)
        assert np.array_equal(again.landmarks.points, first.landmarks.points, equal_nan=True)
        assert again.record == first.record
    other = augment(volume, landmarks, seed=12)
    assert not np.array_equal(other.volume.data, first.volume.data)
    assert not np.array_equal(volume.data, first.volume.data)
    assert np.array_equal(volume.data, small_head().data), "the scan itself stays as it is"
    assert first.volume.grid is volume.grid


def test_naming_the_policy_gives_what_choosing_it_gave(tiny_protocol):
    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    augment = AugmentWithLandmarks()
    chosen = augment(volume, landmarks, seed=4)
    named = augment(volume, landmarks, seed=4, policy=chosen.record.policy)
    assert named.record == chosen.record


@pytest.mark.parametrize("name", sorted(PATIENT | MACHINE))
def test_nothing_depends_on_where_the_world_begins(name, tiny_protocol):
    # TorchIO's motion turns about the world's origin: 700 mm away it would throw the head out.
    near, far = small_head(), small_head(origin=(512.0, -256.0, 1024.0))
    augment = AugmentWithLandmarks(only(name))
    a = augment(near, five(tiny_protocol, near), seed=2)
    b = augment(far, five(tiny_protocol, far), seed=2)
    np.testing.assert_array_equal(a.volume.data, b.volume.data)
    np.testing.assert_allclose(
        b.landmarks.points - a.landmarks.points, np.tile([512, -256, 1024], (5, 1)), atol=1e-9
    )


@pytest.mark.parametrize("name", sorted(MACHINE | {"anisotropy"}))
def test_the_machine_and_thick_slices_leave_landmarks_alone(name, tiny_protocol):
    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    varied = AugmentWithLandmarks(only(name))(volume, landmarks, seed=1)
    np.testing.assert_allclose(varied.landmarks.points, landmarks.points, atol=1e-9)
    assert varied.landmarks.status == landmarks.status


@pytest.mark.parametrize("seed", range(4))
def test_a_head_that_moves_appears_in_its_reference_pose(seed, tiny_protocol):
    volume = small_head()
    varied = AugmentWithLandmarks(only("motion"))(volume, five(tiny_protocol, volume), seed)
    poses = varied.record.steps[0].parameters
    assert np.abs(np.array(poses["times"]) - 0.5).min() >= 0.05
    # The correlation of the two pictures is highest where neither is shifted.
    spectra = [np.fft.fftn(v.data - v.data.mean()) for v in (volume, varied.volume)]
    correlation = np.fft.ifftn(spectra[0] * spectra[1].conj()).real
    assert np.unravel_index(correlation.argmax(), correlation.shape) == (0, 0, 0)


def test_noise_is_a_share_of_the_bright_tissue(tiny_protocol):
    from BrainLandmarksLib.imaging.intensity import foreground_percentile

    config_ = only("noise", noise=replace(AugmentationConfig().noise, level=(0.1, 0.1)))
    for scale in (1.0, 1000.0):
        volume = Volume(small_head().data * np.float32(scale), small_head().grid)
        varied = AugmentWithLandmarks(config_)(volume, five(tiny_protocol, volume), seed=1)
        noise = (varied.volume.data - volume.data).std()
        assert noise == pytest.approx(0.1 * foreground_percentile(volume.data.ravel()), rel=0.02)


def test_landmarks_that_leave_the_image_are_missing_and_named(tiny_protocol):
    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    affine = replace(
        AugmentationConfig().affine,
        scale=(1.0, 1.0), rotation_deg=(0.0, 0.0), translation_mm=(60.0, 60.0),
    )  # fmt: skip
    varied = AugmentWithLandmarks(only("affine", affine=affine))(volume, landmarks, seed=1)
    inside = volume.grid.contains(landmarks.points + 60)
    assert 0 < inside.sum() < 5
    np.testing.assert_array_equal(varied.landmarks.missing, ~inside)
    labels = [landmark.label for landmark in tiny_protocol]
    assert varied.record.outside == tuple(label for label, i in zip(labels, inside) if not i)
    # One that was missing stays missing, and is not said to have left.
    landmarks = LandmarkSet.from_points(
        tiny_protocol, np.where(np.arange(5)[:, None] == 1, np.nan, landmarks.points)
    )
    varied = AugmentWithLandmarks(only("affine", affine=affine))(volume, landmarks, seed=1)
    assert varied.landmarks.missing[1]
    assert labels[1] not in varied.record.outside


def test_ranges_that_make_no_sense_for_an_image_are_one_sentence(tiny_protocol):
    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    defaults = AugmentationConfig()
    for name, changes, sentence in (
        ("elastic", {"max_displacement_mm": 20.0}, "use at most 14.5"),
        ("elastic", {"control_points": 4, "locked_borders": 2}, "must be above 4"),
        ("anisotropy", {"slice_mm": (1.0, 3.0)}, "raise it"),
    ):
        wrong = replace(getattr(defaults, name), **changes)
        augment = AugmentWithLandmarks(only(name, **{name: wrong}))
        with pytest.raises(UserError, match=sentence):
            augment(volume, landmarks, seed=0)


def test_without_torchio_one_sentence_says_what_to_install(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError("No module named 'torchio'", name="torchio")

    monkeypatch.setattr(member, "import_module", absent)
    with pytest.raises(UserError, match="pip install"):
        member.tio()


@pytest.mark.parametrize(
    ("change", "word"),
    [({"version": 2}, "newer"), ({"steps": [{"transform": "flip"}]}, "damaged"), ({}, "damaged")],
)
def test_a_record_that_cannot_be_read_is_refused(change, word):
    good = Record(1, "DA2", ()).to_dict()
    values = {**good, **change} if change else {}
    with pytest.raises(UserError, match=word):
        Record.from_dict(values)


# Settings -----------------------------------------------------------------------------------------


def test_the_published_defaults_are_in_step_with_the_code():
    defaults = json.loads(config.file(config.DEFAULTS_FILE).read_text(encoding="utf-8"))
    assert defaults == config.published_defaults(), "run: make docs"
    jsonschema.validate(defaults, config.augmentation_schema())
    assert load_augmentation(config.file(config.DEFAULTS_FILE)) == AugmentationConfig()


def test_a_yaml_file_changes_what_it_names(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "gentle.yaml"
    path.write_text(
        "affine:\n  rotation_deg: [-5, 5]\n"
        "policies:\n  turn: {probability: 1, apply: [affine, machine]}\n"
    )
    loaded = load_augmentation(path)
    assert loaded.affine == replace(AugmentationConfig().affine, rotation_deg=(-5.0, 5.0))
    assert loaded.policies == {"turn": Policy(1.0, ("affine", "machine"))}
    assert loaded.noise == AugmentationConfig().noise
    assert augmentation_from_dict(json.loads(json.dumps(loaded.to_dict()))) == loaded


@pytest.mark.parametrize(
    ("values", "sentence", "schema_sees_it"),
    [
        ({"afine": {}}, "unknown augmentation setting 'afine'; did you mean 'affine'", True),
        ({"affine": {"rotation": [0, 1]}}, "'affine.rotation'; did you mean 'rotation_deg'", True),
        ({"affine": {"scale": [0.1, 1]}}, "'affine.scale' must be between 0.2 and 5", True),
        ({"affine": {"scale": [1.1, 0.9]}}, "'affine.scale' must give the lower value", False),
        ({"affine": {"scale": 1.1}}, "'affine.scale' must be 2 numbers", True),
        ({"affine": {"scale": [1, 1, 1]}}, "'affine.scale' must be 2 numbers", True),
        ({"affine": 3}, "'affine' must hold one value per name", True),
        ({"spikes": {"count": [1.5, 2]}}, "'spikes.count' must be 2 whole numbers", True),
        ({"spikes": {"intensity": [-1, 2]}}, "'spikes.intensity' must be at least 0", True),
        ({"noise": {"level": [0, float("nan")]}}, "'noise.level' must be finite", False),
        ({"elastic": {"control_points": "7"}}, "must be a whole number", True),
        ({"elastic": {"locked_borders": 3}}, "must be between 0 and 2", True),
        ({"machine": []}, "'machine' names no transform", False),
        ({"machine": "blur"}, "'machine' must be a list of text values", True),
        ({"machine": ["noize"]}, "'machine' names 'noize'; did you mean 'noise'", False),
        ({"policies": {}}, "'policies' must hold", True),
        ({"policies": {"a": {"probability": 1, "aply": []}}}, "did you mean 'apply'", True),
        ({"policies": {"a": {"apply": ["pacient"]}}}, "did you mean 'patient'", False),
        ({"policies": {"a": {"apply": []}}}, "names no step", False),
        ({"policies": {"a": {"apply": ["affine", "mass"]}}}, "put 'mass' first", False),
        ({"policies": {"a": {"apply": ["patient", "abnormal"]}}}, "put 'abnormal' first", False),
        ({"policies": {"a": {"probability": 2, "apply": ["blur"]}}}, "between 0 and 1", True),
        ({"policies": {"a": {"probability": 0.5, "apply": ["blur"]}}}, "add up to 0.5", False),
    ],
)
def test_wrong_settings_are_one_sentence(values, sentence, schema_sees_it):
    with pytest.raises(UserError) as caught:
        augmentation_from_dict(values)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    validator = jsonschema.Draft202012Validator(config.augmentation_schema())
    assert validator.is_valid(values) is not schema_sees_it


def test_the_contact_sheet_shows_every_row(tmp_path, tiny_protocol):
    from matplotlib.image import imread

    volume = small_head()
    landmarks = five(tiny_protocol, volume)
    rows = []
    for name in ("affine", "noise", "blur"):
        varied = AugmentWithLandmarks(only(name))(volume, landmarks, seed=1)
        rows.append(SheetRow.of(varied.record, varied.volume, varied.landmarks, "0001"))
    draw_contact_sheet(rows, tmp_path / "sheet.png", title="Three")
    draw_contact_sheet(rows[:1], tmp_path / "one.png")
    sheet, one = imread(tmp_path / "sheet.png"), imread(tmp_path / "one.png")
    assert sheet.shape[0] > one.shape[0]
    red = (sheet[..., 0] > 0.9) & (sheet[..., 1] < 0.4)
    # Two blocks of two rows; the last place is empty.
    half_y, half_x = sheet.shape[0] // 2, sheet.shape[1] // 2
    quarters = [red[:half_y, :half_x], red[half_y:, :half_x], red[:half_y, half_x:]]
    assert all(quarter.any() for quarter in quarters)
    assert not red[half_y + 20 :, half_x:].any()


def test_what_voxels_cannot_show_is_left_out():
    paper = AugmentationConfig()
    assert paper.at_voxels(3.25) is paper
    coarse = paper.at_voxels(8.0)
    assert coarse.patient == ("elastic", "affine")
    assert coarse.policies == paper.policies
    alone = AugmentationConfig(
        policies={"A": Policy(0.6, ("anisotropy",)), "B": Policy(0.4, ("noise", "anisotropy"))}
    )
    assert alone.at_voxels(8.0).policies == {"B": Policy(1.0, ("noise",))}
    thick = AugmentationConfig(
        patient=("anisotropy",), policies={"A": Policy(1.0, ("patient", "anisotropy"))}
    )
    assert thick.at_voxels(8.0) is None
    assert thick.at_voxels(1.0) is thick
