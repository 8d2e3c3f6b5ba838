"""The `brainlandmarks` command from the outside: what it writes, says and returns."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from BrainLandmarksLib import __version__
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.cli.each_image import named
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks

COMMANDS = [
    "detect", "explain", "explain compare", "explain sanity", "distance", "protocol", "annotate",
    "correct", "agreement", "dataset", "augment", "train", "finetune", "calibrate", "ablation",
    "evaluate", "models", "serve", "report", "parcellate",
]  # fmt: skip


def test_detect_writes_landmarks_table_and_picture(
    tmp_path, head_file, tiny_model, tiny_protocol, capsys
):
    output = tmp_path / "new" / "results"
    assert main(["detect", str(head_file), "-o", str(output), "--model", str(tiny_model)]) == 0
    names = sorted(path.name for path in output.iterdir())
    assert names == ["head_landmarks.csv", "head_landmarks.mrk.json", "head_landmarks.png"]
    read = read_landmarks(output / "head_landmarks.mrk.json", tiny_protocol)
    assert read.status == ["model"] * 5
    np.testing.assert_allclose(
        read.points, read_landmarks(output / "head_landmarks.csv", tiny_protocol).points, atol=1e-4
    )
    assert (output / "head_landmarks.png").read_bytes().startswith(b"\x89PNG")

    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].split() == [
        "index",
        "label",
        "group",
        "R",
        "mm",
        "A",
        "mm",
        "S",
        "mm",
        "confidence",
    ]
    with open(output / "head_landmarks.csv", newline="", encoding="utf-8") as file:
        for line, row in zip(lines[1:6], csv.DictReader(file), strict=True):
            index, label, group, *numbers = line.split()
            assert [index, label, group] == [row["index"], row["label"], row["group"]]
            expected = [float(row[key]) for key in ("r", "a", "s", "confidence")]
            np.testing.assert_allclose([float(x) for x in numbers], expected, atol=0.051)
    assert "5 of 5 landmarks found" in printed.out
    assert str(output / "head_landmarks.png") in printed.out


@pytest.mark.parametrize(
    ("options", "suffixes"),
    [
        (["--no-picture"], [".csv", ".mrk.json"]),
        (["--format", "fcsv", "--no-picture"], [".fcsv"]),
        (["--format", "csv, fcsv ,mrk.json,csv"], [".csv", ".fcsv", ".mrk.json", ".png"]),
    ],
)
def test_formats_are_chosen(tmp_path, head_file, tiny_model, options, suffixes):
    arguments = ["detect", str(head_file), "-o", str(tmp_path), "--model", str(tiny_model)]
    assert main([*arguments, *options]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"head_landmarks{suffix}" for suffix in suffixes]


def test_overwrite_replaces(tmp_path, head_file, tiny_model):
    existing = tmp_path / "head_landmarks.csv"
    existing.write_text("old")
    arguments = ["detect", str(head_file), "-o", str(tmp_path), "--model", str(tiny_model)]
    assert main([*arguments, "--no-picture", "--overwrite"]) == 0
    assert existing.read_text(encoding="utf-8").startswith("index,label,group")


def test_one_bad_image_does_not_stop_the_others(tmp_path, head_file, tiny_model, blob_head, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "c"):
        nib.save(nib.Nifti1Image(blob_head.data, blob_head.grid.affine), images / f"{name}.nii")
    (images / "b.nii").write_text("not an image")
    air = np.where(np.indices((20, 20, 20)).sum(0) == 0, -1, 0).astype(np.float32)
    nib.save(nib.Nifti1Image(air, np.diag([10.0, 10, 10, 1])), images / "d.nii")
    output = tmp_path / "out"
    paths = [str(images / f"{name}.nii") for name in "abcd"]
    assert main(["detect", *paths, "-o", str(output), "--model", str(tiny_model)]) == 2
    assert sorted(path.name for path in output.glob("*.csv")) == [
        "a_landmarks.csv",
        "c_landmarks.csv",
    ]
    assert not list(output.glob("b*"))
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if "error" in line]
    # Each says of which image it is, once: on a terminal nothing else does.
    assert len(errors) == 2
    assert errors[0].startswith("brainlandmarks: error: b.nii is damaged")
    assert errors[1].startswith("brainlandmarks: error: d: the image shows nothing but air")
    assert [line for line in printed.err.splitlines() if line.startswith("[2/4]")] == ["[2/4] b"]
    assert "2 of 4 images" in printed.out


def test_a_note_on_one_of_several_images_says_on_which():
    paths = [Path("scans/a.nii"), Path("scans/b.nii")]
    assert named("no head was recognised", paths[0], paths) == "a: no head was recognised"
    assert named("no head was recognised", paths[0], paths[:1]) == "no head was recognised"
    for sentence in ("a.nii is damaged", "out/a_landmarks.csv exists"):
        assert named(sentence, paths[0], paths) == sentence


def test_a_bug_on_one_image_does_not_stop_the_others(
    tmp_path, tiny_model, blob_head, capsys, monkeypatch
):
    from BrainLandmarksLib.io import images

    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(blob_head.data, blob_head.grid.affine), tmp_path / f"{name}.nii")
    real = images.read_image

    def read(path, **options):
        if path.name == "a.nii":
            raise ZeroDivisionError
        return real(path, **options)

    monkeypatch.setattr(images, "read_image", read)
    paths = [str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]
    output = tmp_path / "out"
    assert main(["detect", *paths, "-o", str(output), "--model", str(tiny_model)]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert (output / "b_landmarks.csv").exists()


def test_progress_bar_on_a_terminal(monkeypatch, capsys):
    from BrainLandmarksLib.cli import terminal

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    terminal.progress(1, 4, "second")
    shown = capsys.readouterr().err
    assert "25 %|" in shown
    assert "1/4" in shown.splitlines()[-1]
    assert shown.rstrip().endswith("second")
    terminal.report(UserError("no such file"))
    blank, line = capsys.readouterr().err.rstrip("\n").rsplit("\r", 1)
    assert blank.strip() == "", "the bar is taken away before a line is printed"
    assert line == "brainlandmarks: error: no such file"
    terminal.progress(4, 4, "")
    terminal.progress(0, 1, "only")
    assert capsys.readouterr().err == ""


def test_the_bar_of_a_training_stays_when_it_is_done(monkeypatch, capsys):
    from BrainLandmarksTrainLib.cli import console

    row = {"total": 1.5, "error_mm": 2.0, "progress": 0.5, "seconds": 60.0, "step": 10}
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console.row("fine", row)
    console.row("fine", {**row, "progress": 0.75})
    console.report("done")
    printed = capsys.readouterr()
    assert printed.out == "done\n"
    last = printed.err.rstrip("\n").splitlines()[-1]
    assert "fine  75 %" in last
    assert "loss 1.500, error 2.0 mm" in last
    assert printed.err.endswith("\n")


def test_missing_landmarks_in_the_table(some_landmarks):
    from BrainLandmarksLib.cli.detect import table

    some_landmarks.notes[2] = "no tissue here"
    lines = table(some_landmarks).splitlines()
    assert len(lines) == 89
    assert lines[3].split()[:2] == ["3", "FB_M"]
    assert lines[3].endswith("  no tissue here")
    assert lines[41].endswith("  missing")
    assert len({len(line) for k, line in enumerate(lines) if k not in (3, 41, 88)}) == 1


def test_annotate_writes_in_the_format_of_the_suffix(
    tmp_path, head_file, some_landmarks, monkeypatch, capsys
):
    import BrainLandmarksLib.annotation as annotation

    monkeypatch.setattr(annotation, "annotate", lambda head: some_landmarks)
    head = SimpleNamespace(scheme=annotation.load_scheme("freesurfer"), unknown=())
    monkeypatch.setattr(annotation, "LabelMap", lambda volume, labels: head)
    for name in ("o.mrk.json", "o.csv", "o.fcsv"):
        assert main(["annotate", str(head_file), "-o", str(tmp_path / name)]) == 0
        read = read_landmarks(tmp_path / name, some_landmarks.protocol)
        np.testing.assert_allclose(read.points, some_landmarks.points, atol=1e-4)
    out = capsys.readouterr().out
    assert "85 of 88 landmarks placed" in out
    assert "missing: FB_M, EYE_P_R, BSP_M" in out


def test_models_lists_the_shipped_ones(capsys, monkeypatch, tiny_model):
    from BrainLandmarksLib import resources

    monkeypatch.setattr(resources, "folder", lambda name: tiny_model.parent)
    assert main(["models"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "protocol", "landmarks", "cube", "folder"]
    assert row.split()[:4] == ["tiny", "tiny", "5", "16^3"]


def test_train_names_settings_that_are_not_there(capsys):
    assert main(["train", "settings.json"]) == 2
    error = capsys.readouterr().err
    assert "settings.json" in error
    assert len(error.splitlines()) == 1


def test_without_the_training_library_there_is_no_command_train(monkeypatch, capsys):
    from BrainLandmarksLib import cli

    monkeypatch.setattr(cli.metadata, "entry_points", lambda group: ())
    monkeypatch.setattr(cli, "_beside", list)
    with pytest.raises(SystemExit) as stop:
        main(["train", "settings.json"])
    assert stop.value.code == 2
    assert "invalid choice: 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "example" in out
    assert f"brainlandmarks {command}" in out.split("example")[1]


def test_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m BrainLandmarksLib protocol | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("brain88")
    assert done.stderr == ""


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"brainlandmarks {__version__}\n"


def test_python_m_is_the_same_command_and_help_is_quick():
    script = (
        "import runpy, sys\n"
        "sys.argv = ['brainlandmarks', '--help']\n"
        "try:\n    runpy.run_module('BrainLandmarksLib', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "import json\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    help_text, modules = done.stdout.rsplit("\n", 2)[0], json.loads(done.stdout.splitlines()[-1])
    for command in COMMANDS:
        assert command in help_text
    slow = {"torch", "nibabel", "matplotlib", "scipy", "SimpleITK", "jsonschema"}
    assert not slow & set(modules)


def test_detect_imports_nothing_it_does_not_need(tmp_path, head_file, tiny_model):
    script = (
        "import json, sys\n"
        "from BrainLandmarksLib.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    arguments = ["detect", head_file, "-o", tmp_path, "--model", tiny_model]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert not modules & {"SimpleITK", "torchio", "matplotlib.pyplot"}


def test_quality_decides_how_many_passes_the_networks_make(head_file, tiny_model, tmp_path):
    tables = set()
    for quality in ("fast", "standard", "best"):
        folder = tmp_path / quality
        command = ["detect", str(head_file), "--model", str(tiny_model), "-o", str(folder)]
        assert main([*command, "--no-picture", "--format", "csv", "--quality", quality]) == 0
        tables.add((folder / "head_landmarks.csv").read_text(encoding="utf-8"))
    assert len(tables) == 3
