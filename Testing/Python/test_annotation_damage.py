"""Label maps that are damaged, cut or nonsense: missing points or a sentence, never a traceback."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from phantom import coarse_phantom_head, phantom_head

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.annotation.labelmap import HEMISPHERE, HIPPOCAMPUS, LabelMap
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import load_protocol

LABELS = load_protocol("brain88").labels


@functools.cache
def head():
    """The phantom with 3 mm voxels, in the library's numbers."""
    return LabelMap(coarse_phantom_head(), "freesurfer")


def placed(labels, affine=None):
    """Points of a label array by label, without the missing ones."""
    affine = head().grid.affine if affine is None else affine
    volume = Volume(labels.astype(np.float32), Grid(labels.shape, affine))
    landmarks = annotate(volume, "freesurfer")
    assert np.array_equal(np.isfinite(landmarks.points).all(1), ~landmarks.missing)
    return {
        label: point
        for label, point, absent in zip(LABELS, landmarks.points, landmarks.missing)
        if not absent
    }


@functools.cache
def whole():
    return placed(head().labels)


def without(*gone):
    return np.where(np.isin(head().labels, gone), 0, head().labels)


def kept(labels, axis, low, high):
    """The labels between two voxels along an axis; nothing elsewhere."""
    out = np.zeros_like(labels)
    between = tuple(slice(low, high) if k == axis else slice(None) for k in range(3))
    out[between] = labels[between]
    return out


def damaged(seed):
    """A label array with one of the faults that segmentations have, or several."""
    rng = np.random.default_rng(seed)
    labels = head().labels.copy()
    structures = [n for n in head().present if n]
    for _ in range(rng.integers(1, 3)):
        axis = int(rng.integers(3))
        size = labels.shape[axis]
        some = rng.choice(structures, 2, replace=False)
        inside = np.isin(labels, some)
        fault = rng.integers(9)
        if fault == 0:
            labels[inside] = 0
        elif fault == 1:
            labels = np.where(np.isin(labels, rng.choice(structures, 12)), 0, labels)
        elif fault == 2:
            low, high = sorted(rng.integers(0, size + 1, 2))
            labels = kept(labels, axis, low, high)
        elif fault == 3:
            hit = rng.random(labels.shape) < rng.uniform(0, 0.5)
            labels[hit] = rng.choice([0, *structures], int(hit.sum()))
        elif fault == 4:
            labels[rng.random(labels.shape) > rng.choice([0.001, 0.02, 0.5])] = 0
        elif fault == 5:
            places = np.argwhere(inside)
            labels[inside] = 0
            if len(places):
                labels[tuple(places[rng.integers(len(places))])] = some[0]
        elif fault == 6:
            labels[np.roll(inside, rng.integers(-8, 9, 3), (0, 1, 2))] = some[0]
        elif fault == 7:
            labels[inside] = np.where(labels[inside] == some[0], some[1], some[0])
        else:
            start = rng.integers(0, size)
            part = slice(start, start + rng.integers(1, size + 1))
            labels = labels[tuple(part if k == axis else slice(None) for k in range(3))]
    return np.ascontiguousarray(labels)


def check_outcome(labels):
    """Points, or one sentence."""
    sentence = "."
    try:
        placed(labels)
    except UserError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(4))
def test_damage_gives_points_or_a_sentence(seed):
    check_outcome(damaged(seed))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(4, 204))
def test_any_damage_gives_points_or_a_sentence(seed):
    check_outcome(damaged(seed))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("gone", sorted(head.__wrapped__().present - {0}))
def test_every_structure_may_be_gone(gone):
    """And no point that is still placed is far from where it was."""
    points = placed(without(gone))
    for label, point in points.items():
        assert np.linalg.norm(point - whole()[label]) < 6.0, label


def test_tiny_and_empty_maps_give_a_sentence():
    for labels in (np.zeros((1, 1, 1)), np.zeros((9, 9, 9)), head().labels[28:30, 40:42, 40:42]):
        with pytest.raises(UserError, match="hemisphere"):
            placed(labels)


