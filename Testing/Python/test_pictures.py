"""The picture: the right slices, each point where the anatomy is, conventions a reader expects."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from BrainLandmarksLib.figures import fonts
from BrainLandmarksLib.figures.slices import NEAR_MM, choose_slices, draw_landmarks
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[1:3, 1:3] = [[c, -s], [s, c]]
    affine[:3, 3] = [3, -4, 12]
    return affine


@pytest.fixture(scope="module")
def head_points(brain88):
    """Points that lie on the planes the protocol names, on an invented head."""
    rng = np.random.default_rng(1)
    points = rng.uniform([-60, -60, -30], [60, 60, 60], (len(brain88), 3))
    for row, landmark in enumerate(brain88):
        x = {"L": -abs(points[row, 0]), "R": abs(points[row, 0]), "M": 0.0}[landmark.side]
        points[row, 0] = x
        if "globe" in landmark.plane:
            points[row, 2] = -30
        elif "above the corpus" in landmark.plane:
            points[row, 2] = 45
        elif "along" in landmark.plane:
            points[row, 2] = -15 + 0.4 * points[row, 1]
        elif "head" in landmark.plane:
            points[row, 1] = -5 - 0.4 * points[row, 2]
        elif "body" in landmark.plane:
            points[row, 1] = -22 - 0.4 * points[row, 2]
    return points


def test_slices_are_the_planes_of_the_protocol(brain88, head_points):
    slices = choose_slices(LandmarkSet.from_points(brain88, head_points))
    assert [(s.title, s.orientation) for s in slices] == [
        ("Mid-sagittal", "sagittal"),
        ("Axial through the globe", "axial"),
        ("Axial above the corpus callosum", "axial"),
        ("Along the hippocampal axis", "axial"),
        ("Across the hippocampal head", "coronal"),
        ("Across the hippocampal body", "coronal"),
    ]
    on_some_slice = np.any([s.distances(head_points) <= NEAR_MM for s in slices], axis=0)
    assert on_some_slice.sum() >= 84


@pytest.mark.parametrize("degrees", [0, 15, -25])
def test_slices_turn_with_the_head(brain88, head_points, degrees):
    upright = choose_slices(LandmarkSet.from_points(brain88, head_points))
    motion = turned(degrees)
    moved = choose_slices(LandmarkSet.from_points(brain88, apply_affine(motion, head_points)))
    for before, after in zip(upright, moved, strict=True):
        assert before.title == after.title
        np.testing.assert_allclose(
            np.abs(motion[:3, :3] @ before.normal @ after.normal), 1, atol=1e-6
        )


def test_directions_follow_radiological_convention(brain88, head_points):
    slices = choose_slices(LandmarkSet.from_points(brain88, head_points))
    assert {s.orientation for s in slices} == {"sagittal", "axial", "coronal"}
    for s in slices:
        if s.orientation == "sagittal":
            assert s.right[1] < -0.9  # anterior on the left
            assert s.up[2] > 0.9
        else:
            assert s.right[0] < -0.9  # the patient's right on the left
            assert s.up[1 if s.orientation == "axial" else 2] > 0.8
        np.testing.assert_allclose([s.right @ s.up, np.linalg.norm(s.right)], [0, 1], atol=1e-9)


def test_a_point_is_drawn_on_the_voxel_it_belongs_to(brain88, head_points):
    affine = np.eye(4)
    affine[:3, 3] = [-90, -108, -90]
    grid = Grid((181, 217, 181), affine)
    checked = 0
    for s in choose_slices(LandmarkSet.from_points(brain88, head_points)):
        row = int(np.argmin(s.distances(head_points)))
        if s.distances(head_points)[row] > 1:
            continue  # a slice between points
        data = np.zeros(grid.shape, np.float32)
        i, j, k = np.rint(grid.ras_to_ijk(head_points[row])).astype(int)
        data[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 1
        image = s.sample(Volume(data, grid))
        brightest = np.argwhere(image > 0.5 * image.max()).mean(axis=0)
        expected = s.project(head_points[row : row + 1])[0] / 0.75 + (image.shape[0] - 1) / 2
        np.testing.assert_allclose(brightest, expected, atol=2)
        checked += 1
    assert checked == 6, "every slice of these points has one on it"


def test_protocol_without_planes_gets_upright_slices(tiny_protocol):
    points = [[-30, 20, 0], [30, 20, 1], [0, 60, 40], [-30, -50, 2], [31, -52, 0]]
    landmarks = LandmarkSet.from_points(tiny_protocol, points)
    slices = choose_slices(landmarks)
    assert 1 <= len(slices) <= 6
    shown = np.any([s.distances(landmarks.points) <= NEAR_MM for s in slices], axis=0)
    assert shown.all()


@pytest.mark.parametrize("absent", [range(0), range(60), range(88)])
def test_picture_shows_what_there_is(tmp_path, blob_head, brain88, head_points, absent):
    points = head_points.copy()
    points[list(absent)] = np.nan
    landmarks = LandmarkSet.from_points(brain88, points)
    draw_landmarks(blob_head, landmarks, tmp_path / "head.png", title="head")
    image = imread(tmp_path / "head.png")[..., :3]
    assert min(image.shape[:2]) > 800
    colors = np.unique((image * 255).round().astype(np.uint8).reshape(-1, 3), axis=0)
    for group in brain88.groups:
        expected = np.array([int(group.color[i : i + 2], 16) for i in (1, 3, 5)])
        # In the legend always, on the slices where there are points.
        assert (np.abs(colors.astype(int) - expected).max(axis=1) <= 1).any()
    assert [path.name for path in tmp_path.iterdir()] == ["head.png"]


# Names --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["Пациент $5", "ฉัน 張偉 🧠"])
def test_names_in_any_script_are_drawn_without_a_warning(
    tmp_path, blob_head, tiny_protocol, name, capfd
):
    """Where no font that is installed has a character, a square stands for it."""
    landmarks = LandmarkSet.from_points(tiny_protocol, [[n, n, n] for n in range(5)])
    draw_landmarks(blob_head, landmarks, tmp_path / "head.png", title=name)
    assert imread(tmp_path / "head.png").size
    assert "".join(capfd.readouterr()) == ""


def test_a_font_that_has_the_characters_is_used(monkeypatch):
    """Matplotlib's own font lacks the first character, and brings another one that has it."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(fonts, "_FALLBACKS", ("no such font", "STIXGeneral"))
    unknown = "\N{CJK UNIFIED IDEOGRAPH-5F35}"
    known = next(chr(c) for c in sorted(fonts._characters("STIXGeneral"))
                 if c not in fonts._characters("sans-serif"))  # fmt: skip
    figure = Figure()
    text = figure.text(0, 0, f"a{known}{unknown}")
    plain = figure.text(0, 0, "plain")
    before = plain.get_fontfamily()
    fonts.make_legible(figure)
    assert text.get_text() == f"a{known}\N{WHITE SQUARE}"
    assert text.get_fontfamily() == ["sans-serif", "STIXGeneral"]
    assert (plain.get_text(), plain.get_fontfamily()) == ("plain", before)


def test_every_picture_is_saved_in_one_place():
    """So that names are legible on all of them."""
    root = Path(fonts.__file__).parents[3]
    saving = {
        path.name
        for library in ("BrainLandmarks", "BrainLandmarksTrain")
        for path in (root / library).rglob("*.py")
        if re.search(r"\b(print_png|savefig|print_figure)\(", path.read_text(encoding="utf-8"))
    }
    assert saving == {"saving.py", "fonts.py"}
