"""Anatomy that an image does not show is said to be absent, and nothing else is."""

import functools

import numpy as np
import pytest
from defacing import WAYS, deface, strip

from BrainLandmarksLib.annotation.eye_landmarks import globes_of, on_globes
from BrainLandmarksLib.detection.absent import NO_EYE, NO_TISSUE, OUTSIDE, reasons
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.network.model_files import load_model
from BrainLandmarksLib.resources import sample_head, sample_landmarks


@pytest.fixture(scope="module")
def head():
    return read_image(sample_head())


@pytest.fixture(scope="module")
def points(brain88):
    return read_landmarks(sample_landmarks("brain88"), brain88).points


@pytest.fixture(scope="module")
def pose(points):
    return rigid_fit(mean_shape(), points)


@pytest.fixture(scope="module")
def is_eye(brain88):
    return np.array([landmark.group == "Eye" for landmark in brain88])


@functools.cache
def mean_shape():
    return load_model("brain88").spec.mean_shape


def notes_of(protocol, head, points):
    globes = globes_of(protocol, head, points, mean_shape())
    return np.array(reasons(protocol, head, points, globes))


def test_an_intact_head_loses_nothing(brain88, head, points):
    rng = np.random.default_rng(4)
    assert not notes_of(brain88, head, points).any()
    for _ in range(3):  # as inexact as a network
        near = points + rng.normal(0, 2.0, points.shape)
        assert not notes_of(brain88, head, near).any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fill", [0.0, 120.0])
def test_a_defaced_head_loses_its_eyes_and_nothing_else(
    brain88, head, points, pose, is_eye, way, fill
):
    notes = notes_of(brain88, deface(head, pose, way, fill), points)
    assert set(notes[is_eye]) <= {NO_EYE, NO_TISSUE}
    assert not notes[~is_eye].any()


def test_a_stripped_head_loses_its_eyes_and_nothing_else(brain88, head, points, is_eye):
    notes = notes_of(brain88, strip(head, points[~is_eye]), points)
    assert set(notes[is_eye]) == {NO_EYE}
    assert not notes[~is_eye].any()


def test_one_eye_can_be_lost_alone(brain88, head, points, is_eye):
    x = apply_affine(head.grid.affine, np.moveaxis(np.indices(head.grid.shape), 0, -1))
    gone = (x[..., 0] < -10) & (x[..., 1] > 45) & (x[..., 2] < -10)
    half = Volume(np.where(gone, np.float32(0), head.data), head.grid)
    notes = notes_of(brain88, half, points)
    lost = [label for label, note in zip(brain88.labels, notes) if note]
    assert lost == [label for label in brain88.labels if label[:4] == "EYE_" and label[-1] == "L"]


def test_what_is_cut_away_is_absent(brain88, head, points):
    """The lower end of the head is cleared, as a box for the brain leaves it."""
    z = apply_affine(head.grid.affine, np.moveaxis(np.indices(head.grid.shape), 0, -1))[..., 2]
    height = float(points[:, 2].min()) + 25
    cut = Volume(np.where(z < height, np.float32(0), head.data), head.grid)
    notes = notes_of(brain88, cut, points)
    below = points[:, 2] < height - 9
    above = points[:, 2] > height + 3
    assert below.any()
    assert (notes[below & ~np.char.startswith(brain88.labels, "EYE")] == NO_TISSUE).all()
    assert not notes[above].any()


def test_points_outside_the_image_say_so(brain88, head, points):
    lost = points.copy()
    lost[[3, 40]] = np.nan
    notes = notes_of(brain88, head, lost)
    assert set(notes[[3, 40]]) == {OUTSIDE}
    assert (notes != "").sum() == 2
    assert reasons(brain88, head, np.full_like(points, np.nan)) == [OUTSIDE] * len(points)


def test_a_protocol_without_eyes_is_judged_by_tissue(tiny_protocol, blob_head):
    points = np.array([[0, 0, 0], [0, 90, 85], [20, 0, 0], [0, 0, np.nan], [-80, -90, -85.0]])
    assert globes_of(tiny_protocol, blob_head, points, points) == {}
    assert reasons(tiny_protocol, blob_head, points) == ["", NO_TISSUE, "", OUTSIDE, NO_TISSUE]


def test_points_beside_the_globes_are_put_on_them(brain88, head, points, is_eye):
    """As far off as a network is on real heads; the points by eye have an error of their own."""
    off = points + np.random.default_rng(2).normal(0, 2.0, points.shape)
    moved = on_globes(brain88, off, globes_of(brain88, head, off, mean_shape()))
    before, after = (np.linalg.norm(found - points, axis=1)[is_eye] for found in (off, moved))
    assert after.mean() < 1.5 < before.mean()
    assert (moved[~is_eye] == off[~is_eye]).all()
    assert (on_globes(brain88, off, {"L": None}) == off).all()


def test_globes_are_found_where_the_other_points_lead_to_expect_them(brain88, head, points, is_eye):
    """A label map has no eyes, but the brain's points tell where they must be."""
    brain = np.where(is_eye[:, None], np.nan, points)
    assert globes_of(brain88, head, brain, mean_shape()) == {}
    globes = globes_of(brain88, head, brain, mean_shape(), unguided=True)
    placed = on_globes(brain88, brain, globes)
    assert np.linalg.norm(placed - points, axis=1)[is_eye].mean() < 1.5