def test_hippocampi_in_crumbs_leave_the_rest():
    """Once ended in ``matmul: Input operand 0 does not have enough dimensions``."""
    labels = without(*HIPPOCAMPUS["L"], *HIPPOCAMPUS["R"])
    labels[20, 40, 35], labels[37, 40, 35] = 17, 53
    gone = {label for label in whole() if label.startswith(("HIP_", "TOH_", "TOB_", "BSP_"))}
    assert placed(labels).keys() == whole().keys() - gone


def test_a_hemisphere_without_cortex_has_no_outline():
    points = placed(without(42))
    outline = {"FP_R", "GR_R", "TP_R"} | {
        label for label in LABELS if label.startswith(("AX_", "TOH_", "TOB_")) and "_L" not in label
    }
    assert not points.keys() & outline
    assert points.keys() >= {"FP_L", "GR_L", "TP_L", "TOH_L_L", "HIP_H_R", "CC_G", "PMN"}


def test_a_fourth_ventricle_that_breaks_off_has_no_obex():
    """Its lowest part that is left ends above the pontomedullary notch, where no obex is."""
    z = head().grid.ijk_to_ras(np.moveaxis(np.indices(head().labels.shape), 0, -1))[..., 2]
    labels = np.where((head().labels == 15) & (z < -34), 16, head().labels)
    assert placed(labels).keys() == whole().keys() - {"OBEX"}


@pytest.mark.parametrize("cropped", [False, True], ids=["emptied", "cropped"])
def test_outlines_that_run_into_a_cut_give_no_points(cropped):
    middle = int(head().grid.ras_to_ijk([0.0, 10.0, 0.0])[1])
    labels = kept(head().labels, 1, 0, middle)
    points = placed(labels[:, :middle] if cropped else labels)
    cut = {"CC_G", "CC_U1", "CC_L2", "BB_3", "BB_F", "FP_L", "FB_M", "GR_R", "AX_1_L", "AX_3_R"}
    assert not points.keys() & cut
    for label in ("HIP_T_L", "HIP_T_R", "PONS_A", "OBEX", "MB_T"):
        assert np.linalg.norm(points[label] - whole()[label]) < 3.0, label


def test_a_map_that_is_cropped_to_the_brain_is_not_cut():
    labels = np.where(np.isin(head().labels, (24, 506, 512)), 0, head().labels)
    filled = np.argwhere(labels)
    low, high = filled.min(0), filled.max(0) + 1
    affine = head().grid.affine.copy()
    affine[:3, 3] = head().grid.ijk_to_ras(low.astype(float))
    tight = labels[tuple(slice(a, b) for a, b in zip(low, high))]
    points, same = placed(tight, affine), placed(labels)
    assert points.keys() == same.keys()
    for label, point in points.items():
        assert np.linalg.norm(point - same[label]) < 1.0, label


def with_class_of_callosum(crowded):
    """Callosal points of the phantom with their own class and, maybe, a thick fornix beside it."""
    labels = head().labels.copy()
    ijk = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(head().grid.ijk_to_ras(ijk.astype(float)), -1, 0)
    midline = (np.abs(x) < 5) & (np.abs(y) < 45)
    callosum = midline & np.isin(labels, (2, 41))
    if crowded:
        fornix = midline & (np.abs(y + 2) < 28) & (np.abs(z - 8) < 14) & ~callosum
        labels[fornix] = np.where(x < 0, 2, 41)[fornix]
    labels[callosum] = 251
    points = placed(labels)
    return np.array([points[label] for label in LABELS if label.startswith("CC_")])


def test_the_callosum_is_its_own_class_where_there_is_one():
    """White matter that crosses the midline beside it does not count."""
    clean, crowded = with_class_of_callosum(False), with_class_of_callosum(True)
    assert np.abs(clean - crowded).max() < 0.2
    white = np.array([whole()[label] for label in LABELS if label.startswith("CC_")])
    assert np.linalg.norm(clean - white, axis=1).max() < 3.0


def test_fields_follow_the_size_of_the_voxels():
    """The midline of a symmetric head is found in coarse voxels as well."""
    frames = [LabelMap(phantom_head(), "freesurfer"), head()]
    for side in "LR":
        fine, coarse = (frame.field(HEMISPHERE[side]).centre() for frame in frames)
        assert np.linalg.norm(fine - coarse) < 1.0
    assert max(abs(whole()[label][0]) for label in ("CC_G", "PMN", "BB_5")) < 1.5
