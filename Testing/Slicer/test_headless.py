"""Commands from a Slicer without a window: the real core, and a stand-in for the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import slicer

from BrainLandmarksLib.cli import build_parser
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.mrml.export.volume import export_volume
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.scene_files import export_scene, is_scene
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review
from BrainLandmarksTrainLib.mrml import headless

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py"
EXECUTABLE = Path(__file__).parent / "slicer_executable.py"
PROTOCOL = load_protocol("brain88")
TIMEOUT_S = 300


def slicer_program(*arguments, script=MODULE):
    """The command line of a Slicer without a window."""
    return [sys.executable, str(EXECUTABLE), "--no-main-window", "--no-splash",
            "--python-script", str(script), *arguments]  # fmt: skip


def run_slicer(*arguments, script=MODULE, cwd=None):
    return subprocess.run(
        slicer_program(*arguments, script=script),
        capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S, cwd=cwd,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip


@pytest.fixture
def points(volume):
    """Landmarks within the volume, two of them not there."""
    inside = read_bounds(volume)
    rng = np.random.default_rng(4)
    values = inside[0] + rng.random((len(PROTOCOL), 3)) * (inside[1] - inside[0])
    values[[3, 50]] = np.nan
    return LandmarkSet.from_points(PROTOCOL, values, "model", rng.random(len(PROTOCOL)))


@pytest.fixture
def reviewed(volume, points):
    """The volume with its lists and a record: one point moved by a person."""
    nodes = LandmarkNodes.create(volume, PROTOCOL)
    review = Review.of(points, "AB")
    review.move("CC_G", points.point("CC_G") + (3.0, 0.0, 0.0))
    nodes.show(review.current)
    nodes.store(review, {"model": "brain88"})
    return nodes


def read_bounds(volume):
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    return bounds[::2] + 1, bounds[1::2] - 1


def saved(scene, path):
    assert scene.WriteToMRB(str(path), None)
    scene.Clear(False)
    return str(path)


def of_scene(argument, what, tmp_path, name="files"):
    folder = tmp_path / name
    folder.mkdir()
    return export_scene(argument, what, folder)


# ---- what a scene holds --------------------------------------------------------------------------


def test_what_is_a_scene():
    assert is_scene("a/head.mrb")
    assert is_scene("head.MRML")
    assert is_scene("head.mrb#T1 of 2020")
    assert not is_scene("head.mrk.json")
    assert not is_scene("sample:colin27")


def test_the_image_of_a_scene_is_where_it_was(scene, volume, turned, tmp_path):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    export_volume(volume, tmp_path / "before.nrrd")
    before = read_image(tmp_path / "before.nrrd")
    path = of_scene(saved(scene, tmp_path / "head.mrb"), "image", tmp_path)
    assert path.name == "head.nrrd"  # results are named after the scene
    after = read_image(path)
    np.testing.assert_array_equal(after.data, before.data)
    np.testing.assert_allclose(after.grid.affine, before.grid.affine, atol=1e-4)


def test_landmarks_of_a_scene_keep_their_record(scene, volume, points, reviewed, tmp_path):
    path = of_scene(saved(scene, tmp_path / "head.mrb"), "landmarks", tmp_path)
    review, source = read_review(path, PROTOCOL)
    assert source == {"model": "brain88"}
    assert [edit.kind for edit in review.edits] == ["moved"]
    assert review.current.status[PROTOCOL.by_label("CC_G").index - 1] == "edited"
    np.testing.assert_allclose(review.found.points, points.points, atol=1e-3)
    moved = review.current.point("CC_G") - points.point("CC_G")
    np.testing.assert_allclose(moved, (3, 0, 0), atol=1e-3)


def test_lists_of_any_origin_are_read_by_their_labels(scene, volume, turned, tmp_path):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "by hand")
    node.SetAndObserveTransformNodeID(turned.GetID())
    node.AddControlPointWorld([1.0, 2.0, 3.0], "CC_G")
    node.UnsetNthControlPointPosition(node.AddControlPoint([0, 0, 0], "CC_S"))
    path = of_scene(saved(scene, tmp_path / "head.mrb"), "landmarks", tmp_path)
    found = read_landmarks(path, PROTOCOL)
    np.testing.assert_allclose(found.point("CC_G"), (1, 2, 3), atol=1e-4)
    assert int((~found.missing).sum()) == 1


def test_of_several_images_the_one_with_landmarks_or_a_name(scene, volume, reviewed, tmp_path):
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")
    other.CopyContent(volume)
    path = saved(scene, tmp_path / "head.mrb")
    own = read_image(of_scene(path, "image", tmp_path, "own"))
    named = read_image(of_scene(f"{path}#T2", "image", tmp_path, "named"))
    np.testing.assert_array_equal(own.data, named.data)
    with pytest.raises(UserError, match="holds no image called 'T3'"):
        of_scene(f"{path}#T3", "image", tmp_path, "absent")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [("image", "2 of image: 'A', 'B'"), ("landmarks", "no landmarks"), ("labels", "no label map")],
)
def test_what_a_scene_does_not_tell(scene, volume, tmp_path, what, sentence):
    volume.SetName("A")
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "B").CopyContent(volume)
    path = saved(scene, tmp_path / "head.mrb")
    with pytest.raises(UserError, match=sentence):
        of_scene(path, what, tmp_path)


def test_a_scene_that_cannot_be_read(scene, tmp_path):
    broken = tmp_path / "broken.mrb"
    broken.write_bytes(b"no archive")
    for path in (broken, tmp_path / "absent.mrb"):
        with pytest.raises(UserError, match=r"(cannot be read|does not exist)"):
            of_scene(str(path), "image", tmp_path, path.stem)


# ---- commands ------------------------------------------------------------------------------------


def test_every_argument_that_takes_a_scene_is_an_argument():
    known = set()
    stack = [build_parser()]
    while stack:
        for action in stack.pop()._actions:
            known.add(action.dest)
            if isinstance(action.choices, dict):
                stack += action.choices.values()
    assert set(headless.EXPECTED) <= known


def test_a_dataset_is_made_of_scenes(scene, volume, points, reviewed, tmp_path, capfd):
    path = saved(scene, tmp_path / "head.mrb")
    command = ["dataset", "create", path, "-o", str(tmp_path / "set")]
    assert headless.run(command) == 0, capfd.readouterr().err
    dataset = Dataset.open(tmp_path / "set")
    (entry,) = dataset.entries
    sample = dataset.read(entry)
    assert sorted(sample.volume.data.shape) == [30, 32, 34]
    assert [edit.kind for edit in sample.review.edits] == ["moved"]
    np.testing.assert_allclose(sample.review.found.points, points.points, atol=1e-3)


def test_distance_and_correct_take_scenes(scene, volume, points, reviewed, tmp_path, capfd):
    write_landmarks(tmp_path / "found.csv", points)
    path = saved(scene, tmp_path / "head.mrb")
    assert headless.run(["distance", str(tmp_path / "found.csv"), path]) == 0
    out = capfd.readouterr().out
    assert "CC_G" in out
    assert "3.0" in out
    assert headless.run(["correct", path]) == 0
    assert (tmp_path / "head_corrected.mrk.json").is_file()  # beside the scene


def test_errors_are_those_of_the_command(scene, tmp_path, capfd):
    assert headless.run(["detect", str(tmp_path / "absent.mrb"), "-o", str(tmp_path / "out")]) == 2
    assert "absent.mrb does not exist" in capfd.readouterr().err
    assert headless.run(["detect", "a.mrb"]) == 2  # no -o
    assert "-o" in capfd.readouterr().err
    assert headless.run(["protocol", "nosuch"]) == 2
    assert "no protocol called 'nosuch'" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named_and_nothing_is_asked(monkeypatch, capfd):
    lacking = requirements.Missing(("torchio>=0.20",), True)
    monkeypatch.setattr(requirements, "missing", lambda training: lacking if training else ())
    assert headless.run(["train", "--help"]) == 0
    note = capfd.readouterr().err
    assert "torchio>=0.20, PyTorch" in note
    assert "Start training" in note
    assert headless.run(["models"]) == 0
    assert "note" not in capfd.readouterr().err


# ---- the program ---------------------------------------------------------------------------------


def test_slicer_runs_a_command_and_leaves_with_its_code(tmp_path):
    # "--help" after "--" is the command's, not Slicer's.
    done = run_slicer("--", "train", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: brainlandmarks train" in done.stdout
    done = run_slicer("--", "train", "nosuch.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("brainlandmarks: error:")


SHOWING = """
from BrainLandmarksTrainLib.mrml import headless
headless._show("a line of a long training", False)
import time
time.sleep({seconds})
"""


def test_what_is_printed_is_seen_at_once(tmp_path):
    """Slicer's output is kept in a buffer where it is a pipe, as in a batch system's log."""
    script = tmp_path / "script.py"
    script.write_text(SHOWING.format(seconds=TIMEOUT_S))
    library = os.pathsep.join(
        str(ROOT / name) for name in ("BrainLandmarks", "BrainLandmarksTrain")
    )
    process = subprocess.Popen(
        slicer_program(script=script), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": library},
    )  # fmt: skip
    ending = threading.Timer(TIMEOUT_S / 5, process.kill)
    ending.start()
    try:
        heard = iter(process.stdout.readline, "")
        line = next((line for line in heard if "long training" in line), None)
    finally:
        ending.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    assert line == "a line of a long training\n"


@pytest.mark.parametrize("error", ["RuntimeError('bug')", "SystemExit(5)", "KeyboardInterrupt"])
def test_slicer_leaves_whatever_happens(tmp_path, error):
    script = tmp_path / MODULE.name
    script.write_text(MODULE.read_text(encoding="ascii"), encoding="ascii")
    (tmp_path / "BrainLandmarksTrainLib").mkdir()
    (tmp_path / "BrainLandmarksTrainLib" / "__init__.py").write_text(f"raise {error}\n")
    done = run_slicer("--", "train", "recipe.json", script=script)
    assert done.returncode == 1
    assert error.partition("(")[0] in done.stderr


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """The command line of a Slicer without a window behind its launcher, PythonSlicer likewise."""
    sys.path.append(str(ROOT / "Testing" / "Python"))
    from launched import make_launcher

    folder = tmp_path / "Slicer folder"
    folder.mkdir()
    make_launcher(folder)
    _, *program = slicer_program("--")
    slicer_launcher = make_launcher(folder, "Slicer", [sys.executable, *program])
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLICER_LAUNCHER", str(slicer_launcher))
    return lambda *arguments: [str(slicer_launcher), *arguments]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_sigterm_to_the_launcher_reaches_the_command(launched):
    """Neither launcher passes it on; whatever they launched must end all the same."""
    process = subprocess.Popen(
        launched("serve"), text=True, encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    line = ""
    while '"hello"' not in line:
        line = process.stdout.readline()
        assert line or process.poll() is None
    process.terminate()
    assert process.wait(TIMEOUT_S) == -signal.SIGTERM
    # The pipe ends when the last process that holds it has ended.
    assert "Traceback" not in process.communicate(timeout=TIMEOUT_S)[0]


@pytest.mark.slow
def test_detect_from_a_scene(scene, tmp_path):
    from BrainLandmarksLib import resources

    head = resources.sample_head()
    logic = slicer.vtkSlicerVolumesLogic()
    logic.SetMRMLScene(scene)
    assert logic.AddArchetypeVolume(str(head), "Colin27", 0)
    path = saved(scene, tmp_path / "head.mrb")
    done = run_slicer("--", "detect", path, "-o", "out", "--no-picture", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "88 of 88 landmarks found" in done.stdout
    found = read_landmarks(tmp_path / "out" / "head_landmarks.csv", PROTOCOL)
    genu = found.point("CC_G")
    assert np.linalg.norm(genu - (0, 32, 6)) < 15


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("number", "to"),
    [(signal.SIGINT, "slicer"), (signal.SIGTERM, "slicer"), (signal.SIGTERM, "launcher")],
)
def test_a_run_that_is_stopped_writes_a_checkpoint(tmp_path, launched, number, to):
    import nibabel as nib
    from phantom import phantom_head

    head = phantom_head()
    (tmp_path / "maps").mkdir()
    for name in ("a", "b"):
        image = nib.Nifti1Image(head.data.astype(np.int16), head.grid.affine)
        nib.save(image, tmp_path / "maps" / f"{name}.nii.gz")
    small = {"features": 4, "steps": 100000, "log_every": 1, "warmup_steps": 2}
    heads = {"label_maps": ["maps"], "held_out": ["b"], "deformed_copies_per_head": 0}
    recipe = {
        "name": "tiny", "heads": {**heads, "samples_per_head": 1}, "output": "out",
        "locator": {"size": 16, "field_of_view_mm": 256, **small},
        "fine": {"size": 16, "field_of_view_mm": 208, **small},
    }  # fmt: skip
    (tmp_path / "tiny.json").write_text(json.dumps(recipe))
    process = subprocess.Popen(
        launched("train", "tiny.json") if to == "launcher" else
        slicer_program("--", "train", "tiny.json"), cwd=tmp_path, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    try:
        end = time.monotonic() + TIMEOUT_S
        while not list((tmp_path / "out").rglob("log.csv")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.1)
        time.sleep(1.0)
        process.send_signal(number)
        out = process.communicate(timeout=TIMEOUT_S)[0]
    finally:
        process.kill()
    # The launcher is gone at once; what it launched goes on until the checkpoint is written.
    assert process.returncode == (130 if to == "slicer" else -signal.SIGTERM), out
    assert "resumes from here" in out
    assert list((tmp_path / "out").rglob("state.json"))
