"""Landmarks of scans from segmentations: consensus of methods, eyes on the image, the command."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom import phantom_head, phantom_scan
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.annotation.consensus import AGREE_MM, Shifts, consensus
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.cli.dataset.annotate import _heads
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.pairing import find_annotations, image_of_same_head
from BrainLandmarksLib.network.model_files import load_model
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

PROTOCOL = load_protocol("brain88")
MEAN = load_model("brain88").spec.mean_shape
EYES = np.array([landmark.group == "Eye" for landmark in PROTOCOL])
FREE = [k for k, landmark in enumerate(PROTOCOL) if landmark.label in ("TP_L", "TP_R", "PONS_A")]


def truth(points):
    return LandmarkSet.from_points(PROTOCOL, points, "truth")


def test_methods_that_agree_give_their_mean():
    near = MEAN + [1.0, 0, 0]
    agreed = consensus([truth(MEAN), truth(near)])
    assert not agreed.missing.any()
    assert np.allclose(agreed.points[FREE], (MEAN + near)[FREE] / 2)
    assert set(agreed.status) == {"truth"}


def test_methods_that_differ_give_nothing_and_say_so():
    other = MEAN.copy()
    other[FREE[0]] += [0, AGREE_MM + 0.5, 0]
    other[FREE[1]] += [0, AGREE_MM - 0.5, 0]
    agreed = consensus([truth(MEAN), truth(other)])
    assert list(np.flatnonzero(agreed.missing)) == [FREE[0]]
    assert "differ by 4.5 mm" in agreed.notes[FREE[0]]


def test_what_one_method_lacks_the_other_tells():
    lacking = MEAN.copy()
    lacking[FREE] = np.nan
    agreed = consensus([truth(lacking), truth(MEAN)])
    assert np.allclose(agreed.points[FREE], MEAN[FREE])
    assert consensus([truth(lacking)]).missing[FREE].all()
    with pytest.raises(ValueError, match="one protocol"):
        consensus([])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_what_a_method_is_usually_off_is_learnt_and_taken_off(seed):
    """In any pose of the head, and although every head differs."""
    rng = np.random.default_rng(seed)
    offset = rng.uniform(-1.2, 1.2, MEAN.shape)
    offset[FREE[0]] = [3.0, 0, 0]

    def one_head():
        exact = MEAN + rng.normal(0, 2.0, MEAN.shape)
        turn = Rotation.random(random_state=rng).as_matrix()
        place = rng.uniform(-30, 30, 3)
        return truth((exact - offset) @ turn.T + place), truth(exact @ turn.T + place)

    shifts = Shifts.learn(MEAN, [one_head() for _ in range(20)])
    given_set, exact = one_head()
    corrected = shifts.corrected(given_set)
    # The methods mean different places: neither is believed.
    assert list(np.flatnonzero(corrected.missing)) == [FREE[0]]
    rest = ~corrected.missing
    before = np.linalg.norm((given_set.points - exact.points)[rest], axis=1).mean()
    after = np.linalg.norm((corrected.points - exact.points)[rest], axis=1).mean()
    assert after < 0.35 * before


def test_a_few_heads_teach_no_shift():
    moved = [(truth(MEAN - [1.0, 0, 0]), truth(MEAN))] * 3
    assert not Shifts.learn(MEAN, moved).offsets.any()


def save(path, volume):
    nib.save(nib.Nifti1Image(volume.data.astype(np.float32), volume.grid.affine), path)


# The command --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Scans, and label maps of them by two methods, of which one is missing for the second scan."""
    root = tmp_path_factory.mktemp("segmented")
    fine = phantom_head()
    affine = fine.grid.affine.copy()
    affine[:3, :3] *= 2
    labels = Volume(fine.data[::2, ::2, ::2], Grid(fine.data[::2, ::2, ::2].shape, affine))
    for name in ("scans", "one", "two"):
        (root / name).mkdir()
    scan = phantom_scan(fine)
    for head in ("a", "b", "lone"):
        save(root / "scans" / f"{head}.nii.gz", scan)
    save(root / "one" / "a.nii.gz", labels)
    save(root / "two" / "a_dseg.nii.gz", labels)
    save(root / "two" / "b_dseg.nii.gz", labels)
    return root


