"""Parcellations: from probabilities to label maps, their table, the command and the request."""

from __future__ import annotations

import csv
import re
import sys

import nibabel as nib
import numpy as np
import pytest
from parcelling import STRUCTURES, parcelling_folder, told_model
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.annotation import LabelMap, probability_map
from BrainLandmarksLib.annotation.label_files import (
    COLUMNS,
    read_label_map,
    structure_table,
    table_file,
    write_label_map,
)
from BrainLandmarksLib.annotation.probability_map import ProbabilityMap
from BrainLandmarksLib.annotation.schemes import MIDLINE, PAIRED
from BrainLandmarksLib.annotation.structures import structure_of, structures
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.worker.client import Worker

RADIUS_MM, MIDDLE = 21.0, np.array([3.0, -5.0, 2.0])
TURN = Rotation.from_euler("xyz", [10, -6, 20], degrees=True).as_matrix()


@pytest.fixture(scope="session")
def parcelling(tmp_path_factory, tiny_model):
    return parcelling_folder(tiny_model, tmp_path_factory.mktemp("models") / "parcelling")


# Names and colours --------------------------------------------------------------------------------


def test_every_structure_of_the_schemes_has_a_name_and_a_colour():
    table = structures()
    paired = [number for pair in PAIRED.values() for number in pair]
    assert sorted(table) == list(table) == sorted([*paired, *MIDLINE.values()])
    data = read_json(resources.structures_file(), "the table")["structures"]
    assert [entry["structure"] for entry in data] == [*PAIRED, *MIDLINE]
    for what in ("name", "abbreviation"):
        assert len({getattr(one, what) for one in table.values()}) == len(table)
    assert all(re.fullmatch("#[0-9a-f]{6}", one.color) for one in table.values())
    assert (table[53].name, table[53].side, table[16].side) == ("right hippocampus", "R", None)
    assert structure_of(17).rgb == pytest.approx((220 / 255, 216 / 255, 20 / 255))


def test_a_number_without_a_name_is_named_by_itself():
    one = structure_of(1007)
    assert (one.name, one.side, one.rgb) == ("structure 1007", None, (128 / 255,) * 3)


# Onto the voxels of an image ----------------------------------------------------------------------


def ball_map(voxel_mm=3.0, size=24):
    """The two halves of a ball, left and right, in turned voxels, as probabilities."""
    grid = cube(MIDDLE, voxel_mm * size, size, TURN)
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1)) - MIDDLE
    inside = 1 / (1 + np.exp((np.linalg.norm(ras, axis=-1) - RADIUS_MM) / 1.5))
    right = 1 / (1 + np.exp(-ras[..., 0] / 1.5))
    parts = [1 - inside, inside * (1 - right), inside * right]
    return ProbabilityMap(np.stack(parts).astype(np.float16), (0, 2, 41), grid)


def around(voxel_mm, size=40.0, middle=MIDDLE):
    side = round(2 * size / voxel_mm)
    return cube(middle, side * voxel_mm, side)


@pytest.mark.parametrize("voxel_mm", [1.0, 5.0])
def test_boundaries_are_where_the_probabilities_cross(voxel_mm):
    """Finer and coarser than the map: no steps of its voxels, and no volume lost."""
    grid = around(voxel_mm)
    labels = ball_map().labels_on(grid)
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1)) - MIDDLE
    beyond = np.linalg.norm(ras, axis=-1) - RADIUS_MM
    # Where three meet, none of them has one half.
    sure = (np.abs(beyond) > 0.4 * max(1.0, voxel_mm / 2)) & (np.abs(ras[..., 0]) > 7)
    assert ((labels > 0) == (beyond < 0))[sure].all()
    deep = beyond < -3 - voxel_mm
    aside = np.abs(ras[..., 0]) > 0.4
    assert (labels == np.where(ras[..., 0] < 0, 2, 41))[deep & aside].all()
    volume = (labels > 0).sum() * voxel_mm**3
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.04)


def test_the_labels_alone_would_show_the_voxels_of_the_map():
    """What the test above asks is more than the nearest voxel gives."""
    head, grid = ball_map(), around(1.0)
    nearest = resample(Volume(head.labels.astype(np.float32), head.grid), grid, order=0)
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1)) - MIDDLE
    beyond = np.linalg.norm(ras, axis=-1) - RADIUS_MM
    sure = (np.abs(beyond) > 0.4) & (np.abs(ras[..., 0]) > 7)
    assert not ((nearest > 0) == (beyond < 0))[sure].all()


