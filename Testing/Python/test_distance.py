"""`brainlandmarks distance` on files of one and of two protocols."""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet


def test_two_files_of_one_protocol(tmp_path, brain88, capsys):
    points = np.random.default_rng(0).uniform(-70, 70, (len(brain88), 3))
    moved = points + [3.0, 0.0, 4.0]
    moved[5] = np.nan
    for name, values in (("a.mrk.json", points), ("b.csv", moved)):
        write_landmarks(tmp_path / name, LandmarkSet.from_points(brain88, values))
    assert main(["distance", str(tmp_path / "a.mrk.json"), str(tmp_path / "b.csv")]) == 0
    out = capsys.readouterr().out
    assert "87 landmarks: mean 5.00 mm, median 5.00 mm, largest 5.00 mm" in out


def test_against_the_sample_s_own(tmp_path, brain88, capsys):
    placed = read_landmarks(resources.sample_landmarks("brain88"), brain88)
    moved = LandmarkSet.from_points(brain88, placed.points + [0.0, 0.0, 1.5])
    write_landmarks(tmp_path / "found.csv", moved)
    assert main(["distance", str(tmp_path / "found.csv"), "sample:colin27"]) == 0
    assert "88 landmarks: mean 1.50 mm" in capsys.readouterr().out


def test_landmarks_that_are_afids(tmp_path, brain88, capsys):
    afids = load_protocol("afids32")
    points = np.random.default_rng(0).uniform(-70, 70, (len(brain88), 3))
    expert = np.zeros((32, 3))
    known = [landmark for landmark in brain88 if landmark.afid is not None]
    for landmark in known:
        expert[landmark.afid - 1] = points[landmark.index - 1] + [0.0, 2.0, 0.0]
    write_landmarks(tmp_path / "found.mrk.json", LandmarkSet.from_points(brain88, points))
    write_landmarks(tmp_path / "expert.fcsv", LandmarkSet.from_points(afids, expert))
    files = [str(tmp_path / "found.mrk.json"), str(tmp_path / "expert.fcsv")]
    assert main(["distance", *files, "--reference-protocol", "afids32"]) == 0
    out = capsys.readouterr().out
    assert f"{len(known)} landmarks: mean 2.00 mm" in out
    assert "CC_G" in out
    # The other way round, what is the same is the same, and no row is taken for another's.
    swapped = ["--protocol", "afids32", "--reference-protocol", "brain88"]
    assert main(["distance", *reversed(files), *swapped]) == 0
    out = capsys.readouterr().out
    assert f"{len(known)} landmarks: mean 2.00 mm" in out
    assert {line.split()[0] for line in out.splitlines() if line.count(" mm") == 1} == {
        afids.landmarks[landmark.afid - 1].label for landmark in known
    }
