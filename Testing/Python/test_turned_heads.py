"""A head whose left lies on the patient's right is refused wherever landmarks come in.

The usual reason is a file in LPS that is said to be in RAS. Exchanging the names would hide it: the
sides would be right, and every point tens of millimetres from where it belongs.
"""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import FORMATS, read_landmarks, write_landmarks
from BrainLandmarksLib.protocol import compliance, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review, write_review
from BrainLandmarksLib.review.batch_correction import apply_guidelines

PROTOCOL = load_protocol("brain88")
LPS = np.array([-1, -1, 1])
SAYS = "all left landmarks are on the patient's right"


@pytest.fixture(scope="module")
def truth():
    return read_landmarks(resources.sample_landmarks("brain88"), PROTOCOL).points


def image_of(path, seed=0):
    """An image that can be read."""
    data = np.random.default_rng(seed).integers(1, 200, (20, 20, 20)).astype(np.uint8)
    nib.save(nib.Nifti1Image(data, np.diag([10.0, 10, 10, 1])), path)
    return path


def file_of(path, points, status="truth"):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_landmarks(path, LandmarkSet.from_points(PROTOCOL, points, status))
    return path


def folder_of(path, points):
    """One person's landmarks of two heads, the second a little larger."""
    file_of(path / "0001.csv", points)
    file_of(path / "0002.csv", points * 1.02)
    return str(path)


def refused(arguments, capsys):
    """The one sentence that a command ends with."""
    assert main(arguments) == 2, arguments
    (line,) = capsys.readouterr().err.splitlines()
    assert SAYS in line
    return line


# The test itself ----------------------------------------------------------------------------------


def test_the_set_is_judged_as_a_whole(truth, tiny_protocol):
    assert compliance.turned_round(PROTOCOL, truth) == ""
    assert compliance.turned_round(PROTOCOL, truth * LPS).startswith(SAYS)
    row = {label: k for k, label in enumerate(PROTOCOL.labels)}
    mixed = truth * LPS
    mixed[[row["TP_L"], row["TP_R"]]] = mixed[[row["TP_R"], row["TP_L"]]]
    assert compliance.turned_round(PROTOCOL, mixed).startswith("most left landmarks")
    # No pair of it was swapped.
    assert compliance.swapped_sides(PROTOCOL, truth * LPS) == []
    some = np.where(np.arange(len(truth))[:, None] % 9 == 0, truth * LPS, np.nan)
    assert compliance.turned_share(PROTOCOL, some) in (0.0, 1.0)
    # Two pairs are too few to tell a swap of names.
    points = np.array([[9, 8, 0], [-9, 8, 0], [0, 0, 7], [6, -8, 1], [-6, -8, -4.0]])
    assert compliance.turned_round(tiny_protocol, points) == ""
    assert compliance.swapped_sides(tiny_protocol, points) == [("A_L", "A_R"), ("C_L", "C_R")]


@pytest.mark.parametrize("degrees", [0, 45, -60, 90, -90, 100, 140, -150, 180])
def test_a_head_that_looks_to_its_side_is_not_judged(truth, degrees):
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    says = compliance.turned_round(PROTOCOL, truth @ turn.T)
    assert bool(says) == (abs(degrees) > 120)


# Every door ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_no_reader_takes_it(tmp_path, truth, name):
    path = file_of(tmp_path / f"head.{name}", truth * LPS)
    for read in (read_landmarks, read_review):
        with pytest.raises(UserError, match=SAYS) as error:
            read(path, PROTOCOL)
        assert str(error.value).startswith(path.name)
    # Unless the head is known to lie like that.
    np.testing.assert_allclose(
        read_landmarks(path, PROTOCOL, any_pose=True).points, truth * LPS, atol=1e-3
    )
    read_review(path, PROTOCOL, any_pose=True)


def test_a_file_that_names_the_wrong_system(tmp_path, truth):
    path = file_of(tmp_path / "head.mrk.json", truth)
    content = json.loads(path.read_text(encoding="utf-8"))
    for markup in content["markups"]:
        markup["coordinateSystem"] = "RAS"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=SAYS):
        read_landmarks(path, PROTOCOL)


