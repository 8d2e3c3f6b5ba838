"""Splits: by subject, never by scan; the same seed, the same split; a test head stays one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.dataset import LOCK, MANIFEST
from BrainLandmarksLib.dataset.split import split_dataset
from BrainLandmarksLib.errors import UserError


def entry(number, subject):
    name = f"{number:04d}"
    return Entry(name, f"images/{name}.nii.gz", f"landmarks/{name}.mrk.json", "", "", name, subject)


def listed(folder, protocol, subjects):
    """A dataset that is only a list: splitting reads no file."""
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    dataset = Dataset.create(folder, protocol)
    dataset.update([entry(n, s) for n, s in enumerate(subjects, start=1)], {"what": "test"})
    return dataset


def splits_of(dataset):
    found = {}
    for e in dataset.entries:
        found.setdefault(e.person, set()).add(e.split)
    return found


def test_the_papers_numbers(tmp_path, brain88):
    dataset = listed(tmp_path, brain88, [f"S{n}" for n in range(234)])
    assert split_dataset(dataset) == {"train": 154, "validation": 30, "test": 50}
    reopened = Dataset.open(tmp_path)
    assert Counter(e.split for e in reopened.entries) == {
        "train": 154, "validation": 30, "test": 50,
    }  # fmt: skip
    assert reopened.history[-1]["what"] == "split"
    assert reopened.history[-1]["seed"] == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 5), min_size=6, max_size=40),
    st.floats(0.05, 0.3),
    st.floats(0.05, 0.3),
    st.integers(0, 100),
)
def test_a_subject_is_in_one_split_only(tmp_path, brain88, scans, validation, test, seed):
    subjects = [f"S{k}" for k, count in enumerate(scans) for _ in range(count)]
    dataset = listed(tmp_path, brain88, subjects)
    counts = split_dataset(dataset, validation=validation, test=test, seed=seed)
    assert all(len(splits) == 1 and "" not in splits for splits in splits_of(dataset).values())
    assert sum(counts.values()) == len(subjects)
    assert min(counts.values()) >= 1
    # Whole subjects: never more than was asked for, unless even the smallest subject is more.
    for name, share in (("validation", validation), ("test", test)):
        asked = max(round(share * len(subjects)), 1)
        assert counts[name] <= max(asked, max(scans))
    # The order of the entries plays no part.
    again = listed(tmp_path, brain88, subjects[::-1])
    split_dataset(again, validation=validation, test=test, seed=seed)
    assert splits_of(again) == splits_of(dataset)


def test_seeds_differ_and_repeat(tmp_path, brain88):
    subjects = [f"S{n}" for n in range(40)]
    results = []
    for seed in (1, 1, 2):
        dataset = listed(tmp_path, brain88, subjects)
        split_dataset(dataset, seed=seed)
        results.append(splits_of(dataset))
    assert results[0] == results[1] != results[2]


def test_the_last_subjects_by_name_can_be_taken(tmp_path, brain88):
    dataset = listed(tmp_path, brain88, ["C", "A", "D", "B", "B"])
    split_dataset(dataset, validation=3, test=1, last=True)
    assert splits_of(dataset) == {
        "A": {"train"}, "C": {"validation"}, "D": {"test"}, "B": {"validation"},
    }  # fmt: skip


def test_heads_that_come_later_join_and_nothing_changes_sides(tmp_path, brain88):
    dataset = listed(tmp_path, brain88, [f"S{n}" for n in range(20)])
    split_dataset(dataset, validation=0.2, test=0.2)
    before = splits_of(dataset)
    person = next(p for p, splits in before.items() if splits == {"test"})
    more = [entry(n, s) for n, s in ((21, person), (22, "new 1"), (23, "new 2"))]
    dataset.update([*dataset.entries, *more], {"what": "test"})
    split_dataset(dataset, validation=0.2, test=0.2, seed=9)
    after = splits_of(dataset)
    assert {p: after[p] for p in before} == before
    assert dataset.entries[-3].split == "test"
    assert all(e.split for e in dataset.entries)
    split_dataset(dataset, validation=0.2, test=0.2, seed=9, again=True)
    assert splits_of(dataset) != after


@pytest.mark.parametrize(
    ("subjects", "options", "says"),
    [
        (["A"] * 10, {}, "scans of 1 subject and 3 splits need 3"),
        (["A", "B"], {}, "scans of 2 subjects"),
        (list("ABCDEF"), {"validation": 3, "test": 3}, "leave nothing of 6 to train on"),
        (list("ABCDEF"), {"validation": -1}, "--validation is a number of heads"),
        (list("ABCDEF"), {"test": 1.5}, "--test is a number of heads"),
        (list("ABCDEF"), {"test": float("nan")}, "nan is neither"),
        (list("ABCDEF"), {"validation": float("inf")}, "inf is neither"),
    ],
)
def test_what_cannot_be_split(tmp_path, brain88, subjects, options, says):
    dataset = listed(tmp_path, brain88, subjects)
    before = dataset.entries
    with pytest.raises(UserError, match=says):
        split_dataset(dataset, **options)
    assert Dataset.open(tmp_path).entries == before


@pytest.mark.parametrize(
    "action", [["split", "any"], ["synthesize", "-n", "2", "--label-maps", "any", "-o", "new"]]
)
def test_a_seed_is_not_negative(action, capsys):
    assert main(["dataset", *action, "--seed", "-1"]) == 2
    assert capsys.readouterr().err.endswith("--seed must be at least 0, not -1.\n")


def test_the_command(heads, capsys):
    assert main(["dataset", "split", str(heads), "--validation", "2", "--test", "4"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["split", "heads", "subjects"], ["train", "6", "3"], ["validation", "2", "1"],
        ["test", "4", "2"],
    ]  # fmt: skip
    assert main(["dataset", "check", str(heads)]) == 0
