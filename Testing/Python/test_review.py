"""A review: every change can be undone, every edit is on record, nothing the model said is lost."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review, write_review
from BrainLandmarksLib.review.edits import VERSION

PROTOCOL = load_protocol("brain88")
LABELS = PROTOCOL.labels


def detection(seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-80, 80, (88, 3)).round(3)
    points[[9, 70]] = np.nan
    return LandmarkSet.from_points(PROTOCOL, points, "model", rng.uniform(0, 1, 88).round(3))


@pytest.fixture
def review():
    made = Review.of(detection(), "AB")
    clock = iter(range(10**6))
    start = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
    made.now = lambda: start + timedelta(seconds=next(clock))
    return made


def same(a, b):
    np.testing.assert_allclose(a.points, b.points, atol=1e-4)
    return a.status == b.status


def test_a_drag_is_recorded(review):
    before = review.found.point("CC_G")
    assert review.move("CC_G", before + [0, 3.0, 4.0]) == ["CC_G"]
    (edit,) = review.edits
    assert (edit.label, edit.kind, edit.who) == ("CC_G", "moved", "AB")
    assert edit.when == "2026-11-23T12:00:00+00:00"
    assert edit.distance_mm == pytest.approx(5.0, abs=1e-3)
    assert (edit.status_before, edit.status_after) == ("model", "edited")
    assert review.current.status[PROTOCOL.by_label("CC_G").index - 1] == "edited"
    np.testing.assert_array_equal(review.found.points, detection().points)


def test_a_click_that_moves_nothing_is_no_edit(review):
    assert review.move("CC_G", review.found.point("CC_G")) == []
    assert not review.can_undo


def test_confirm_reopen_missing_revert(review):
    row = PROTOCOL.by_label("CC_S").index - 1
    assert review.confirm("CC_S") == ["CC_S"]
    assert review.confirm("CC_S") == []
    assert review.corrected.nonzero()[0].tolist() == [row]
    assert review.reopen("CC_S") == ["CC_S"]
    assert review.current.status[row] == "model"
    review.move("CC_S", [1, 2, 3])
    review.confirm("CC_S")
    review.reopen("CC_S")
    assert review.current.status[row] == "edited"
    assert review.mark_missing("CC_S") == ["CC_S"]
    assert review.mark_missing("CC_S") == []
    assert np.isnan(review.current.point("CC_S")).all()
    assert review.edits[-1].distance_mm is None
    assert review.confirm("CC_S") == []
    assert review.revert("CC_S") == ["CC_S"]
    assert review.revert("CC_S") == []
    assert same(review.current, review.found)


def test_a_missing_point_can_be_placed_and_goes_back_to_missing(review):
    label = LABELS[9]
    review.move(label, [1.0, 2.0, 3.0])
    assert review.current.status[9] == "edited"
    review.revert(label)
    assert review.current.status[9] == "missing"
    assert review.current.missing[9]


def test_rules_leave_points_the_model_s(review):
    points = review.current.points + [1.0, 0, 0]
    review.confirm(LABELS[3])
    changed = review.set_points(points, "resolved")
    assert len(changed) == 86
    assert review.current.status[0] == "model"
    assert review.current.status[3] == "edited"
    assert review.undo() == changed
    assert review.current.status[3] == "confirmed"


def test_bad_points_change_nothing(review):
    for bad in ([1, 2], [np.nan, 0, 0], [np.inf, 0, 0]):
        with pytest.raises(ValueError, match="three finite"):
            review.move_many({"CC_G": [0, 0, 0], "CC_S": bad}, "moved")
    with pytest.raises(ValueError, match="none of"):
        review.move("CC_G", [0, 0, 0], "teleported")
    with pytest.raises(UserError, match="CC_X"):
        review.move("CC_X", [0, 0, 0])
    assert same(review.current, review.found)
    assert not review.edits


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["move", "confirm", "reopen", "missing", "revert", "revert_all", "rule", "undo", "redo"]
        ),
        st.integers(0, 87),
        st.integers(0, 3),
    ),
    max_size=30,
)


def act(review, action, row, step):
    label = LABELS[row]
    match action:
        case "move":
            review.move(label, [row, step, 1.5])
        case "confirm":
            review.confirm(label)
        case "reopen":
            review.reopen(label)
        case "missing":
            review.mark_missing(label)
        case "revert":
            review.revert(label)
        case "revert_all":
            review.revert_all()
        case "rule":
            review.set_points(review.current.points + step, "respaced")
        case "undo":
            review.undo()
        case "redo":
            review.redo()


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_undo_leads_back_and_redo_forth(actions):
    review = Review.of(detection())
    states = []
    for action, row, step in actions:
        act(review, action, row, step)
    end = (review.current.points.copy(), list(review.current.status))
    while review.can_undo:
        states.append(list(review.current.status))
        assert review.undo()
    assert same(review.current, review.found)
    for state in reversed(states):
        assert review.redo()
        assert review.current.status == state
    np.testing.assert_allclose(review.current.points, end[0], atol=1e-3)
    assert review.current.status == end[1]


@settings(max_examples=30, deadline=None)
@given(ACTIONS)
def test_a_review_survives_its_file(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("review") / "head.mrk.json"
    review = Review.of(detection(), "ÄB")
    for action, row, step in actions:
        act(review, action, row, step)
    write_review(path, review, {"model": "brain88"})
    again, source = read_review(path, PROTOCOL)
    assert source == {"model": "brain88"}
    assert same(again.current, review.current)
    assert same(again.found, review.found)
    assert again.edits == review.edits
    np.testing.assert_allclose(again.current.confidence, detection().confidence)
    while again.can_undo:
        again.undo()
    assert same(again.current, review.found)
    # Any other reader of landmark files takes the points as they are.
    assert same(read_landmarks(path, PROTOCOL), review.current)


def test_a_new_detection_keeps_what_a_person_did(review):
    review.move(LABELS[0], [1.0, 2.0, 3.0])
    review.confirm(LABELS[1])
    review.mark_missing(LABELS[2])
    review.move(LABELS[3], [1.0, 2.0, 3.0])
    review.revert(LABELS[3])
    review.set_points(review.current.points + 1, "respaced")
    new = detection(1)
    kept = review.renewed(new, keep=True)
    assert kept.current.status[:4] == ["edited", "edited", "missing", "model"]
    np.testing.assert_allclose(kept.current.points[0], [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(kept.current.points[3:9], new.points[3:9])
    assert {e.label for e in kept.edits} == set(LABELS[:3])
    kept.revert_all()
    assert same(kept.current, new)
    fresh = review.renewed(new, keep=False)
    assert same(fresh.current, new)
    assert not fresh.edits


def test_a_file_without_a_record_starts_a_review(tmp_path):
    path = tmp_path / "plain.mrk.json"
    write_review(path, Review.of(detection()))
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["brainlandmarks"]
    path.write_text(json.dumps(content))
    review, source = read_review(path, PROTOCOL)
    assert source == {}
    assert same(review.current, detection())
    assert not review.edits


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    """Version 2 called a swap of two names "exchanged"."""
    path = tmp_path / "head.mrk.json"
    review = Review.of(detection())
    review.move_many({"CC_G": [1, 2, 3], "CC_S": [4, 5, 6]}, "swapped")
    write_review(path, review)
    content = json.loads(path.read_text(encoding="utf-8"))
    record = content["brainlandmarks"]
    kinds = [edit["kind"] for step in record["edits"] for edit in step]
    assert set(kinds) == {"swapped"}
    record["version"] = 2
    for step in record["edits"]:
        for edit in step:
            edit["kind"] = "exchanged"
    path.write_text(json.dumps(content))
    assert [edit.kind for edit in read_review(path, PROTOCOL)[0].edits] == kinds


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r.update(version=VERSION + 1), "newer"),
        (lambda r: r["protocol"].update(hash="0"), "another definition"),
        (lambda r: r.pop("found"), "damaged"),
        (lambda r: r.update(found=[[1, 2, 3]]), "damaged"),
        (lambda r: r.update(edits=[[{"label": "CC_G"}]]), "damaged"),
        (lambda r: r["edits"][0][0].update(kind="eaten"), "damaged"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(review, tmp_path, change, word):
    path = tmp_path / "head.mrk.json"
    review.move("CC_G", [1, 2, 3])
    write_review(path, review)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["brainlandmarks"])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=word):
        read_review(path, PROTOCOL)


def test_a_remark_of_the_model_holds_as_long_as_its_answer(tmp_path, some_landmarks):
    some_landmarks.notes[2] = "no eye here"
    review = Review.of(some_landmarks)
    label = some_landmarks.protocol.labels[2]
    review.move(label, [1, 2, 3])
    assert review.current.notes[2] == ""
    review.undo()
    assert review.current.notes[2] == "no eye here"
    review.redo()
    path = tmp_path / "a.mrk.json"
    write_review(path, review)
    again, _ = read_review(path, some_landmarks.protocol)
    assert again.found.notes[2] == "no eye here"
    assert again.current.notes[2] == ""
    again.revert(label)
    assert again.current.notes[2] == "no eye here"
    assert again.found.moved(np.eye(4)).notes == some_landmarks.notes
    renewed = review.renewed(some_landmarks, keep=True)
    assert renewed.current.notes[2] == ""
