"""Scan planes: exact phantoms, motion and mirrors, the slices, and how sure they are."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import dicom_files
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.image import imread
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import apply_affine, lps_to_ras
from BrainLandmarksLib.geometry.planes import angle_degrees
from BrainLandmarksLib.geometry.shape_model import CORRECTED_MM
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes import files, prescribe
from BrainLandmarksLib.planes.construction import construct, lacking
from BrainLandmarksLib.planes.measuring import plane_angles, plane_errors
from BrainLandmarksLib.planes.picture import cross_view, draw_planes
from BrainLandmarksLib.planes.prescription import by_name
from BrainLandmarksLib.planes.stack import FIELD_STEP_MM
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.evaluation.robustness.retest import Retest, write_retest

EXACT_DEGREES = 0.01
HASHES = {
    "brain88": "3579d52d1bd5821b60b08c79a6341faa5eb211f010f3e9579bc885e8645a2506",
    "afids32": "b98838d0d793ce2e9432edbe2691721fccd206a2e7e3910684be9bb6c0230649",
}
"""Of the protocols before they had scan planes: models that are out there know these."""

BRAIN88, AFIDS32 = (load_protocol(name) for name in HASHES)

SUBCALLOSAL, HIPPOCAMPAL, STEM, OCULAR, AC_PC = 12.0, 33.0, 71.0, -9.0, 7.0
"""Degrees that the lines of the phantom are inclined, front or top end up."""


def inclined(degrees):
    """A unit vector that points forward and up, in the mid-sagittal plane."""
    return np.array([0.0, np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def symmetric(protocol, points):
    """The head that is the mean of one and its mirror image."""
    mirrored = (points * [-1, 1, 1])[protocol.mirror_permutation()]
    return (points + mirrored) / 2


def phantom88():
    """A symmetric head in which all lines that planes follow have known inclinations."""
    sample = read_landmarks(resources.sample_landmarks("brain88"), BRAIN88).points
    points = symmetric(BRAIN88, sample)

    def put(label, place):
        points[BRAIN88.by_label(label).index - 1] = place

    put("CC_R", [0, 25, 0] + 3 * inclined(SUBCALLOSAL))
    put("CC_ST", [0, 25, 0] - 60 * inclined(SUBCALLOSAL))
    put("MB_T", [0, -20, -25] + 30 * inclined(STEM))
    put("OBEX", [0, -20, -25] - 25 * inclined(STEM))
    for x, side in ((-28, "L"), (28, "R")):
        for name, along in (("H", 15), ("B", 0), ("T", -15)):
            put(f"HIP_{name}_{side}", [x, -20, -12] + along * inclined(HIPPOCAMPAL))
        for name, along, out in (("A", 12, 0), ("P", -12, 0), ("M", 0, -12), ("LAT", 0, 12)):
            place = [1.15 * x + out * np.sign(x), 60, -35] + along * inclined(OCULAR)
            put(f"EYE_{name}_{side}", place)
    plane = next(p for p in BRAIN88.scan_planes if p.name == "axial AC-PC")
    back = np.cross([1.0, 0, 0], inclined(AC_PC))
    reference = points.copy()
    for each in plane.reference:
        row = BRAIN88.by_label(each.label).index - 1
        flat = 1.07 * (each.anterior * inclined(AC_PC) + each.superior * back)
        reference[row] = [points[row, 0], *(flat + [0, -3, 5])[1:]]
    return points, reference


PHANTOM, REFERENCE_PHANTOM = phantom88()


def normals(protocol, points):
    return {name: frame.normal for name, frame in construct(protocol, points).items()}


def off(one, other):
    return float(angle_degrees(one, other))


# The protocol -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HASHES)
def test_scan_planes_do_not_change_what_models_know_a_protocol_by(name):
    protocol = load_protocol(name)
    assert protocol.scan_planes
    assert protocol.hash == HASHES[name]


def test_a_protocol_file_without_scan_planes_is_read_and_written_as_before(tmp_path):
    data = json.loads(resources.protocol_file("brain88").read_text(encoding="utf-8"))
    del data["scan_planes"]
    (tmp_path / "old.json").write_text(json.dumps(data))
    old = load_protocol(tmp_path / "old.json")
    assert old.hash == HASHES["brain88"]
    assert "scan_planes" not in json.loads(old.to_json())
    with pytest.raises(UserError, match="has no scan planes"):
        prescribe(LandmarkSet.from_points(old, PHANTOM))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda planes: planes[1].update(name="mid-sagittal"), "defined twice"),
        (lambda planes: planes[1]["origin"].update(NOWHERE=1), "unknown landmark NOWHERE"),
        (lambda planes: planes[1].pop("line"), 'lacks "line"'),
        (lambda planes: planes[0].update(origin={"CC_G": 1}), 'cannot have "origin"'),
        (lambda planes: planes[1].update(left_right="axial AC-PC"), "takes left and right from"),
        (lambda planes: planes[1].update(view="sagittal"), "gives axial or coronal planes"),
        (lambda planes: planes[0].update(points={"CC_G": 1, "CC_S": 1}), "fewer than three"),
        (lambda planes: planes[0].update(construction="magic"), "not valid at scan_planes"),
    ],
)
def test_contradictory_scan_planes_are_refused_in_one_sentence(tmp_path, change, sentence):
    data = json.loads(resources.protocol_file("brain88").read_text(encoding="utf-8"))
    change(data["scan_planes"])
    (tmp_path / "wrong.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=sentence):
        load_protocol(tmp_path / "wrong.json")


# Where planes lie ---------------------------------------------------------------------------------


def test_planes_of_an_exact_phantom_are_exact():
    upwards = np.cross([1.0, 0, 0], inclined(SUBCALLOSAL))
    found = normals(BRAIN88, PHANTOM)
    expected = {
        "mid-sagittal": [1.0, 0, 0],
        "axial subcallosal": upwards,
        "coronal across the hippocampi": -inclined(HIPPOCAMPAL),
        "axial along the hippocampi": np.cross([1.0, 0, 0], inclined(HIPPOCAMPAL)),
        "axial neuro-ocular": np.cross([1.0, 0, 0], inclined(OCULAR)),
        "axial across the brain stem": inclined(STEM),
        "sagittal along the brain stem": [1.0, 0, 0],
        "coronal along the brain stem": -np.cross(inclined(STEM), [1.0, 0, 0]),
    }
    assert set(expected) | {"axial AC-PC"} == set(found)
    for name, normal in expected.items():
        assert off(found[name], normal) < EXACT_DEGREES, name
    frames = construct(BRAIN88, REFERENCE_PHANTOM)
    frame = frames["axial AC-PC"]
    assert off(frame.normal, np.cross([1.0, 0, 0], inclined(AC_PC))) < EXACT_DEGREES
    np.testing.assert_allclose(frame.origin, [0, -3, 5], atol=1e-6)


def test_the_ac_pc_plane_of_the_afids_holds_both_commissures():
    points = np.random.default_rng(3).normal(0, 20, (32, 3)) * [0.02, 1, 1]
    points[:2] = [[0, 2, -4], [0, -24, -9]]
    points[[18, 19]] += [0, 0, 30]
    points[3] -= [0, 0, 40]
    frame = construct(AFIDS32, points)["axial AC-PC"]
    assert np.abs((points[:2] - frame.origin) @ frame.normal).max() < 1e-9
    assert frame.normal[2] > 0.9


def test_images_are_seen_as_radiologists_see_them():
    """Axial: right on the left, front on top. Coronal: from the front. Sagittal: nose left."""
    rows = {"axial": [-1, 0, 0], "coronal": [-1, 0, 0], "sagittal": [0, -1, 0]}
    columns = {"axial": [0, -1, 0], "coronal": [0, 0, -1], "sagittal": [0, 0, -1]}
    for plane in BRAIN88.scan_planes:
        frame = construct(BRAIN88, PHANTOM)[plane.name]
        assert frame.row @ rows[plane.view] > 0.5, plane.name
        assert frame.column @ columns[plane.view] > 0.5, plane.name
        np.testing.assert_allclose(frame.axes.T @ frame.axes, np.eye(3), atol=1e-12)
        assert np.linalg.det(frame.axes) == pytest.approx(1)


@given(
    arrays.arrays(float, 3, elements=st.floats(-3, 3)),
    arrays.arrays(float, 3, elements=st.floats(-200, 200)),
    st.integers(0, 1000),
)
def test_planes_move_along_with_a_head(turn, shift, seed):
    """However the head lies, upside down too: nothing looks at the scanner's axes."""
    head = PHANTOM + np.random.default_rng(seed).normal(0, 2, PHANTOM.shape)
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), shift
    before, after = (construct(BRAIN88, p) for p in (head, apply_affine(motion, head)))
    for name, frame in before.items():
        np.testing.assert_allclose(
            after[name].origin, apply_affine(motion, frame.origin), atol=1e-6
        )
        np.testing.assert_allclose(after[name].axes, motion[:3, :3] @ frame.axes, atol=1e-8)


