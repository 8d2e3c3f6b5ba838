"""Landmark files: what is written is what is read, and nonsense is refused by name."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import ras_to_lps
from BrainLandmarksLib.io.landmarks import FORMATS, read_landmarks, write_landmarks
from BrainLandmarksLib.io.landmarks.table import CSV_COLUMNS
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

AFIDS_HEADER = """\
# Markups fiducial file version = 4.6
# CoordinateSystem = {system}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
"""


def afids_file(path, protocol, points, system="0", labels=None, names=None):
    """A file as the AFIDs project publishes them: the label is a number."""
    labels = labels or [str(n + 1) for n in range(len(protocol))]
    names = names or list(protocol.labels)
    rows = [
        f"vtkMRMLMarkupsFiducialNode_{n},{x},{y},{z},0,0,0,1,1,1,0,{label},{name},vtkMRMLNode1"
        for n, ((x, y, z), label, name) in enumerate(zip(points, labels, names, strict=False))
    ]
    path.write_text(AFIDS_HEADER.format(system=system) + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def afids32():
    return load_protocol("afids32")


@pytest.fixture(scope="module")
def afids_points():
    return np.random.default_rng(32).normal(0, 40, (32, 3))


# Round trips --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mrk.json", "csv"])
def test_round_trip_keeps_everything(tmp_path, some_landmarks, name):
    path = tmp_path / f"head.{name}"
    write_landmarks(path, some_landmarks)
    read = read_landmarks(path, some_landmarks.protocol)
    np.testing.assert_allclose(read.points, some_landmarks.points, atol=1e-4)
    np.testing.assert_allclose(read.confidence, some_landmarks.confidence, atol=1e-3)
    assert read.status == some_landmarks.status


def test_fcsv_keeps_points_and_leaves_out_missing_ones(tmp_path, some_landmarks):
    path = tmp_path / "head.fcsv"
    write_landmarks(path, some_landmarks)
    text = path.read_text(encoding="utf-8")
    assert text.startswith(AFIDS_HEADER.format(system="0"))
    assert "# missing = FB_M\n" in text
    read = read_landmarks(path, some_landmarks.protocol)
    np.testing.assert_allclose(read.points, some_landmarks.points, atol=1e-4)
    np.testing.assert_array_equal(read.missing, some_landmarks.missing)


@given(points=hnp.arrays(np.float64, (5, 3), elements=st.floats(-500, 500)))
def test_round_trip_of_any_points(tmp_path_factory, tiny_protocol, points):
    folder = tmp_path_factory.mktemp("points")
    for name in FORMATS:
        write_landmarks(folder / f"p.{name}", LandmarkSet.from_points(tiny_protocol, points))
        read = read_landmarks(folder / f"p.{name}", tiny_protocol)
        np.testing.assert_allclose(read.points, points, atol=6e-5)


def test_nothing_but_the_file_is_left_in_the_folder(tmp_path, some_landmarks):
    for name in FORMATS:
        write_landmarks(tmp_path / f"head.{name}", some_landmarks)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"head.{n}" for n in FORMATS)


# .mrk.json ----------------------------------------------------------------------------------------


def test_mrk_json_is_strict_json_with_one_locked_list_per_group(tmp_path, some_landmarks):
    path = tmp_path / "head.mrk.json"
    write_landmarks(path, some_landmarks)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    protocol = some_landmarks.protocol
    assert [m["name"] for m in content["markups"]] == [g.name for g in protocol.groups]
    row = 0
    for markup, group in zip(content["markups"], protocol.groups, strict=True):
        assert markup["coordinateSystem"] == "LPS"
        assert markup["locked"] is markup["fixedNumberOfControlPoints"] is True
        np.testing.assert_allclose(markup["display"]["selectedColor"], group.rgb, atol=1e-4)
        assert len(markup["measurements"][0]["controlPointValues"]) == len(group.indices)
        for point in markup["controlPoints"]:
            assert point["label"] == protocol.labels[row]
            assert point["description"].startswith(protocol.landmarks[row].name)
            assert point["locked"] is True
            if some_landmarks.status[row] == "missing":
                assert point["positionStatus"] == "missing"
                assert point["position"] == ""
            else:
                lps = ras_to_lps(some_landmarks.points[row])
                np.testing.assert_allclose(point["position"], lps, atol=1e-4)
            row += 1
    assert row == len(protocol)


def test_confidence_is_in_the_description(tmp_path, some_landmarks):
    path = tmp_path / "head.mrk.json"
    write_landmarks(path, some_landmarks)
    points = json.loads(path.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    level = some_landmarks.confidence[3]
    assert points[0]["description"] == "left frontal pole (edited)"
    assert points[2]["description"].endswith("(missing)")
    assert points[3]["description"].endswith(f"(confidence {level:.3f}, model)")


def markups_file(path, protocol, **changes):
    """The simplest file Slicer itself would read: one list in LPS."""
    points = [
        {"label": label, "position": [-n, -2 * n, 3 * n]} for n, label in enumerate(protocol.labels)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
    markup.update(changes)
    path.write_text(json.dumps({"markups": [markup]}))
    return path


def expected_points(count):
    n = np.arange(count)
    return np.stack([n, 2 * n, 3 * n], axis=1)


@pytest.mark.parametrize(
    ("system", "signs"), [("LPS", 1), ("RAS", [-1, -1, 1]), ("0", [-1, -1, 1])]
)
def test_mrk_json_coordinate_system_is_honoured(tmp_path, tiny_protocol, system, signs):
    path = markups_file(tmp_path / "p.mrk.json", tiny_protocol, coordinateSystem=system)
    read = read_landmarks(path, tiny_protocol, status="edited")
    np.testing.assert_allclose(read.points, expected_points(5) * signs)
    assert read.status == ["edited"] * 5


def test_mrk_json_points_are_found_by_label_in_any_list_and_order(tmp_path, tiny_protocol):
    points = [
        {"label": "C_R", "position": [1, 2, 3]},
        {"label": "A_L", "position": [-4, -5, 6], "positionStatus": "defined"},
        {"label": "B_M", "position": [9, 9, 9], "positionStatus": "undefined"},
        {"label": "A_R", "position": None, "positionStatus": "missing"},
    ]
    markups = [{"controlPoints": points[:1]}, {"controlPoints": points[1:]}]
    (tmp_path / "p.mrk.json").write_text(json.dumps({"markups": markups}))
    read = read_landmarks(tmp_path / "p.mrk.json", tiny_protocol)
    np.testing.assert_allclose(read.point("C_R"), [-1, -2, 3])
    np.testing.assert_allclose(read.point("A_L"), [4, 5, 6])
    assert read.missing.tolist() == [False, True, True, True, False]


def test_mrk_json_confidence_of_foreign_files_comes_from_the_measurement(tmp_path, tiny_protocol):
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    measurement = {"name": "confidence", "controlPointValues": values}
    path = markups_file(tmp_path / "p.mrk.json", tiny_protocol, measurements=[measurement])
    np.testing.assert_allclose(read_landmarks(path, tiny_protocol).confidence, values)
    # Values that no longer belong to the points are not used.
    measurement["controlPointValues"] = values[:4]
    path = markups_file(tmp_path / "p.mrk.json", tiny_protocol, measurements=[measurement])
    assert np.isnan(read_landmarks(path, tiny_protocol).confidence).all()


# .csv ---------------------------------------------------------------------------------------------


def test_csv_has_a_row_for_every_landmark(tmp_path, some_landmarks):
    path = tmp_path / "head.csv"
    write_landmarks(path, some_landmarks)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 1 + 88
    assert rows[1][:3] == ["1", "FP_L", "Frontal Lobe"]
    assert rows[3] == ["3", "FB_M", "Frontal Lobe", "", "", "", "", "missing", ""]


def test_csv_from_a_spreadsheet(tmp_path, tiny_protocol):
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbfLabel, R, A, S\r\nc_r,1,2,3\r\nA_L,4,5,6\r\nB_M,,,\r\n")
    read = read_landmarks(path, tiny_protocol, status="confirmed")
    np.testing.assert_allclose(read.point("C_R"), [1, 2, 3])
    assert read.status == ["confirmed", "missing", "missing", "missing", "confirmed"]


def table_of(points, columns="label,r,a,s", separator=",", decimal="."):
    """A table of points (label, r, a, s) as a spreadsheet of some country writes it."""
    lines = [columns.replace(",", separator)]
    for label, *position in points:
        cells = [label, *(f"{x:.4f}".replace(".", decimal) for x in position)]
        lines.append(separator.join(cells))
    return "\n".join(lines) + "\n"


HALVES = [("A_L", -13.1915, 69.772, -3.2115), ("C_R", 14.2918, 70.0494, -6.1725)]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("decimal", [",", "."])
@pytest.mark.parametrize("top", ["", "sep={}\n", '"sep={}"\n', "\n \n"])
def test_csv_of_a_spreadsheet_with_other_separators(
    tmp_path, tiny_protocol, separator, decimal, top
):
    path = tmp_path / "p.csv"
    path.write_text(top.format(separator) + table_of(HALVES, "label,r,a,s", separator, decimal))
    read = read_landmarks(path, tiny_protocol)
    for label, *position in HALVES:
        np.testing.assert_allclose(read.point(label), position)


def test_csv_confidence_with_a_decimal_comma(tmp_path, tiny_protocol):
    path = tmp_path / "p.csv"
    path.write_text("label;r;a;s;confidence\nA_L;1;2,5;3;0,75\n")
    assert read_landmarks(path, tiny_protocol).confidence[0] == 0.75


def test_csv_padding_of_a_spreadsheet_is_no_surplus(tmp_path, tiny_protocol):
    path = tmp_path / "p.csv"
    path.write_text("label,r,a,s,,\n\n,,,,,\nA_L,1,2,3,,\n")
    np.testing.assert_allclose(read_landmarks(path, tiny_protocol).point("A_L"), [1, 2, 3])


# Labels -------------------------------------------------------------------------------------------


def test_spaces_of_labels_do_not_count_in_any_format(tmp_path, tiny_protocol):
    names = {"  c_r ": [1, 2, 3], "point  A_L": [4, 5, 6], "B_M\t": [7, 8, 9]}
    (tmp_path / "p.csv").write_text(
        "label,r,a,s\n" + "".join(f"{n},{x},{y},{z}\n" for n, (x, y, z) in names.items())
    )
    points = list(names.values())
    afids_file(tmp_path / "p.fcsv", tiny_protocol, points, labels=list(names), names=[""] * 3)
    controls = [{"label": n, "position": [-x, -y, z]} for n, (x, y, z) in names.items()]
    (tmp_path / "p.mrk.json").write_text(json.dumps({"markups": [{"controlPoints": controls}]}))
    for name in FORMATS:
        read = read_landmarks(tmp_path / f"p.{name}", tiny_protocol)
        for label, position in zip(("C_R", "A_L", "B_M"), points, strict=True):
            np.testing.assert_allclose(read.point(label), position)


# .fcsv --------------------------------------------------------------------------------------------

SLICER5 = """\
# Markups fiducial file version = slicer-core-5.12.4.0
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,-1.5,-2,3,0,0,0,1,1,1,0,A_L,,,2,0
2,-4,-5,6,0,0,0,1,1,1,0,A_R,,,0,0
3,-7,-8,9,0,0,0,1,1,1,0,B_M,"seen, late",,3,0
4,-7,-8,9,0,0,0,1,1,1,0,C_L,,,1,0
5,-7,-8,9,0,0,0,1,1,1,0,C_R,,vtkMRMLNode1,2,1
"""


def test_fcsv_of_slicer_5_says_which_points_are_placed(tmp_path, tiny_protocol):
    path = tmp_path / "p.fcsv"
    path.write_text(SLICER5)
    read = read_landmarks(path, tiny_protocol)
    assert read.status == ["truth", "missing", "missing", "missing", "truth"]
    np.testing.assert_allclose(read.point("A_L"), [1.5, 2, 3])
    np.testing.assert_allclose(read.point("C_R"), [7, 8, 9])


def padded(separator, quote=""):
    """SLICER5 as a spreadsheet saves it: all lines of one length, perhaps of quoted cells."""
    rows = list(csv.reader(SLICER5.splitlines()))
    width = max(len(row) for row in rows)
    lines = []
    for row in rows:
        cells = row + [""] * (width - len(row))
        if separator == ";" and not row[0].startswith("#"):
            cells = [cell.replace("1.5", "1,5") for cell in cells]
        quoted = [f'"{cell}"' if "," in cell or (quote and cell) else cell for cell in cells]
        lines.append(separator.join(quoted))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_fcsv_that_a_spreadsheet_saved_again(tmp_path, tiny_protocol, separator, quote):
    (tmp_path / "a.fcsv").write_text(SLICER5)
    (tmp_path / "b.fcsv").write_text(padded(separator, quote))
    assert ",,,," in padded(",") or ";;;;" in padded(";")
    plain, saved = (read_landmarks(tmp_path / f"{n}.fcsv", tiny_protocol) for n in "ab")
    np.testing.assert_allclose(saved.points, plain.points)
    assert saved.status == plain.status


# As the AFIDs project describes its points.
AFIDS_TEXTS = {
    4: "PMJ",
    6: "R superior LMS",
    13: "L MB",
    19: "Genu of CC",
    32: "L olfactory sulcal fundus",
}


@pytest.mark.parametrize("renumbered", [False, True])
def test_afids_files_with_fewer_rows_are_matched_by_description(
    tmp_path, afids32, afids_points, renumbered
):
    kept = [n - 1 for n in AFIDS_TEXTS]
    labels = [str(k + 1) for k in (range(len(kept)) if renumbered else kept)]
    names = list(AFIDS_TEXTS.values())
    path = afids_file(tmp_path / "a.fcsv", afids32, afids_points[kept], labels=labels, names=names)
    read = read_landmarks(path, afids32)
    np.testing.assert_allclose(read.points[kept], afids_points[kept])
    assert read.missing.sum() == 32 - len(kept)
    assert [lm.name for lm in afids32][12] == "left mammillary body"


def test_numbers_alone_say_nothing_in_a_part_of_a_set(tmp_path, afids32, afids_points):
    path = afids_file(
        tmp_path / "a.fcsv", afids32, afids_points[:31], names=[""] * 31,
        labels=[str(n) for n in range(2, 33)],
    )  # fmt: skip
    with pytest.raises(UserError, match="where all 32 are there"):
        read_landmarks(path, afids32)


def test_number_and_description_must_agree_in_a_part_of_a_set(tmp_path, afids32, afids_points):
    path = afids_file(
        tmp_path / "a.fcsv", afids32, afids_points[:2], labels=["6", "4"], names=["R MB", "PMJ"]
    )
    with pytest.raises(UserError, match="described as R MB"):
        read_landmarks(path, afids32)


@pytest.mark.parametrize(
    ("system", "signs"), [("0", 1), ("RAS", 1), ("1", [-1, -1, 1]), ("LPS", [-1, -1, 1])]
)
def test_afids_files_are_read_by_number(tmp_path, afids32, afids_points, system, signs):
    path = afids_file(tmp_path / "a.fcsv", afids32, afids_points, system)
    read = read_landmarks(path, afids32)
    np.testing.assert_allclose(read.points, afids_points * signs)
    assert read.status == ["truth"] * 32


def test_afids_files_in_another_order(tmp_path, afids32, afids_points):
    order = np.random.default_rng(0).permutation(32)
    labels = [str(n + 1) for n in order]
    names = [afids32.labels[n] for n in order]
    path = afids_file(tmp_path / "a.fcsv", afids32, afids_points[order], labels=labels, names=names)
    np.testing.assert_allclose(read_landmarks(path, afids32).points, afids_points)


def test_unnamed_points_are_taken_in_order(tmp_path, afids32, afids_points):
    labels = [f"F-{n + 1}" for n in range(32)]
    path = afids_file(tmp_path / "a.fcsv", afids32, afids_points, labels=labels, names=[""] * 32)
    np.testing.assert_allclose(read_landmarks(path, afids32).points, afids_points)


def test_numbers_of_another_protocol_are_not_mixed_up(tmp_path, afids32, brain88, afids_points):
    path = afids_file(tmp_path / "a.fcsv", afids32, afids_points)
    with pytest.raises(UserError, match="brain88 does not know"):
        read_landmarks(path, brain88)


def test_number_and_name_must_agree(tmp_path, afids32, afids_points):
    names = list(afids32.labels)
    names[0], names[1] = names[1], names[0]
    path = afids_file(tmp_path / "a.fcsv", afids32, afids_points, names=names)
    with pytest.raises(UserError, match="described as PC"):
        read_landmarks(path, afids32)


# What is refused ----------------------------------------------------------------------------------


BAD_FILES = {
    "p.mrk.json": {
        "no markups": ("{}", "not a Slicer markups file"),
        "no json": ("{", "not a Slicer markups file"),
        "a list": ("[1, 2]", "not a Slicer markups file"),
        "empty": ('{"markups": []}', "no points"),
        "unknown": (
            '{"markups": [{"controlPoints": [{"label": "A_X", "position": [1, 2, 3]}]}]}',
            "did you mean A_",
        ),
        "twice": (
            '{"markups": [{"controlPoints": [{"label": "A_L", "position": [1, 2, 3]}, '
            '{"label": "A_L", "position": [1, 2, 3]}]}]}',
            "A_L twice",
        ),
        "two numbers": (
            '{"markups": [{"controlPoints": [{"label": "A_L", "position": [1, 2]}]}]}',
            "three numbers",
        ),
        "nan": (
            '{"markups": [{"controlPoints": [{"label": "A_L", "position": [1, 2, NaN]}]}]}',
            "three numbers",
        ),
        "inches": (
            '{"markups": [{"coordinateUnits": "in", "controlPoints": '
            '[{"label": "A_L", "position": [1, 2, 3]}]}]}',
            "in mm",
        ),
        "text": (
            '{"markups": [{"controlPoints": [{"label": "A_L", "position": "123"}]}]}',
            "three numbers",
        ),
        "truths": (
            '{"markups": [{"controlPoints": [{"label": "A_L", "position": [true, 2, 3]}]}]}',
            "three numbers",
        ),
        "frame": (
            '{"markups": [{"coordinateSystem": "IJK", "controlPoints": '
            '[{"label": "A_L", "position": [1, 2, 3]}]}]}',
            "only RAS and LPS",
        ),
    },
    "p.csv": {
        "empty": ("", "no column label, r, a, s"),
        "columns": ("label,x,y,z\nA_L,1,2,3\n", "no column r, a, s"),
        "no rows": ("label,r,a,s\n", "no points"),
        "word": ("label,r,a,s\nA_L,1,2,three\n", "three numbers"),
        "hole": ("label,r,a,s\nA_L,1,,3\n", "three numbers"),
        "unknown": ("label,r,a,s\nc_q,1,2,3\n", "did you mean C_"),
        "twice": ("label,r,a,s\nA_L,1,2,3\na_l,1,2,3\n", "twice"),
        "status": ("label,r,a,s,status\nA_L,1,2,3,guessed\n", "guessed"),
        "confidence": ("label,r,a,s,confidence\nA_L,1,2,3,7\n", "between 0 and 1"),
        "decimal commas": ("label,r,a,s\nA_L,-13,1915,69,7720,-3,2115\n", "7 cells for 4 columns"),
        "one decimal comma": ("label,r,a,s\nA_L,-13,69,7720,-3\n", "5 cells for 4 columns"),
        "an empty surplus cell": ("label,r,a,s\nA_L,-13,69,7720,\n", "5 cells for 4 columns"),
        "quoted decimal commas": ('label,r,a,s\nA_L,"1,5",2,3\n', "commas within its numbers"),
        "thousands": ("label;r;a;s\nA_L;1.200,5;2;3\n", "commas within its numbers"),
        "mixed": ("label;r;a;s\nA_L;1,5;2.5;3\n", "commas within its numbers"),
        "underscores": ("label,r,a,s\nA_L,1_9,2,3\n", "three numbers"),
        "column twice": ("label,r,a,s,r\nA_L,1,2,3,4\n", "column r twice"),
        "quotes": ('label,r,a,s\nA_L,1,2,3\n"A_R,1,2,3\n', "not a table"),
        "lost decimals": ("label,r,a,s\nA_L,-131915,2,3\nA_R,1,2,3\n", "no head in mm"),
    },
    "p.fcsv": {
        "no header": ("a,1,2,3\n", "not a .fcsv file"),
        "frame": (AFIDS_HEADER.format(system="2") + "a,1,2,3,0,0,0,1,1,1,0,A_L,,\n", "only RAS"),
        "short row": (AFIDS_HEADER.format(system="0") + "a,1,2\n", "without names"),
        "word": (
            AFIDS_HEADER.format(system="0") + "a,1,2,x,0,0,0,1,1,1,0,A_L,,\n",
            "three numbers",
        ),
        "no points": (AFIDS_HEADER.format(system="0"), "no points"),
        "decimal commas": (
            AFIDS_HEADER.format(system="0") + "a,1,5,2,5,3,5,0,0,0,1,1,1,0,A_L,,\n",
            "17 cells|did you mean|does not know|three numbers",
        ),
        "surplus": (
            AFIDS_HEADER.format(system="0") + "a,1,2,3,0,0,0,1,1,1,0,A_L,,,2,0,7\n",
            "17 cells for 16 columns",
        ),
        "position status": (
            AFIDS_HEADER.format(system="0") + "a,1,2,3,0,0,0,1,1,1,0,A_L,,,9,0\n",
            "position status '9'",
        ),
    },
}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param(name, content, says, id=f"{name}-{case}")
        for name, cases in BAD_FILES.items()
        for case, (content, says) in cases.items()
    ],
)
def test_nonsense_is_refused(tmp_path, tiny_protocol, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says) as error:
        read_landmarks(tmp_path / name, tiny_protocol)
    assert name in str(error.value)


def test_files_that_are_not_there_or_not_text(tmp_path, tiny_protocol):
    with pytest.raises(UserError, match="cannot read"):
        read_landmarks(tmp_path / "no.csv", tiny_protocol)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a text file"):
        read_landmarks(tmp_path / "b.csv", tiny_protocol)


def test_unknown_suffix_and_unwritable_folder(tmp_path, tiny_protocol):
    landmarks = LandmarkSet.from_points(tiny_protocol, expected_points(5))
    with pytest.raises(UserError, match="suffix"):
        write_landmarks(tmp_path / "p.txt", landmarks)
    for name in FORMATS:
        with pytest.raises(UserError, match="cannot write"):
            write_landmarks(tmp_path / "no" / f"p.{name}", landmarks)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"points": np.zeros((4, 3))}, "shape"),
        ({"status": ["model"] * 4}, "5 statuses"),
        ({"status": ["guess"] * 5}, "guess"),
        ({"status": ["missing"] * 5}, "exactly when"),
        ({"points": np.full((5, 3), np.nan)}, "exactly when"),
    ],
)
def test_landmark_sets_are_consistent(tiny_protocol, changes, says):
    arguments = {
        "points": expected_points(5),
        "status": ["model"] * 5,
        "confidence": np.full(5, np.nan),
        **changes,
    }
    with pytest.raises(ValueError, match=says):
        LandmarkSet(tiny_protocol, **arguments)


@pytest.mark.parametrize("suffix", [".mrk.json", ".csv"])
def test_notes_go_through_a_file(tmp_path, some_landmarks, suffix):
    """What is remarked of a missing point, and of one that is there, comes back as it was."""
    some_landmarks.notes[2] = "no eye here: cut away or defaced"
    some_landmarks.notes[5] = "two (of three), agree"
    write_landmarks(tmp_path / f"a{suffix}", some_landmarks)
    read = read_landmarks(tmp_path / f"a{suffix}", some_landmarks.protocol)
    assert read.notes == some_landmarks.notes
    assert read.status == some_landmarks.status
    np.testing.assert_allclose(read.confidence, some_landmarks.confidence, atol=1e-3)


def test_a_table_without_notes_is_read(tmp_path, some_landmarks):
    path = tmp_path / "a.csv"
    write_landmarks(path, some_landmarks)
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    assert not any(read_landmarks(path, some_landmarks.protocol).notes)