def test_a_label_map_belongs_to_the_scan_whose_name_it_begins_with(tmp_path):
    scan = tmp_path / "sub-01_T1w.nii.gz"
    maps = [tmp_path / name for name in ("sub-01_dseg.nii.gz", "sub-011_dseg.nii.gz")]
    assert image_of_same_head(scan, maps) == maps[0]
    assert image_of_same_head(tmp_path / "head.nii", maps) is None
    with pytest.raises(UserError, match="could be of"):
        image_of_same_head(scan, [*maps, tmp_path / "sub-01_desc-aseg_dseg.nii.gz"])


def test_the_command_writes_landmarks_and_a_row_for_every_scan(folders, tmp_path, capsys):
    (folders / "two" / "broken_dseg.nii.gz").write_bytes(b"no image")
    (folders / "scans" / "broken.nii.gz").write_bytes(b"neither")
    output = tmp_path / "points"
    command = ["dataset", "annotate", str(folders / "scans"), "--maps", str(folders / "one"),
               f"freesurfer={folders / 'two'}", "-o", str(output), "--pictures"]  # fmt: skip
    assert main(command) == 2
    said = capsys.readouterr()
    assert "annotated 2, left out 1" in said.out
    assert "scans without a label map: 1 (lone.nii.gz)" in said.out
    with (output / "annotated.tsv").open(encoding="utf-8", newline="") as file:
        rows = {row["head"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert rows["a"]["methods"] == "one, two"
    assert rows["b"]["methods"] == "two"
    assert rows["broken"]["result"] == "left out"
    assert "two:" in rows["broken"]["problems"]
    assert sorted(p.name for p in output.iterdir()) == [
        "a.mrk.json", "a.png", "annotated.tsv", "b.mrk.json", "b.png",
    ]  # fmt: skip
    assert list(find_annotations(output)) == ["a", "b"]
    both, single = (read_landmarks(output / f"{n}.mrk.json", PROTOCOL) for n in "ab")
    assert (~both.missing & ~EYES).sum() > 60
    known = ~both.missing & ~single.missing
    # The maps are the same: so are the points.
    assert np.allclose(both.points[known], single.points[known], atol=1e-3)
    assert int(rows["a"]["placed"]) == (~both.missing).sum()


def test_label_maps_among_the_scans_are_no_scans(tmp_path, monkeypatch):
    for name in ("a.nii.gz", "gif/a.nii.gz", "deep/b.nii.gz", "gif/deep/b_dseg.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    heads, alone = _heads(Path("."), {"gif": Path("deep/../gif")})
    assert [(head.name, head.image, head.maps) for head in heads] == [
        ("a", Path("a.nii.gz"), {"gif": Path("deep/../gif/a.nii.gz")}),
        ("b", Path("deep/b.nii.gz"), {"gif": Path("deep/../gif/deep/b_dseg.nii.gz")}),
    ]
    assert alone == []
    with pytest.raises(UserError, match="holds label maps only"):
        _heads(tmp_path / "gif", {"gif": tmp_path / "gif"})
    (tmp_path / "deep" / "a.nii").touch()
    with pytest.raises(UserError, match=r"a\.nii\.gz and deep.a\.nii have one name"):
        _heads(tmp_path, {"gif": tmp_path / "gif"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--maps", "nowhere"], "is not a folder"),
        (["--maps", "one", "two/../one"], "two folders of label maps are called one"),
        (["--maps", "nonsense=one"], "nonsense"),
    ],
)
def test_a_wrong_folder_or_scheme_is_reported_and_nothing_is_made(
    folders, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(folders)
    output = tmp_path / "points"
    assert main(["dataset", "annotate", "scans", *arguments, "-o", str(output)]) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()