@given(st.integers(0, 1000))
def test_a_mirrored_head_has_the_mirrored_planes(seed):
    head = PHANTOM + np.random.default_rng(seed).normal(0, 2, PHANTOM.shape)
    mirror = np.array([-1.0, 1, 1])
    mirrored = (head * mirror)[BRAIN88.mirror_permutation()]
    before, after = (construct(BRAIN88, points) for points in (head, mirrored))
    for plane in BRAIN88.scan_planes:
        one, other = before[plane.name], after[plane.name]
        np.testing.assert_allclose(other.origin, one.origin * mirror, atol=1e-6)
        # A sagittal normal still points right, other rows still left.
        sign = -1 if plane.view == "sagittal" else 1
        np.testing.assert_allclose(other.normal, sign * one.normal * mirror, atol=1e-7)
        np.testing.assert_allclose(other.row, -sign * one.row * mirror, atol=1e-7)


@pytest.mark.parametrize("label", ["CC_ST", "CC_G", "OBEX", "EYE_M_R", "HIP_T_L", "AX_3_L", "FP_L"])
def test_a_missing_landmark_makes_planes_missing_and_changes_no_other(label):
    head = LandmarkSet.from_points(BRAIN88, PHANTOM)
    points = PHANTOM.copy()
    points[BRAIN88.by_label(label).index - 1] = np.nan
    whole, cut = prescribe(head), prescribe(LandmarkSet.from_points(BRAIN88, points))
    middle = label in BRAIN88.scan_planes[0].landmarks
    for one, other in zip(whole, cut, strict=True):
        if label in other.plane.landmarks:
            assert other.frame is None
            assert f"missing: {label}" in other.reason
        elif middle and other.plane.left_right:
            assert other.frame is None
            assert other.reason == "there is no mid-sagittal plane"
        else:
            np.testing.assert_array_equal(other.frame.axes, one.frame.axes)
            np.testing.assert_array_equal(other.frame.origin, one.frame.origin)
        targets = (*other.plane.field.landmarks, *other.plane.slab.landmarks)
        if other.frame is not None and label in targets:
            assert other.stack is None
            assert f"missing: {label}" in other.reason


