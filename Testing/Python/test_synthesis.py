"""A demonstration set from label maps, and simulated raters."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from phantom import phantom_head

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.synthesis import rendering
from BrainLandmarksTrainLib.synthesis.label_maps import find_label_maps, read_annotated
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.simulated_rater import Rater, RaterErrors

PROTOCOL = load_protocol("brain88")
REPEATS = 40


@pytest.fixture(scope="module")
def label_map(tmp_path_factory):
    head = phantom_head()
    path = tmp_path_factory.mktemp("maps") / "head_A.nii.gz"
    nib.save(nib.Nifti1Image(head.data.astype(np.int16), head.grid.affine), path)
    return path


def test_a_head_and_two_raters(label_map, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rendering, "SCAN", Lattice((70, 80, 80), 3.0, 1))
    folder = tmp_path / "demo"
    command = ["dataset", "synthesize", "--label-maps", str(label_map), "-n", "1", "--workers", "1"]
    assert main([*command, "-o", str(folder), "--raters", "2", "--seed", "3"]) == 0
    assert "heads: 1, subjects: 1" in capsys.readouterr().out
    dataset = Dataset.open(folder)
    assert [e.subject for e in dataset.entries] == ["map01"]
    assert dataset.history[-1]["what"] == "synthesized"
    assert main(["dataset", "check", str(folder)]) == 0
    (first,) = dataset
    assert first.volume.grid.shape == (70, 80, 80)
    assert np.array_equal(first.volume.data, np.rint(first.volume.data))
    # The scan shows what the landmarks say: white matter is bright and air is not.
    at = np.rint(first.volume.grid.ras_to_ijk(first.review.current.points)).astype(int)
    values = [first.volume.data[tuple(p)] for p in at]
    assert np.median(values) > 5 * np.percentile(first.volume.data, 20)
    by_rule = first.review.current.points
    for name in "AB":
        marked = read_landmarks(folder / "raters" / name / "0001.mrk.json", PROTOCOL).points
        assert 1.0 < np.nanmedian(np.linalg.norm(marked - by_rule, axis=1)) < 5.0


def test_what_cannot_be_synthesized(label_map, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    maps = ["--label-maps", str(label_map)]
    for options, says in (
        ([*maps, "-n", "0", "-o", str(tmp_path / "out")], "one head at least"),
        ([*maps, "-n", "1", "-o", str(tmp_path / "full")], "not empty"),
        ([*maps, "-n", "1", "-o", str(tmp_path / "out"), "--workers", "-3"], "--workers must be"),
        ([*maps, "-n", "1", "-o", str(tmp_path / "out"), "--seed", "-3"], "--seed must be"),
        (["--label-maps", "no", "-n", "1", "-o", str(tmp_path / "out")], "no label map or folder"),
    ):
        assert main(["dataset", "synthesize", *options]) == 2
        assert says in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_label_maps_of_one_name_are_refused(label_map, tmp_path, capsys):
    """The second would be given the landmarks of the first."""
    paths = [tmp_path / subject / "mri" / "aseg.nii.gz" for subject in ("one", "two")]
    for path in paths:
        path.parent.mkdir(parents=True)
        shutil.copy(label_map, path)
    command = ["dataset", "synthesize", "-n", "2", "-o", str(tmp_path / "set"), "--label-maps"]
    assert main([*command, *map(str, paths)]) == 2
    assert "both called aseg" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    assert find_label_maps([paths[0], paths[0].parent]) == [paths[0]]


def test_an_annotation_is_not_taken_for_that_of_another_label_map(
    label_map, tmp_path, phantom_truth
):
    kept, other = tmp_path / "annotations", tmp_path / label_map.name
    (first,) = read_annotated([label_map], PROTOCOL, kept)
    corrected = phantom_truth.points + 1.0
    write_landmarks(
        kept / "head_A.mrk.json", LandmarkSet.from_points(PROTOCOL, corrected, "edited")
    )
    (again,) = read_annotated([label_map], PROTOCOL, kept)
    np.testing.assert_allclose(again.landmarks.points, first.landmarks.points + 1.0, atol=1e-2)
    image = nib.load(label_map)
    nib.save(nib.Nifti1Image(np.roll(image.get_fdata(), 2, 1), image.affine), other)
    with pytest.raises(UserError, match="of another label map"):
        read_annotated([other], PROTOCOL, kept)


def test_raters_err_as_they_are_asked_to(phantom_truth):
    truth = phantom_truth.points
    rng = np.random.default_rng(0)
    quiet = {"anatomy_mm": 0.0, "off_plane_mm": 0.0, "spacing": 0.0, "habit_mm": 0.0,
             "swapped": 0.0}  # fmt: skip

    def errors(**sizes):
        person = Rater.random(PROTOCOL, np.random.default_rng(7), RaterErrors(**{**quiet, **sizes}))
        return np.array([person.annotate(truth, rng) - truth for _ in range(REPEATS)])

    midline = [k for k, lm in enumerate(PROTOCOL.landmarks) if lm.plane == "mid-sagittal"]
    # The phantom's mid-sagittal plane is x = 0.
    off = errors(off_plane_mm=1.5)[:, midline]
    assert off[..., 0].std() == pytest.approx(1.5, rel=0.1)
    assert np.abs(off[..., 1:]).max() < 1e-6
    anatomy = errors(anatomy_mm=0.7)[:, midline]
    assert np.abs(anatomy[..., 0]).max() < 1e-6
    assert anatomy[..., 1:].std() == pytest.approx(0.7, rel=0.1)
    secondary = np.array([lm.role == "secondary" for lm in PROTOCOL.landmarks])
    along = np.linalg.norm(errors(spacing=0.15), axis=-1)
    assert along[:, ~secondary].max() < 1e-6
    assert along[:, secondary].mean() > 1.0
    habit = errors(habit_mm=0.5)
    np.testing.assert_allclose(habit, np.broadcast_to(habit[0], habit.shape))
    assert habit[0].std() > 0.2
    swapped = np.linalg.norm(errors(swapped=0.1), axis=-1) > 0
    pairs = sum(lm.side == "L" for lm in PROTOCOL.landmarks)
    assert swapped.sum() / 2 / REPEATS / pairs == pytest.approx(0.1, abs=0.02)


def test_missing_points_stay_missing(phantom_truth):
    truth = phantom_truth.points.copy()
    truth[[5, 20, 50]] = np.nan
    person = Rater.random(PROTOCOL, np.random.default_rng(1))
    marked = person.annotate(truth, np.random.default_rng(2))
    np.testing.assert_array_equal(np.isnan(marked), np.isnan(truth))
