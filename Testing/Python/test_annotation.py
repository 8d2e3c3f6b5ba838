"""Ground truth by rule, on a head made of simple shapes and, where there are any, on label maps.

The label maps are not part of the repository. They are looked for in the folder that
``BRAINLANDMARKS_LABEL_MAPS`` names, or in ``shared/data/labelmaps`` beside the checkout; without
them only the made-up head is tested.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from phantom import phantom_head
from scipy import ndimage

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.annotation.anatomy import Anatomy
from BrainLandmarksLib.annotation.labelmap import LabelMap
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.protocol import load_protocol

PROTOCOL = load_protocol("brain88")
SIDED = {2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53,
         18: 54, 25: 57, 26: 58, 28: 60, 30: 62, 136: 163, 137: 164}  # fmt: skip


def mirrored(volume):
    """The same head seen in a mirror: anatomy and label sides swapped."""
    lookup = np.arange(int(volume.data.max()) + 200)
    for left, right in SIDED.items():
        lookup[left], lookup[right] = right, left
    data = lookup[volume.data[::-1].astype(int)].astype(np.float32)
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.ijk_to_ras([0, 0, 0])
    return Volume(data, Grid(volume.grid.shape, affine))


def unmirrored(points, volume):
    ijk = volume.grid.ras_to_ijk(points)
    ijk[:, 0] = volume.data.shape[0] - 1 - ijk[:, 0]
    return volume.grid.ijk_to_ras(ijk)[PROTOCOL.mirror_permutation()]


def turned(volume, degrees, shift_mm):
    """The head moved rigidly under an unmoved grid, and the map back for points."""
    angles = np.deg2rad(degrees)
    c, s = np.cos(angles), np.sin(angles)
    rotation = (
        np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
        @ np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
        @ np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    )
    centre = (np.array(volume.data.shape) - 1) / 2
    shift = np.array(shift_mm) / volume.grid.spacing
    data = ndimage.affine_transform(
        volume.data, rotation.T, centre - rotation.T @ (centre + shift), order=0
    )

    def back(points):
        ijk = volume.grid.ras_to_ijk(points)
        return volume.grid.ijk_to_ras((ijk - centre - shift) @ rotation + centre)

    return Volume(data, volume.grid), back


def label_map_files():
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "labelmaps"
    folder = Path(os.environ.get("BRAINLANDMARKS_LABEL_MAPS", beside))
    return sorted(folder.glob("*.nii.gz"))


MAPS = label_map_files()
THREE = MAPS[1:2] + MAPS[7:8] + MAPS[15:16]


def heads(paths):
    return [pytest.param(None, id="phantom")] + [pytest.param(p, id=p.name[:15]) for p in paths]


def volume_of(path):
    return phantom_head() if path is None else read_image(path)


def check_invariants(volume):
    """The invariants that every ground truth satisfies."""
    landmarks = annotate(volume)
    anatomy = Anatomy(LabelMap(volume))
    head = anatomy.frame.to_head(landmarks.points)
    assert [len(PROTOCOL.members(g)) for g in PROTOCOL.groups] == [5, 8, 11, 13, 8, 10, 33]
    known = ~landmarks.missing
    for row, landmark in enumerate(PROTOCOL.landmarks):
        if known[row] and landmark.side in "LR":
            assert (head[row, 0] < 0) == (landmark.side == "L"), landmark.label
        if known[row] and landmark.side == "M":
            assert abs(head[row, 0]) < 0.5, landmark.label
    ring = head[45:55]
    assert np.ptp(ring[~np.isnan(ring[:, 0]), 2]) < 0.5
    check_equal_spacing(anatomy, landmarks)
    return landmarks


def check_equal_spacing(anatomy, landmarks):
    """Neighbouring arc lengths along each chain vary by less than 2 %, measured on the outline."""
    from BrainLandmarksLib.annotation.outline import length, nearest
    from BrainLandmarksLib.annotation.rules.brain_boundary import midline_contour

    contour = midline_contour(anatomy)
    msp = anatomy.msp
    flat = (landmarks.points[13:24] - msp.origin) @ np.stack([msp.axis_u, msp.axis_v], 1)
    at = [nearest(contour, p) for p in flat]
    assert max(np.linalg.norm(foot - p) for (foot, _), p in zip(at, flat)) < 1.0
    total = length(contour)
    steps = np.diff([s for _, s in at]) % total
    steps = np.minimum(steps, total - steps)
    assert steps.std() / steps.mean() < 0.02


@pytest.mark.parametrize("path", heads(THREE))
def test_invariants(path):
    landmarks = check_invariants(volume_of(path))
    assert landmarks.missing.sum() <= (0 if path is None else 20)


@pytest.mark.slow
@pytest.mark.parametrize("path", heads(MAPS))
def test_invariants_on_every_map(path):
    volume = volume_of(path)
    check_mirror(volume)
    check_rigid(volume)
    check_invariants(volume)


def check_mirror(volume):
    straight = annotate(volume).points
    seen = unmirrored(annotate(mirrored(volume)).points, volume)
    error = np.linalg.norm(seen - straight, axis=1)
    assert np.nanmax(error) < 1.0
    assert np.array_equal(np.isnan(seen), np.isnan(straight))


def check_rigid(volume):
    straight = annotate(volume).points
    moved, back = turned(volume, (9.0, -7.0, 11.0), (3.3, -2.6, 4.4))
    error = np.linalg.norm(back(annotate(moved).points) - straight, axis=1)
    # Nearest-neighbour resampling of the map alone moves a boundary by up to 0.9 mm.
    assert np.nanmean(error) < 0.5
    assert np.nanquantile(error, 0.95) < 1.0


@pytest.mark.parametrize("path", heads(THREE[:1]))
def test_mirroring_swaps_left_and_right(path):
    check_mirror(volume_of(path))


@pytest.mark.parametrize("path", heads(THREE[:1]))
def test_a_rigid_motion_moves_every_landmark(path):
    check_rigid(volume_of(path))


def test_absent_anatomy_is_missing_not_guessed():
    volume = phantom_head()
    whole = annotate(volume)
    for labels, prefix in (((506,), "EYE_"), ((17,), "HIP_H_L"), ((15,), "OBEX")):
        data = volume.data.copy()
        data[np.isin(data, labels)] = 24
        landmarks = annotate(Volume(data, volume.grid))
        rows = [row for row, label in enumerate(PROTOCOL.labels) if label.startswith(prefix)]
        assert rows
        assert not whole.missing[rows].any()
        assert landmarks.missing[rows].all(), prefix


def test_a_cut_brain_stem_has_no_lower_points():
    volume = phantom_head()
    data = volume.data.copy()
    level = int(volume.grid.ras_to_ijk([0, 0, -45.0])[2])
    data[:, :, :level] = 0
    landmarks = annotate(Volume(data, volume.grid))
    missing = {label for label, gone in zip(PROTOCOL.labels, landmarks.missing) if gone}
    assert "CMJ_A" in missing
    assert "PONS_A" not in missing


def test_an_image_is_refused():
    rng = np.random.default_rng(0)
    grid = Grid((60, 60, 60), np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(UserError, match="not a label map"):
        annotate(Volume(rng.random((60, 60, 60), np.float32), grid))
    with pytest.raises(UserError, match="hemisphere"):
        annotate(Volume(np.full((60, 60, 60), 16, np.float32), grid))


@pytest.mark.parametrize("opening", [60.0, 90.0, 130.0])
@pytest.mark.parametrize("turn", [-20.0, 0.0, 35.0])
def test_a_rounded_notch_is_read_as_the_corner_that_it_was(opening, turn):
    """The outline of a smoothed wedge ends before its corner; nothing is invented on a straight."""
    stem = importlib.import_module("BrainLandmarksLib.annotation.rules.brain_stem")
    t = np.linspace(-15.0, 15.0, 601)
    half = np.deg2rad(opening / 2)
    # A hyperbola is a wedge with a rounded corner; its asymptotes meet in the origin.
    away = np.sqrt(t**2 + 1.0)
    wedge = np.stack([away * np.cos(half), t * np.sin(half)], 1)
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    curve = wedge @ rotation.T + [-14.0, -16.0]
    bottom = curve[300]
    corner = stem._corner(curve, bottom)
    before, after = (np.linalg.norm(p - [-14.0, -16.0]) for p in (bottom, corner))
    assert after < 0.35 * before
    straight = np.stack([np.zeros(601), t], 1)
    assert np.array_equal(stem._corner(straight, straight[300]), straight[300])


@pytest.mark.parametrize(
    ("second", "apart", "told"),
    [
        (0.5, 12.0, True),
        (0.8, 12.0, True),
        (0.95, 12.0, False),
        (1.0, 8.0, False),
        (0.95, 2.5, True),
    ],
)
def test_of_two_notches_as_deep_neither_is_chosen(second, apart, told):
    """Which of them is the deeper one would change with a voxel, and the point jump with it."""
    stem = importlib.import_module("BrainLandmarksLib.annotation.rules.brain_stem")
    z = np.linspace(0.0, -35.0, 701)

    def dent(at, depth):
        return -depth * np.exp(-(((z - at) / 1.5) ** 2))

    curve = np.stack([dent(-10.0, 3.0) + dent(-10.0 - apart, 3.0 * second), z], 1)
    found = stem._deepest(curve, None)
    assert (found is not None) == told
    if told:
        assert abs(found[1] + 10.0) < 1.5