def test_landmarks_in_one_place_give_no_plane():
    points = PHANTOM.copy()
    points[BRAIN88.by_label("CC_ST").index - 1] = points[BRAIN88.by_label("CC_R").index - 1]
    assert lacking(BRAIN88, points) == {
        "axial subcallosal": "its landmarks lie in one place or on one line"
    }
    assert len(lacking(BRAIN88, np.zeros_like(points))) == len(BRAIN88.scan_planes)


# Slices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(BRAIN88.scan_planes)))
def test_slices_cover_the_target_and_no_more(number):
    head = LandmarkSet.from_points(BRAIN88, PHANTOM)
    each = prescribe(head)[number]
    plane, stack = each.plane, each.stack
    local = {
        name: (np.array([head.point(x) for x in target.landmarks]) - stack.center)
        @ stack.frame.axes
        for name, target in (("field", plane.field), ("slab", plane.slab))
    }
    edge = plane.slab.margin_mm
    low = -stack.below * stack.spacing_mm - stack.thickness_mm / 2
    high = stack.above * stack.spacing_mm + stack.thickness_mm / 2
    across = local["slab"][:, 2]
    assert low <= across.min() - edge + 1e-9
    assert high >= across.max() + edge - 1e-9
    assert stack.below == 0 or low + stack.spacing_mm > across.min() - edge
    assert stack.above == 0 or high - stack.spacing_mm < across.max() + edge
    inside = np.array(stack.field_mm) / 2 - np.abs(local["field"][:, :2]).max(0)
    assert (inside >= plane.field.margin_mm - 1e-9).all()
    assert (inside <= plane.field.margin_mm + FIELD_STEP_MM / 2).all()
    # One slice lies on the plane itself.
    on_plane = stack.grid.ijk_to_ras([0, 0, stack.below])
    assert abs((on_plane - each.frame.origin) @ each.frame.normal) < 1e-9


