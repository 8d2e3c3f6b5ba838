"""A second person's annotations beside a dataset, and landmarks of an entry that are revised."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from BrainLandmarksLib.agreement.ratings import Ratings
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.checks import check_dataset
from BrainLandmarksLib.dataset.ratings import (
    keep_rating,
    mean_distances,
    raters_of,
    rating_file,
    ratings_of,
    read_rating,
)
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksLib.worker.jobs import Jobs


@pytest.fixture
def dataset(tmp_path, tiny_protocol):
    """Three heads of five landmarks."""
    made = Dataset.create(tmp_path / "set", tiny_protocol)
    for number in range(3):
        data = np.full((8, 8, 8), number, np.float32)
        points = LandmarkSet.from_points(tiny_protocol, POINTS + number, "truth")
        volume = Volume(data, Grid((8, 8, 8), np.diag([10.0, 10, 10, 1])))
        made.add(volume, Review.of(points, "AB"), subject=f"S{number}", split="train")
    return made


POINTS = np.array([[10, 30, 20], [40, 30, 20], [25, 25, 40], [12, 5, 20], [38, 5, 20.0]])


def rated(dataset, shift):
    points = LandmarkSet.from_points(dataset.protocol, POINTS + shift, "truth")
    return Review.of(points, "BC")


def test_a_rating_is_kept_beside_the_dataset_and_read_again(dataset):
    assert raters_of(dataset) == []
    assert read_rating(dataset, "BC", "0001") is None
    path = keep_rating(dataset, "BC", "0001", rated(dataset, 2.0), {"by": "hand"})
    assert path == dataset.folder / "raters" / "BC" / "0001.mrk.json"
    assert raters_of(dataset) == ["BC"]
    review, source = read_rating(dataset, "BC", "0001")
    np.testing.assert_allclose(review.current.points, POINTS + 2.0)
    assert source == {"by": "hand"}
    assert check_dataset(Dataset.open(dataset.folder)).sound  # it is no part of the dataset


def test_ratings_are_those_that_the_agreement_command_reads(dataset):
    with pytest.raises(UserError, match="annotated no case"):
        ratings_of(dataset, "BC")
    keep_rating(dataset, "BC", "0001", rated(dataset, (0, 3.0, 4.0)))
    keep_rating(dataset, "BC", "0003", rated(dataset, 2.0))
    ratings = ratings_of(dataset, "BC")
    assert ratings.heads == ("0001", "0003")
    assert ratings.left_out == ("0002",)
    distances = mean_distances(ratings)
    assert distances["0001"] == pytest.approx(5.0)
    assert distances["0003"] == pytest.approx(0.0, abs=1e-3)
    folders = [dataset.folder / "landmarks", dataset.folder / "raters" / "BC"]
    read = Ratings.read(folders, dataset.protocol)
    np.testing.assert_allclose(read.points, ratings.points)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a b"])
def test_a_name_stays_in_its_folder(dataset, name):
    with pytest.raises(UserError, match="cannot name a rater"):
        rating_file(dataset, name, "0001")


def test_an_entry_is_revised_and_all_else_stays(dataset):
    before = dataset.entries[1]
    review = rated(dataset, 1.0)
    review.move("B_M", (20.0, 20.0, 20.0))
    dataset.revise(before, review, {"model": "x"})
    again = Dataset.open(dataset.folder)
    after = again.entries[1]
    changed = {k for k, v in asdict(after).items() if asdict(before)[k] != v}
    assert changed - {"added"} == {"who", "landmarks_sha256"}
    assert [entry.identity for entry in again.entries] == ["0001", "0002", "0003"]
    np.testing.assert_allclose(again.read_landmarks(after).current.point("B_M"), 20.0)
    assert check_dataset(again).sound


def test_landmarks_of_another_protocol_are_refused(dataset, some_landmarks):
    with pytest.raises(UserError, match="not those of the dataset"):
        dataset.revise(dataset.entries[0], Review.of(some_landmarks))


def test_the_worker_checks(dataset):
    stages = []
    message = {"type": "check", "dataset": str(dataset.folder)}
    found = Jobs().do(message, lambda *stage: stages.append(stage[0]))
    assert found["heads"] == {"0001": [], "0002": [], "0003": []}
    assert stages == ["check"]
    (dataset.folder / dataset.entries[0].landmarks).unlink()
    found = Jobs().do(message, lambda *stage: None)
    assert len(found["heads"]["0001"]) == 1
