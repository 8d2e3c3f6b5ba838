"""Tables for a terminal, a page and a spreadsheet; plots that draw what they are given."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures.plots import cumulative_plot, cumulative_share, head_plot
from BrainLandmarksLib.io.tables import Table

TABLE = Table(("group", "n", "mean"), [("Eye", 8, 1.2345), ("Brain Stem", 13, float("nan"))])


def test_the_three_forms(tmp_path):
    assert TABLE.plain() == "group        n  mean\nEye          8  1.23\nBrain Stem  13     -"
    assert TABLE.markdown().splitlines() == [
        "| group | n | mean |", "| --- | ---: | ---: |", "| Eye | 8 | 1.23 |",
        "| Brain Stem | 13 | - |",
    ]  # fmt: skip
    TABLE.write_csv(tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["group", "n", "mean"], ["Eye", "8", "1.2345"], ["Brain Stem", "13", ""],
        ]  # fmt: skip


def test_no_negative_zero_and_no_rows():
    assert (
        Table(("x",), [(-0.0001,)]).plain().endswith(" 0.00")
        or "-0.00" not in Table(("x",), [(-0.0001,)]).plain()
    )
    assert Table(("a", "b"), []).plain() == "a  b"


def test_numbers_that_are_texts_are_to_the_right_where_the_words_are_counted():
    table = Table(("group", "mean"), [("Eye", "1.2"), ("All", "–")], words=1)
    assert table.markdown().splitlines()[1] == "| --- | ---: |"
    assert table.plain().splitlines()[2] == "All       –"


def test_a_table_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        TABLE.write_csv(tmp_path / "no" / "t.csv")


def test_a_bids_table_has_tabs_and_no_empty_cell(tmp_path):
    table = Table(
        ("name", "mm", "note"), [("a", 1.23456, ""), ("b", np.nan, "two\tparts\n"), (3, 0, "x")]
    )
    table.write_tsv(tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_text(encoding="utf-8") == (
        "name\tmm\tnote\na\t1.2346\tn/a\nb\tn/a\ttwo parts\n3\t0\tx\n"
    )


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def test_curves_end_lower_where_landmarks_were_missed(tmp_path, tiny_protocol):
    errors = np.array([[3.0, 1.0, np.nan, 2.0]])
    missed = np.zeros((1, 4), bool)
    at, share = cumulative_share(errors, missed)
    np.testing.assert_allclose(at, [0, 1, 2, 3])
    np.testing.assert_allclose(share, [0, 1 / 3, 2 / 3, 1])
    missed[0, 2] = True
    np.testing.assert_allclose(cumulative_share(errors, missed)[1], [0, 0.25, 0.5, 0.75])
    nothing = np.full((2, 5), np.nan)
    cumulative_plot(tiny_protocol, nothing, tmp_path / "none.png")
    assert pixels(tmp_path / "none.png").std() > 0.01


def test_a_head_with_missing_landmarks_is_drawn(tmp_path, tiny_protocol):
    points = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [np.nan] * 3])
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    head_plot(tiny_protocol, points, values, tmp_path / "head.png", label="mm")
    assert pixels(tmp_path / "head.png").std() > 0.05