def series(folder, each, values):
    """The stack as a classic DICOM series, with the vectors that the JSON file states."""
    geometry = files.plane_json(each)["DICOM"]
    first, last = (
        np.array(geometry[name]) for name in ("ImagePositionPatient", "LastImagePositionPatient")
    )
    folder.mkdir()
    count = geometry["NumberOfSlices"]
    for k in range(count):
        dataset = dicom_files._dataset(dicom_files.MRImageStorage, f"1.2.3.{k + 1}", "1.2.3")
        dataset.InstanceNumber = k + 1
        dataset.ImageOrientationPatient = geometry["ImageOrientationPatient"]
        dataset.ImagePositionPatient = list(np.round(first + (last - first) * k / (count - 1), 6))
        for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
            setattr(dataset, name, geometry[name])
        dicom_files._pixels(dataset, np.rint(values[:, :, k]).astype(np.int16).T[None])
        dataset.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return geometry


def test_dicom_readers_put_the_slices_where_they_belong(tmp_path):
    each = prescribe(LandmarkSet.from_points(BRAIN88, PHANTOM), pixel_mm=4.0)[1]
    grid = each.stack.grid
    geometry = series(tmp_path / "dicom", each, np.zeros(grid.shape))
    header = pydicom.dcmread(tmp_path / "dicom" / "000.dcm")
    assert (header.Columns, header.Rows) == grid.shape[:2]
    row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    np.testing.assert_allclose(lps_to_ras(row), each.frame.row, atol=1e-5)
    np.testing.assert_allclose(lps_to_ras(np.cross(row, column)), each.frame.normal, atol=1e-5)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "dicom")))
    image = reader.Execute()
    assert image.GetSize() == grid.shape == (
        geometry["Columns"], geometry["Rows"], geometry["NumberOfSlices"]
    )  # fmt: skip
    for index in ([0, 0, 0], [7, 3, 5], [n - 1 for n in grid.shape]):
        place = lps_to_ras(image.TransformIndexToPhysicalPoint([int(i) for i in index]))
        np.testing.assert_allclose(place, grid.ijk_to_ras(index), atol=2e-3)