def test_slabs_and_boxes_change_nothing(monkeypatch):
    head, grid = ball_map(), around(2.0)
    every = [resample(Volume(p.astype(np.float32), head.grid), grid) for p in head.probabilities]
    expected = np.array(head.structures)[np.argmax(every, axis=0)]
    np.testing.assert_array_equal(head.labels_on(grid), expected)
    monkeypatch.setattr(probability_map, "SLAB_VOXELS", 1)
    np.testing.assert_array_equal(head.labels_on(grid), expected)


def test_nothing_is_where_the_map_does_not_reach():
    far = around(4.0, middle=MIDDLE + [500.0, 0, 0])
    assert not ball_map().labels_on(far).any()
    beside = around(4.0, middle=MIDDLE + [50.0, 0, 0])
    labels = ball_map().labels_on(beside)
    assert labels[0].any()
    assert not labels[10:].any()


# Files --------------------------------------------------------------------------------------------


def test_a_label_map_is_a_file_that_the_rules_read(tmp_path):
    """The numbers that are written are those of FreeSurfer, and nothing about them is noted."""
    sizes = dict.fromkeys(structures(), 100) | dict.fromkeys((2, 3, 41, 42), 4000)
    labels = np.zeros((24, 30, 40), np.int32)
    labels.ravel()[: sum(sizes.values())] = np.repeat(list(sizes), list(sizes.values()))
    told = cube((1.0, 2.0, 3.0), 160.0, 40).window((3, 2, 0), labels.shape)
    path = tmp_path / "labels.nii.gz"
    write_label_map(path, labels, told)
    image = nib.load(path)
    assert image.get_data_dtype() == np.int16
    assert image.header.get_intent()[0] == "label"
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    volume = read_image(path)
    read = LabelMap(volume)  # as `annotate` does
    assert (read.scheme.name, read.unknown, volume.notes) == ("freesurfer", (), ())
    np.testing.assert_array_equal(read.labels, labels)
    back, grid = read_label_map(path)
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_allclose(grid.affine, told.affine, atol=1e-4)


def test_a_sheared_grid_is_stated_once(tmp_path):
    affine = np.array([[2, 0.5, 0, -9], [0, 2, 0, -9], [0, 0, 2, -9], [0, 0, 0, 1.0]])
    write_label_map(tmp_path / "a.nii", np.ones((4, 5, 6), np.int32), Grid((4, 5, 6), affine))
    image = nib.load(tmp_path / "a.nii")
    np.testing.assert_allclose(image.affine, affine)
    assert image.get_qform(coded=True)[1] == 0