def test_a_head_of_a_turned_image_that_was_reviewed_is_opened_again(tmp_path, truth):
    review = Review.of(LandmarkSet.from_points(PROTOCOL, truth * LPS), "AB")
    review.confirm("CC_G")
    write_review(tmp_path / "head.mrk.json", review)
    again, _ = read_review(tmp_path / "head.mrk.json", PROTOCOL)
    assert again.current.status[PROTOCOL.by_label("CC_G").index - 1] == "confirmed"


def test_the_guidelines_swap_nothing(tmp_path, truth, capsys):
    path = file_of(tmp_path / "head.csv", truth * LPS)
    refused(["correct", str(path)], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["head.csv"]
    review = Review.of(LandmarkSet.from_points(PROTOCOL, truth * LPS))
    with pytest.raises(UserError, match=SAYS):
        apply_guidelines(review)
    assert review.edits == []


def test_agreement_and_evaluation_say_which_file(tmp_path, truth, capsys):
    good, bad = folder_of(tmp_path / "A", truth), folder_of(tmp_path / "B", truth * LPS)
    for command in (
        ["agreement", good, bad],
        ["agreement", bad, folder_of(tmp_path / "C", truth * LPS)],
        ["evaluate", "--predictions", bad, "--truth", good],
    ):
        assert "0001.csv" in refused([*command, "-o", str(tmp_path / "out")], capsys)
        assert not (tmp_path / "out").exists()


def test_distance_wants_both_heads_one_way_round(tmp_path, truth, capsys):
    good = file_of(tmp_path / "good.csv", truth)
    bad = file_of(tmp_path / "bad.csv", truth * LPS)
    other = file_of(tmp_path / "other.csv", truth * LPS + [0, 0, 2.0])
    for pair in ((good, bad), (bad, good)):
        assert "bad.csv" in refused(["distance", *map(str, pair)], capsys)
    # The same head in the same turned image is compared.
    assert main(["distance", str(bad), str(other)]) == 0
    assert "mean 2.00 mm" in capsys.readouterr().out


def test_no_dataset_takes_it(tmp_path, truth, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, points in enumerate((truth, truth * LPS)):
        image_of(scans / f"sub-{number}.nii.gz", number)
        file_of(scans / f"sub-{number}.csv", points)
    assert main(["dataset", "create", str(scans), "-o", str(tmp_path / "set")]) == 2
    printed = capsys.readouterr()
    assert "added 1, refused 1" in printed.out
    assert f"sub-1.csv: {SAYS}" in printed.err
    # Nor a file with a record, which may be opened otherwise.
    (scans / "sub-1.csv").unlink()
    review = Review.of(LandmarkSet.from_points(PROTOCOL, truth * LPS))
    write_review(scans / "sub-1.mrk.json", review)
    assert main(["dataset", "create", str(scans), "-o", str(tmp_path / "two")]) == 2
    assert f"sub-1.mrk.json: {SAYS}" in capsys.readouterr().err


def test_a_dataset_that_has_one_is_broken_and_not_used(tmp_path, truth, capsys):
    dataset = Dataset.create(tmp_path / "set", PROTOCOL)
    review = Review.of(LandmarkSet.from_points(PROTOCOL, truth))
    entry = dataset.add(read_image(image_of(tmp_path / "head.nii.gz")), review)
    file_of(dataset.folder / entry.landmarks, truth * LPS)
    with pytest.raises(UserError, match=SAYS):
        dataset.read_landmarks(entry)
    assert main(["dataset", "check", str(dataset.folder), "--accept"]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("broken") and SAYS in line]
    assert line.startswith(f"broken: {entry.identity}: ")
    assert "are swapped" not in out


def test_the_worker_adds_none(tmp_path, truth):
    from BrainLandmarksLib.worker.dataset_jobs import add

    image_of(tmp_path / "head.nii.gz")
    review = Review.of(LandmarkSet.from_points(PROTOCOL, truth * LPS))
    write_review(tmp_path / "head.mrk.json", review)
    message = {
        "image": str(tmp_path / "head.nii.gz"),
        "landmarks": str(tmp_path / "head.mrk.json"),
        "protocol": "brain88",
        "dataset": str(tmp_path / "set"),
    }
    with pytest.raises(UserError, match=SAYS):
        add(message, lambda *_: None)
    assert not (tmp_path / "set").exists()