def test_a_reformatted_stack_shows_what_lies_there(tmp_path, blob_head):
    each = prescribe(LandmarkSet.from_points(BRAIN88, PHANTOM), pixel_mm=4.0)[2]
    ramp = blob_head.grid.ijk_to_ras(np.moveaxis(np.indices(blob_head.grid.shape), 0, -1))[..., 1]
    volume = Volume((ramp + 300).astype(np.float32), blob_head.grid)
    values = files.reformatted(volume, each.stack)
    files.write_stack(tmp_path / "stack.nii.gz", values, each.stack)
    image = nib.load(tmp_path / "stack.nii.gz")
    np.testing.assert_allclose(image.affine, each.stack.grid.affine, atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    middle = np.array(image.shape) // 2
    place = apply_affine(image.affine, middle)
    assert image.get_fdata()[tuple(middle)] == pytest.approx(place[1] + 300, abs=0.5)


# How sure they are --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def errors():
    return LandmarkErrors.of_model("brain88", BRAIN88)


def found_head(confidence=0.97):
    return LandmarkSet.from_points(BRAIN88, PHANTOM, "model", np.full(len(BRAIN88), confidence))


def test_nine_of_ten_planes_lie_inside_if_landmarks_err_as_is_thought(errors):
    head = found_head()
    rng = np.random.default_rng(5)
    # Errors of another draw than those that the uncertainty is made of.
    sampled = errors.expected(head).sampled(800)[400:]
    pairs = {
        str(n): (LandmarkSet.from_points(BRAIN88, PHANTOM + move, "model", head.confidence),
                 LandmarkSet.from_points(BRAIN88, PHANTOM))
        for n, move in enumerate(sampled[rng.choice(400, 32, replace=False)])
    }  # fmt: skip
    measured = plane_errors(BRAIN88, pairs, errors)
    inside = np.array([each.inside for each in measured])
    assert abs(inside.mean() - 0.9) < 0.06
    assert inside.min() > 0.7


def test_less_sure_landmarks_make_less_sure_planes(errors):
    sure, unsure = (
        by_name(prescribe(found_head(level), errors), "axial subcallosal").uncertainty
        for level in (0.97, 0.5)
    )
    assert unsure.angle > 1.5 * sure.angle
    assert unsure.offset > 1.5 * sure.offset
    assert sure.about_column < sure.about_row  # left and right follow from many points


def test_without_confidence_the_model_s_mean_errors_count(errors):
    bare = LandmarkSet.from_points(BRAIN88, PHANTOM)
    usual = errors.confidence[1]
    one, other = (
        by_name(prescribe(head, errors), "mid-sagittal").uncertainty.angle
        for head in (bare, found_head(usual))
    )
    assert one == pytest.approx(other)


def test_corrected_landmarks_count_as_sure(errors):
    head = found_head()
    head.status = ["confirmed"] * len(BRAIN88)
    expected = errors.expected(head)
    assert (expected.sigma == CORRECTED_MM).all()
    assert np.array_equal(expected.covariance, CORRECTED_MM**2 * np.eye(3 * len(BRAIN88)))
    # What a model errs together turns a plane less than what a person errs point by point.
    offsets = [
        (sure.uncertainty.offset, unsure.uncertainty.offset)
        for sure, unsure in zip(prescribe(head, errors), prescribe(found_head(), errors))
    ]
    assert all(sure < 1.1 * unsure for sure, unsure in offsets)
    assert np.mean(offsets, axis=0)[0] < 0.8 * np.mean(offsets, axis=0)[1]


def test_nothing_is_said_where_nothing_is_known():
    people = LandmarkErrors.of_model("brain88", AFIDS32)
    points = np.random.default_rng(1).normal(0, 30, (32, 3))
    said = [
        each.uncertainty
        for status in ("model", "truth")
        for each in prescribe(LandmarkSet.from_points(AFIDS32, points, status), people)
    ]
    assert said[0] is said[1] is None
    assert said[2].angle > 0


def test_nothing_is_said_of_a_plane_that_errors_could_undo(errors, tmp_path):
    """Two landmarks of a line that all but coincide: the numbers would be NaN."""
    points = found_head().points.copy()
    line = [BRAIN88.labels.index(label) for label in ("CC_R", "CC_ST")]
    points[line[1]] = points[line[0]] - [0, 1.5, 0]
    unsure = prescribe(LandmarkSet.from_points(BRAIN88, points, "model"), errors)
    of = {each.plane.name: each for each in unsure}
    lost = of["axial subcallosal"]
    assert lost.frame is not None
    assert lost.uncertainty is None
    assert of["mid-sagittal"].uncertainty is not None
    files.write_json(tmp_path / "planes.json", unsure, {})


def test_a_group_that_no_held_out_head_has_leaves_the_others(tmp_path):
    shutil.copytree(resources.model_folder("brain88"), tmp_path / "model")
    about = tmp_path / "model" / "model.json"
    content = json.loads(about.read_text(encoding="utf-8"))
    for table in (content["held_out"], content["held_out"]["real_scans"]):
        table["errors_mm"]["Eye"] = {"count": 0.0}
    about.write_text(json.dumps(content), encoding="utf-8")
    sigma = LandmarkErrors.of_model(tmp_path / "model", BRAIN88).sigma
    eyes = np.array([landmark.group == "Eye" for landmark in BRAIN88])
    assert np.isnan(sigma[eyes]).all()
    assert np.isfinite(sigma[~eyes]).all()


# Files, pictures and the command ------------------------------------------------------------------

LOAD_WITH_SLICER = """
import json, sys
import slicer, slicer.util
slicer.mrmlScene = scene = slicer.vtkMRMLScene()
application = slicer.vtkMRMLApplicationLogic()
markups = slicer.vtkSlicerMarkupsLogic()
markups.SetMRMLApplicationLogic(application)
application.SetMRMLScene(scene)
markups.SetMRMLScene(scene)
assert markups.LoadMarkups(sys.argv[1], "")
planes = []
for n in range(scene.GetNumberOfNodesByClass("vtkMRMLMarkupsPlaneNode")):
    node = scene.GetNthNodeByClass(n, "vtkMRMLMarkupsPlaneNode")
    x, y, z = [0] * 3, [0] * 3, [0] * 3
    node.GetAxesWorld(x, y, z)
    planes.append({"name": node.GetName(), "center": node.GetCenterWorld(), "axes": [x, y, z],
                   "size": node.GetSizeWorld(), "valid": bool(node.GetIsPlaneValid()),
                   "locked": bool(node.GetLocked())})
json.dump(planes, open(sys.argv[2], "w"))
"""


@pytest.mark.skipif(find_spec("slicer") is None, reason="slicer-core has no wheel here")
def test_slicer_loads_the_planes_where_they_are(tmp_path):
    found = prescribe(LandmarkSet.from_points(BRAIN88, PHANTOM))
    files.write_plane_nodes(tmp_path / "planes.mrk.json", found)
    paths = [str(tmp_path / name) for name in ("planes.mrk.json", "read.json")]
    subprocess.run([sys.executable, "-c", LOAD_WITH_SLICER, *paths], check=True)
    read = json.loads((tmp_path / "read.json").read_text())
    assert [node["name"] for node in read] == [plane.name for plane in BRAIN88.scan_planes]
    for node, each in zip(read, found, strict=True):
        assert node["valid"]
        assert node["locked"]
        np.testing.assert_allclose(node["center"], each.stack.center, atol=1e-3)
        np.testing.assert_allclose(np.transpose(node["axes"]), each.frame.axes, atol=1e-4)
        np.testing.assert_allclose(node["size"][:2], each.stack.field_mm, atol=1e-3)


def test_cross_views_are_upright_and_cut_the_plane_at_a_right_angle():
    for each in prescribe(LandmarkSet.from_points(BRAIN88, PHANTOM)):
        for axis in (0, 1):
            view = cross_view(each.stack, axis)
            assert abs(view.normal @ each.frame.normal) < 1e-9
            assert view.up @ ([0, 1, 0] if view.orientation == "axial" else [0, 0, 1]) > 0.7
            assert view.right @ ([0, -1, 0] if view.orientation == "sagittal" else [-1, 0, 0]) > 0.7


def test_the_picture_shows_every_plane_and_says_which_is_not_there(tmp_path, blob_head, errors):
    points = PHANTOM.copy()
    points[BRAIN88.by_label("EYE_M_L").index - 1] = np.nan
    head = LandmarkSet.from_points(BRAIN88, points)
    found = prescribe(head, errors)
    draw_planes(blob_head, head, found, tmp_path / "planes.png", title="head")
    image = (imread(tmp_path / "planes.png")[..., :3] * 255).astype(int)
    height, width = image.shape[:2]
    tall, wide = height // 3, width // 3
    # Without the edges, where the title is and cells meet.
    cells = [
        image[r * tall + tall // 6 : (r + 1) * tall - tall // 12, c * wide : (c + 1) * wide]
        for r in range(3) for c in range(3)
    ]  # fmt: skip
    for cell, each in zip(cells, found, strict=True):
        for color in ((0xFF, 0xD8, 0x4D), (0x57, 0xC7, 0xFF), (0xFF, 0x6B, 0x5E)):
            drawn = (np.abs(cell - color).max(-1) <= 8).sum()
            assert (drawn > 20) == (each.stack is not None), each.plane.name
        grey = (np.ptp(cell, axis=-1) <= 4) & (cell.max(-1) > 60) & (cell.max(-1) < 210)
        assert (grey.mean() > 0.1) == (each.stack is not None), each.plane.name


def read_table(path):
    with path.open(encoding="utf-8") as file:
        return {row["plane"]: row for row in csv.DictReader(file)}


def test_the_command_writes_everything_of_an_image_with_landmarks(tmp_path, capsys):
    arguments = [
        "planes", "sample:colin27", "--landmarks", "sample:colin27", "-o", str(tmp_path),
        "--reformat", "Axial AC-PC", "--pixel", "4",
    ]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "ch2_planes.csv", "ch2_planes.json", "ch2_planes.mrk.json", "ch2_planes.png",
        "ch2_axial_ac_pc.nii.gz",
    }  # fmt: skip
    assert all(f"wrote {tmp_path / name}" in printed for name in names)
    rows = read_table(tmp_path / "ch2_planes.csv")
    data = json.loads((tmp_path / "ch2_planes.json").read_text(encoding="utf-8"))
    assert "research software" in data["note"]
    assert list(rows) == [plane["name"] for plane in data["planes"]]
    for plane in data["planes"]:
        row = rows[plane["name"]]
        ras = [float(row[f"normal {axis}"]) for axis in "RAS"]
        np.testing.assert_allclose(plane["RAS"]["normal"], ras, atol=1e-3)
        np.testing.assert_allclose(lps_to_ras(plane["LPS"]["normal"]), ras, atol=1e-3)
        assert 0 < float(row["angle 90 deg"]) < 10
        assert int(row["slices"]) == plane["DICOM"]["NumberOfSlices"]
        assert ("own_error" in plane) == (plane["name"] == "axial AC-PC")
    stack = nib.load(tmp_path / "ch2_axial_ac_pc.nii.gz")
    plane = next(p for p in data["planes"] if p["name"] == "axial AC-PC")
    geometry = plane["DICOM"]
    assert stack.shape == (geometry["Columns"], geometry["Rows"], geometry["NumberOfSlices"])
    # The commissures of this head, as experts marked them (AFIDs; Taha et al. 2023).
    front, back = np.array([[0.55, 4.01, -5.86], [0.32, -23.23, -3.73]])
    normal, own = np.array(plane["RAS"]["normal"]), plane["own_error"]
    assert abs(90 - off(normal, front - back)) < 3 * own["degrees"]
    assert abs(((front + back) / 2 - plane["RAS"]["origin"]) @ normal) < 2 * own["mm"]
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_command_takes_landmarks_alone_and_says_what_it_cannot_do(tmp_path, capsys):
    points = PHANTOM.copy()
    points[BRAIN88.by_label("OBEX").index - 1] = np.nan
    write_landmarks(tmp_path / "head.csv", LandmarkSet.from_points(BRAIN88, points))
    head, out = str(tmp_path / "head.csv"), tmp_path / "out"
    assert main(["planes", head, "-o", str(out)]) == 0
    said = capsys.readouterr().err
    assert "without an image there are no pictures" in said
    assert "axial across the brain stem: missing: OBEX" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "head_planes.csv", "head_planes.json", "head_planes.mrk.json",
    ]  # fmt: skip
    row = read_table(out / "head_planes.csv")["axial across the brain stem"]
    assert row["normal R"] == row["slices"] == ""
    assert row["remark"] == "missing: OBEX"


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_the_command_says_so_if_the_head_is_turned_round(tmp_path, capsys, signs):
    """What is in LPS and said to be in RAS looks like an image that was turned."""
    write_landmarks(tmp_path / "head.csv", LandmarkSet.from_points(BRAIN88, PHANTOM * signs))
    assert main(["planes", str(tmp_path / "head.csv"), "-o", str(tmp_path / "out")]) == 0
    assert ("probably in LPS" in capsys.readouterr().err) == (signs[0] == -1)


