"""The landmark protocols as data, and what is said about a protocol file that is wrong."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.figures import guide
from BrainLandmarksLib.figures.guide import draw_group, markdown, picture_name, plain_text
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.io.landmarks.fcsv import read_fcsv
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("afids32", "brain88")

# Table I of the paper.
TABLE_I = [
    ("Frontal Lobe", 1, 5),
    ("Brain Stem", 6, 13),
    ("Brain Boundary MSP", 14, 24),
    ("Corpus Callosum", 25, 37),
    ("Eye", 38, 45),
    ("Brain Axial Boundary", 46, 55),
    ("Temporal Lobe", 56, 88),
]


@pytest.fixture(params=SHIPPED)
def protocol(request) -> Protocol:
    return load_protocol(request.param)


def test_shipped_protocols_are_found_by_name():
    assert resources.protocol_names() == list(SHIPPED)


def test_brain88_has_the_groups_of_table_one():
    brain88 = load_protocol("brain88")
    assert len(brain88) == 88
    assert [(group.name, group.first, group.last) for group in brain88.groups] == TABLE_I


def test_brain88_puts_left_before_right():
    brain88 = load_protocol("brain88")
    left = [landmark for landmark in brain88 if landmark.side == "L"]
    assert left
    for landmark in left:
        assert brain88.by_label(landmark.mirror).index == landmark.index + 1


def test_secondary_points_of_brain88_are_those_spaced_along_an_outline():
    secondary = [lm.index for lm in load_protocol("brain88") if lm.role == "secondary"]
    assert secondary == [*range(15, 24), 27, 28, 30, 34, 35, 36, *range(46, 56)]


def test_afids_of_brain88_agree_in_side_with_the_afids():
    brain88, afids = load_protocol("brain88"), load_protocol("afids32")
    same = {lm.label: lm.afid for lm in brain88 if lm.afid is not None}
    assert same == {"PMN": 4, "CC_G": 19, "CC_ST": 20, "TH_L": 22, "TH_R": 21}
    for label, number in same.items():
        assert afids.landmarks[number - 1].side == brain88.by_label(label).side


def test_every_rule_is_one_sentence_and_every_group_has_a_guideline(protocol):
    for landmark in protocol:
        assert landmark.rule.endswith(".")
        assert landmark.rule.count(". ") == 0, landmark.label
    assert all(group.guideline.endswith(".") for group in protocol.groups)


def test_labels_in_rules_are_landmarks_of_the_same_side(protocol):
    labels = set(protocol.labels)
    for landmark in protocol:
        words = landmark.rule.replace("(", " ").replace(")", " ").replace(",", " ").split()
        named = [word for word in words if "_" in word or word in labels - {"AC", "PC"}]
        for word in named:
            assert word in labels, f"{landmark.label} refers to {word}"
            assert protocol.by_label(word).side in ("M", landmark.side)


def test_mirror_permutation_swaps_the_sides_and_undoes_itself(protocol):
    permutation = protocol.mirror_permutation()
    assert permutation.shape == (len(protocol),)
    np.testing.assert_array_equal(permutation[permutation], np.arange(len(protocol)))
    opposite = {"L": "R", "R": "L", "M": "M"}
    for row, landmark in enumerate(protocol):
        assert protocol.landmarks[permutation[row]].side == opposite[landmark.side]


def test_group_lookups_agree(protocol):
    for group in protocol.groups:
        for landmark in protocol.members(group):
            assert protocol.group_of(landmark) is group
            assert protocol.group_of(landmark.label) is group
            assert landmark.group == group.name


def test_unknown_label_and_group_are_user_errors(protocol):
    with pytest.raises(UserError, match="no landmark called 'XX'"):
        protocol.by_label("XX")
    with pytest.raises(UserError, match="no group called 'XX'"):
        protocol.members("XX")


def test_json_text_reads_back_as_the_same_protocol(protocol, tmp_path):
    path = tmp_path / "copy.json"
    path.write_text(protocol.to_json(), encoding="utf-8")
    assert load_protocol(path) == protocol
    assert load_protocol(str(path)).hash == protocol.hash


def test_hash_covers_the_definitions_and_not_their_presentation(tmp_path):
    original = json.loads(resources.protocol_file("brain88").read_text(encoding="utf-8"))

    def hash_after(change) -> str:
        data = copy.deepcopy(original)
        change(data)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return load_protocol(path).hash

    reference = load_protocol("brain88").hash
    assert hash_after(lambda data: data["groups"][0].update(color="#123456")) == reference
    assert hash_after(lambda data: data["landmarks"][0].update(name="pole")) == reference
    assert hash_after(lambda data: data.update(distances=[])) == reference
    assert hash_after(lambda data: data.update(scan_planes=[])) == reference
    assert hash_after(lambda data: data["planes"][0].update(shared="side")) == reference
    assert hash_after(lambda data: data["landmarks"][0].update(rule="Elsewhere.")) != reference
    assert (
        hash_after(
            lambda data: (
                data.update(distances=[], scan_planes=[])
                or data["landmarks"][0].update(label="POLE_L")
                or data["landmarks"][1].update(mirror="POLE_L")
            )
        )
        != reference
    )


# Colours ------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes 2009, full severity, on linear RGB.
COLOUR_VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(rgb: np.ndarray, vision: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours (n, 3) as someone with this colour vision sees them."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ vision.T, 0, 1) @ TO_XYZ.T / [0.95047, 1.0, 1.08883]
    f = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_group_colours_stay_apart_for_every_colour_vision(vision):
    colours = np.array([group.rgb for group in load_protocol("brain88").groups])
    seen = lab(colours, COLOUR_VISION[vision])
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    # A difference of about 10 is plain on small marks side by side; 20 leaves room.
    assert distances[np.triu_indices(len(colours), 1)].min() > 20
    # Dots lie on grey tissue: light enough for dark grey, coloured enough for any grey.
    if vision == "normal":
        assert seen[:, 0].min() > 50
        assert np.hypot(seen[:, 1], seen[:, 2]).min() > 40


# Another landmark set by file alone ---------------------------------------------------------------


def test_afids_coordinates_are_read_from_an_fcsv_file(tmp_path):
    afids = load_protocol("afids32")
    names = {1: "AC", 2: "PC", 6: "R superior LMS", 7: "L superior LMS", 32: "L olfactory fundus"}
    lines = ["# Markups fiducial file version = 4.6", "# CoordinateSystem = 0"]
    lines.append("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID")
    rng = np.random.default_rng(0)
    expected = rng.uniform(-90, 90, (32, 3)).round(3)
    for number, (x, y, z) in enumerate(expected, start=1):
        name = names.get(number, "")
        lines.append(f"vtk_{number},{x},{y},{z},0,0,0,1,1,1,0,{number},{name},vtkMRMLVolume1")
    path = tmp_path / "head_afids.fcsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    landmarks = read_fcsv(path, afids)
    np.testing.assert_allclose(landmarks.points, expected)
    np.testing.assert_allclose(landmarks.point("RSLMS"), expected[5])
    np.testing.assert_allclose(landmarks.point("LOSF"), expected[31])


def test_afid_numbers_are_the_indices_of_afids32():
    assert [landmark.afid for landmark in load_protocol("afids32")] == list(range(1, 33))


def minimal() -> dict:
    """A small valid protocol with one pair, a midline point and a chain."""
    point = {"group": "Knee", "rule": "Somewhere.", "side": "M"}
    return {
        "name": "knee",
        "title": "Knee",
        "groups": [{"name": "Knee", "first": 1, "last": 5, "color": "#112233"}],
        "chains": [{"group": "Knee", "members": ["TOP", "MID", "END"], "closed": False}],
        "landmarks": [
            {**point, "index": 1, "label": "A_L", "name": "left", "side": "L", "mirror": "A_R"},
            {**point, "index": 2, "label": "A_R", "name": "right", "side": "R", "mirror": "A_L"},
            {**point, "index": 3, "label": "TOP", "name": "top", "mirror": "TOP"},
            {
                **point,
                "index": 4,
                "label": "MID",
                "name": "middle",
                "mirror": "MID",
                "role": "secondary",
            },
            {**point, "index": 5, "label": "END", "name": "end", "mirror": "END"},
        ],
    }


def load(data, tmp_path: Path) -> Protocol:
    path = tmp_path / "knee.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return load_protocol(path)


def test_protocol_of_any_size_loads_from_a_file(tmp_path):
    knee = load(minimal(), tmp_path)
    assert len(knee) == 5
    assert knee.by_label("A_L").role == "primary"
    assert knee.mirror_permutation().tolist() == [1, 0, 2, 3, 4]
    assert "Knee (1-5)" in plain_text(knee)


def lm(number: int, **changes):
    return lambda data: data["landmarks"][number - 1].update(changes)


def group(**changes):
    return lambda data: data["groups"][0].update(changes)


def chain(**changes):
    return lambda data: data["chains"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("title"), "'title' is a required property"),
        (lambda data: data.update(colour="red"), "'colour' was unexpected"),
        (lm(1, side="left"), r"landmarks\[0\].side: 'left' is not one of"),
        (lm(1, index="1"), r"landmarks\[0\].index: '1' is not of type 'integer'"),
        (lm(1, label="A L"), r"landmarks\[0\].label: 'A L' does not match"),
        (lm(1, afid=33), r"landmarks\[0\].afid: 33 is greater than"),
        (lambda data: data["landmarks"][0].pop("rule"), "'rule' is a required property"),
        (group(color="orange"), r"groups\[0\].color: 'orange' does not match"),
        (lm(2, index=3), "landmark A_R has index 3 but stands at position 2"),
        (lm(3, label="a_l", mirror="a_l"), "the label A_L is used twice"),
        (lm(3, name="Left"), "the name left is used twice"),
        (lm(3, plane="tilted"), "refers to the undefined plane 'tilted'"),
        (group(first=2), "covers 2 to 5 but must start at 1"),
        (group(last=4), "the groups end at 4 but there are 5 landmarks"),
        (lm(3, group="Hip"), "says group Hip but lies in the index range of Knee"),
        (lm(1, mirror="A_X"), "mirrors to the unknown label A_X"),
        (lm(1, mirror="TOP"), "which mirrors to TOP; partners name each other"),
        (lm(2, side="L"), "a left point mirrors to a right one"),
        (lm(1, mirror="A_L"), "mirrors to A_L"),
        (
            lambda data: (lm(3, mirror="END")(data), lm(5, mirror="TOP")(data)),
            "midline landmark TOP mirrors to END, not to itself",
        ),
        (lm(2, role="secondary"), "differ in role or group"),
        (chain(members=["TOP", "MID", "TIP"]), "refers to the unknown label TIP"),
        (chain(group="Hip"), "in a chain of group Hip but not in the group"),
        (chain(members=["MID", "TOP", "END"]), "ends at MID, which is secondary"),
        (chain(members=["A_L", "TOP", "END"]), "TOP is spaced by a chain but is primary"),
        (chain(members=["TOP", "MID", "END"], closed=True), "TOP is spaced by a chain but is"),
        (lambda data: data["chains"].append(data["chains"][0]), "MID is spaced by two chains"),
        (lambda data: data["chains"].clear(), "secondary but no chain says where"),
    ],
)
def test_wrong_protocol_gets_one_sentence_that_names_the_fault(change, message, tmp_path):
    data = minimal()
    change(data)
    with pytest.raises(UserError, match=message) as caught:
        load(data, tmp_path)
    assert "\n" not in str(caught.value)
    assert "knee.json" in str(caught.value)


def test_pairs_keep_one_left_right_order(tmp_path):
    data = minimal()
    data["chains"] = []
    del data["landmarks"][2:]
    data["groups"][0]["last"] = 4
    common = {"group": "Knee", "rule": "Somewhere."}
    data["landmarks"] += [
        {**common, "index": 3, "label": "B_R", "name": "b", "side": "R", "mirror": "B_L"},
        {**common, "index": 4, "label": "B_L", "name": "c", "side": "L", "mirror": "B_R"},
    ]
    with pytest.raises(UserError, match="one order holds in the whole protocol"):
        load(data, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid JSON"),
        ("[1, 2", "is not valid JSON"),
        ("[]", "not valid at top level"),
        (b"\xff\xfe\x00", "is not valid JSON"),
    ],
)
def test_file_that_is_no_protocol_gets_one_sentence(content, message, tmp_path):
    path = tmp_path / "points.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load_protocol(path)


def test_unknown_protocol_names_the_shipped_ones(tmp_path):
    with pytest.raises(UserError, match="no protocol called 'brain89'; give afids32, brain88 or"):
        load_protocol("brain89")
    with pytest.raises(UserError, match=r"gone\.json cannot be read"):
        load_protocol(tmp_path / "gone.json")


# Documentation and command line -------------------------------------------------------------------


def test_protocol_document_is_the_one_generated_from_the_protocol():
    document = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    thumbnails = Path("../BrainLandmarks/Resources/Thumbnails/brain88")
    expected = markdown(load_protocol("brain88"), Path("images"), thumbnails)
    # The documentation has its pictures as WebP.
    expected = re.sub(r"\((images/\w+)\.png\)", r"(\1.webp)", expected)
    assert document == expected, "run: make docs"


def test_document_shows_every_landmark_and_group(protocol):
    text = markdown(protocol)
    for landmark in protocol:
        assert f"| {landmark.index} | `{landmark.label}` | {landmark.name} |" in text
    for group in protocol.groups:
        assert group.guideline in text
        assert picture_name(group) not in text
        assert f"(images/{picture_name(group)})" in markdown(protocol, Path("images"))


def test_plain_text_fits_a_terminal(protocol):
    assert max(len(line) for line in plain_text(protocol).splitlines()) <= 100


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "BrainLandmarksLib", "protocol", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_command_prints_json_that_loads_again(tmp_path):
    result = run_command("afids32", "--json")
    assert result.returncode == 0, result.stderr
    path = tmp_path / "afids.json"
    path.write_text(result.stdout, encoding="utf-8")
    assert load_protocol(path) == load_protocol("afids32")


def test_command_prints_the_document():
    result = run_command("--markdown")
    assert result.returncode == 0, result.stderr
    assert result.stdout == markdown(load_protocol("brain88"))


def test_command_refuses_an_unknown_protocol_in_one_sentence():
    result = run_command("brain89")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("brainlandmarks: error: there is no protocol called 'brain89'")
    assert result.stderr.count("\n") == 1


# Pictures -----------------------------------------------------------------------------------------


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def ring_on_a_head(brain88: Protocol) -> LandmarkSet:
    """The axial boundary as a tilted ellipse; all other landmarks missing."""
    points = np.full((len(brain88), 3), np.nan)
    (ring,) = (chain for chain in brain88.chains if chain.closed)
    for step, label in enumerate(ring.members):
        angle = 2 * np.pi * (step + 0.5) / len(ring.members)
        x, y = -60 * np.sin(angle), 75 * np.cos(angle)
        points[brain88.by_label(label).index - 1] = x, y, 30 + 0.1 * y
    return LandmarkSet.from_points(brain88, points)


def test_group_picture_shows_the_slice_its_points_lie_on(brain88, blob_head, tmp_path):
    group = next(group for group in brain88.groups if group.name == "Brain Axial Boundary")
    path = tmp_path / picture_name(group)
    draw_group(blob_head, ring_on_a_head(brain88), group, path)
    width, height = png_size(path)
    assert 400 < width < 600
    assert 400 < height < 600
    pixels = imread(path)[..., :3]
    found = np.abs(pixels - group.rgb).max(axis=-1) < 0.1
    assert found.sum() > 200, "the points are there in the colour of the group"


def test_group_without_points_still_gets_its_picture(brain88, blob_head, tmp_path):
    path = tmp_path / "eye.png"
    draw_group(blob_head, ring_on_a_head(brain88), brain88.groups[4], path)
    assert png_size(path)[0] > 400


def test_thumbnails_look_along_the_plane_of_each_landmark(
    brain88, blob_head, tmp_path, monkeypatch
):
    placed = read_landmarks(resources.sample_landmarks("brain88"), brain88)
    seen = []
    monkeypatch.setattr(guide, "_show_slice", lambda axes, volume, plane, *_: seen.append(plane))
    guide.draw_thumbnails(blob_head, placed, tmp_path)
    assert len(seen) == len(brain88)
    for plane, landmark, point in zip(seen, brain88, placed.points):
        assert (tmp_path / f"{landmark.label}.jpg").is_file()
        np.testing.assert_allclose(plane.center, point)
        assert plane.orientation in landmark.plane or plane.title == landmark.plane.capitalize()


def test_other_slices_show_only_what_no_plane_did(brain88, blob_head, tmp_path, monkeypatch):
    placed = read_landmarks(resources.sample_landmarks("brain88"), brain88)
    shown = []

    def take(axes, plane, members, near, group):
        shown.append((plane, near))

    monkeypatch.setattr(guide, "_draw_numbered", take)
    group = brain88.groups[-1]
    draw_group(blob_head, placed, group, tmp_path / "group.png")
    named = {landmark.plane.capitalize() for landmark in brain88.members(group)}
    before = np.zeros(len(brain88), bool)
    for plane, near in shown:
        assert plane.title in named or not (near & before).any()
        before |= near
    assert before.sum() == len(group.indices)


def test_command_draws_every_group_from_a_landmarks_file(tmp_path):
    afids = load_protocol("afids32")
    rng = np.random.default_rng(3)
    file = tmp_path / "afids.fcsv"
    write_landmarks(file, LandmarkSet.from_points(afids, rng.uniform(-40, 40, (32, 3)), "truth"))
    result = run_command("afids32", "--pictures", str(tmp_path / "out"), "--landmarks", str(file))
    assert result.returncode == 0, result.stderr
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert drawn == sorted(picture_name(group) for group in afids.groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--landmarks", "x.csv"), "--landmarks says what to draw; give --pictures DIR as well."),
        (("afids32", "--pictures", "out"), "there is no model of the protocol afids32"),
    ],
)
def test_command_says_what_pictures_need(arguments, message, tmp_path):
    result = run_command(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"brainlandmarks: error: {message}")