def test_a_damaged_label_map_is_one_sentence(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_label_map(tmp_path / "a.nii")


def test_the_table_has_volumes():
    grid = Grid((10, 10, 10), np.diag([-2.0, 2, 2.5, 1]))
    labels = np.zeros(grid.shape, np.int32)
    labels[0], labels[1, :5] = 53, 16
    table = structure_table(labels, grid)
    assert tuple(table.header) == COLUMNS
    assert [row[:2] for row in table.rows] == [(16, "brain stem"), (53, "right hippocampus")]
    assert [row[-1] for row in table.rows] == pytest.approx([0.5, 1.0])


# The detector -------------------------------------------------------------------------------------


def test_a_head_is_parcellated_where_it_is(tiny_model, blob_head):
    detector, heard = Detector(told_model(tiny_model), "cpu"), []
    found = detector.parcellate(blob_head, progress=lambda stage, done: heard.append(done))
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert found.labels.present == {2, 41}
    left, right = (found.labels.centre((number,)) for number in (2, 41))
    assert left[0] < right[0]
    assert found.plausibility > 0.5
    assert isinstance(detector.parcellate(blob_head).labels, LabelMap)


def test_a_model_without_the_network_says_so(tiny_model, blob_head):
    with pytest.raises(UserError, match="tiny has no parcellation network"):
        Detector(tiny_model, "cpu").parcellate(blob_head)


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def odd_file(tmp_path, blob_head):
    """The head in a file whose axes are in another order: left, inferior, posterior."""
    data = blob_head.data[::-1, ::-1, ::-1].transpose(0, 2, 1)
    flip = np.array([[-1, 0, 0, 89], [0, 0, -1, 99], [0, -1, 0, 94], [0, 0, 0, 1.0]])
    path = tmp_path / "odd.nii.gz"
    nib.save(nib.Nifti1Image(data, blob_head.grid.affine @ flip), path)
    return path


def test_the_command_writes_the_map_in_the_image_s_voxels(tmp_path, odd_file, parcelling, capsys):
    output = tmp_path / "labels.nii.gz"
    arguments = ["parcellate", str(odd_file), "-o", str(output), "--model", str(parcelling)]
    assert main(arguments) == 0
    image, labels = nib.load(odd_file), nib.load(output)
    assert labels.shape == image.shape
    np.testing.assert_allclose(labels.affine, image.affine, atol=1e-4)
    volume = read_image(odd_file)
    expected = Detector(parcelling, "cpu").parcellate(volume).labels.labels_on(volume.grid)
    np.testing.assert_array_equal(read_image(output).data, expected)

    with open(tmp_path / "labels.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    values, counts = np.unique(np.asarray(labels.dataobj), return_counts=True)
    assert {0} < set(values.tolist()) <= set(STRUCTURES)
    told = {int(row["index"]): float(row["volume_ml"]) for row in rows}
    assert told == pytest.approx({n: 0.008 * c for n, c in zip(values, counts) if n}, abs=1e-4)
    assert {row["name"] for row in rows} == {structure_of(number).name for number in told}
    printed = capsys.readouterr()
    assert printed.err == ""
    for row in rows:
        assert re.search(rf"{row['index']}  {row['name']} ", printed.out)
    assert str(output) in printed.out

    before = output.read_bytes()
    assert main(arguments) == 2
    assert "exists; add --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert output.read_bytes()[10:] == before[10:]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "labels.nii.gz", "labels.tsv", "odd.nii.gz"
    ]  # fmt: skip


def test_many_images_go_into_a_folder(tmp_path, head_file, parcelling, capsys):
    bad = tmp_path / "bad.nii"
    bad.write_text("not an image")
    output = tmp_path / "new" / "results"
    arguments = ["parcellate", str(bad), str(head_file), "-o", str(output)]
    assert main([*arguments, "--model", str(parcelling)]) == 2
    assert sorted(p.name for p in output.iterdir()) == ["head_labels.nii.gz", "head_labels.tsv"]
    printed = capsys.readouterr()
    assert "1 of 2 images done" in printed.out
    assert len([line for line in printed.err.splitlines() if "error" in line]) == 1


@pytest.mark.parametrize(
    ("images", "output", "why"),
    [
        (["HEAD", "HEAD"], "labels.nii.gz", "2 images; give a folder"),
        (["HEAD", "HEAD"], "results", "written to the same files"),
        (["HEAD"], "labels.nrrd", "no known suffix"),
        (["HEAD"], "taken.nii", "is a folder"),
        (["HEAD"], "file/labels.nii", "cannot write"),
        (["HEAD"], "labels.nii", "tiny has no parcellation network; choose another"),
        (["missing.nii"], "labels.nii --model PARCELLING", "missing.nii"),
        (["HEAD"], "labels.nii --model nowhere", "no model"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    tmp_path, monkeypatch, head_file, tiny_model, parcelling, capsys, images, output, why
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.nii").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    names = {"HEAD": str(head_file), "PARCELLING": str(parcelling)}
    words = [names.get(word, word) for word in [*images, "-o", *output.split()]]
    assert main(["parcellate", "--model", str(tiny_model), *words]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


# The worker ---------------------------------------------------------------------------------------


def test_the_worker_parcellates(tmp_path, odd_file, parcelling, tiny_model):
    worker = Worker([sys.executable, "-m", "BrainLandmarksLib", "serve"])
    output, heard = tmp_path / "labels.nii", []
    fields = {"image": str(odd_file), "output": str(output), "device": "cpu"}
    try:
        asked = worker.request("parcellate", heard.append, model=str(parcelling), **fields)
        worker.wait(asked, 600)
        *progress, result = heard
        assert result["type"] == "result", result
        stages = list(dict.fromkeys(m["stage"] for m in progress))
        assert stages == ["load", "read", "prepare", "locate", "detect", "label"]
        fractions = [m["fraction"] for m in progress]
        assert fractions == sorted(fractions)
        labels, grid = read_label_map(output)
        table = structure_table(labels, grid)
        assert result["structures"] == [
            {
                "number": number, "name": name, "abbreviation": short, "color": color,
                "side": side, "volume_ml": pytest.approx(volume, abs=1e-3),
            }
            for number, name, short, color, side, volume in table.rows
        ]  # fmt: skip
        assert (result["output"], result["device"]) == (str(output), "cpu")
        assert result["plausibility"] > 0.5
        assert result["notes"] == []
        assert not table_file(output).exists()
        heard.clear()
        worker.wait(
            worker.request("parcellate", heard.append, model=str(tiny_model), **fields), 600
        )
        assert (heard[-1]["type"], heard[-1]["code"]) == ("error", "user")
        assert "no parcellation network" in heard[-1]["message"]
    finally:
        worker.stop()