def test_the_command_knows_other_protocols(tmp_path, capsys):
    points = np.random.default_rng(3).normal(0, 30, (32, 3))
    points[[5, 7, 11]] = np.abs(points[[5, 7, 11]])
    landmarks = LandmarkSet.from_points(AFIDS32, points, "truth")
    for row, landmark in enumerate(AFIDS32):
        side = {"R": 1, "L": -1, "M": 0.01}[landmark.side]
        points[row, 0] = side * abs(points[row, 0])
    write_landmarks(tmp_path / "head.fcsv", replace(landmarks, points=points))
    arguments = [
        "planes",
        str(tmp_path / "head.fcsv"),
        "-o",
        str(tmp_path),
        "--protocol",
        "afids32",
    ]
    assert main(arguments) == 0
    assert list(read_table(tmp_path / "head_planes.csv")) == ["mid-sagittal", "axial AC-PC"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--reformat", "axial AC-PC"], "needs an image"),
        (["--reformat", "axial acpc"], "needs an image"),
        (["--landmarks", "other.csv"], "one landmark file"),
        (["--pixel", "0"], "0.1 to 20 mm"),
        (["--pixel", "inf"], "0.1 to 20 mm"),
        (["--pixel", "1e-4"], "0.1 to 20 mm"),
        (["--protocol", "tiny.json"], "no scan planes"),
    ],
)
def test_what_the_command_cannot_do_is_one_sentence(
    tmp_path, capsys, tiny_protocol, more, sentence
):
    (tmp_path / "tiny.json").write_text(tiny_protocol.to_json())
    more = [str(tmp_path / text) if text == "tiny.json" else text for text in more]
    assert main(["planes", "head.csv", "-o", str(tmp_path / "out"), *more]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_plane_that_there_is_not_is_named_with_those_there_are(tmp_path, capsys):
    arguments = ["planes", "sample:colin27", "--landmarks", "sample:colin27", "-o", str(tmp_path)]
    assert main([*arguments, "--reformat", "axial acpc"]) == 2
    assert "did you mean 'axial AC-PC'?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_measuring_planes_against_the_truth(tmp_path, errors, capsys):
    for number, move in enumerate(errors.expected(found_head()).sampled(4)):
        name = f"{number:04d}"
        for folder, moved, status in (("found", move, "model"), ("true", 0, "truth")):
            (tmp_path / folder).mkdir(exist_ok=True)
            head = LandmarkSet.from_points(BRAIN88, PHANTOM + moved, status)
            write_landmarks(tmp_path / folder / f"{name}.csv", head)
    places = [str(tmp_path / name) for name in ("found", "true")]
    assert main(["evaluate", "planes", *places, "-o", str(tmp_path / "report")]) == 0
    rows = read_table(tmp_path / "report" / "planes.csv")
    assert list(rows) == [*(plane.name for plane in BRAIN88.scan_planes), "All"]
    assert all(0 < float(row["angle median"]) < 5 for row in rows.values())
    assert rows["All"]["n"] == str(4 * len(BRAIN88.scan_planes))
    assert imread(tmp_path / "report" / "planes_calibration.png").std() > 0.05
    sample = str(resources.sample_landmarks("brain88"))
    report = ["-o", str(tmp_path / "same")]
    assert main(["evaluate", "planes", sample, "sample:colin27", *report]) == 0
    assert float(read_table(tmp_path / "same" / "planes.csv")["All"]["angle p90"]) < EXACT_DEGREES
    assert main(["evaluate", "planes", sample, places[1], *report]) == 2
    assert "two folders" in capsys.readouterr().err


def test_a_retest_says_how_far_planes_turn(tmp_path):
    points = PHANTOM.copy()
    points[BRAIN88.by_label("EYE_M_L").index - 1] = np.nan
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("x", 2, degrees=True).as_matrix()
    angles = plane_angles(BRAIN88, apply_affine(motion, points), PHANTOM)
    names = [plane.name for plane in BRAIN88.scan_planes]
    expected = {"mid-sagittal": 0, "sagittal along the brain stem": 0, "axial neuro-ocular": np.nan}
    np.testing.assert_allclose(angles, [expected.get(name, 2) for name in names], atol=1e-6)
    moved = np.ones((1, 2, len(BRAIN88)))
    result = Retest(BRAIN88, ("head",), moved, np.stack([angles, 2 * angles])[None])
    page = write_retest(result, tmp_path, "Retest", "")
    assert "| axial subcallosal | 2 | 3.00 | 3.80 | 4.00 |" in page
    rows = read_table(tmp_path / "retest_planes.csv")
    assert list(rows) == names
    assert rows["axial neuro-ocular"]["n"] == "0"
