"""A smoke test: every command of the README and of docs/ runs, in a folder of small stand-ins.

It tells that a documented command exists and ends well. What a command prints and writes is the
business of its own tests; `WRITES` looks at what those do not reach.

The commands of a block are alternatives more often than steps, so each starts from the same folder.
A small model stands in for the shipped one; with `-m slow` the shipped one is taken. What cannot
run here is at least parsed, and the reason is listed.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from docs_folder import Makers
from parcelling import parcelling_folder

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import build_parser, joined, main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import landmarks, load_protocol
from BrainLandmarksTrainLib.config.recipe import load_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"<!-- table:\w+ -->.*?<!-- /table -->", flags=re.DOTALL)
SHELL = ("", "sh", "bash")
OPTIONS_OF_SLICER = ["--no-main-window", "--no-splash", "--python-script"]

PROGRAMS = {
    "make": "its targets are checked with the Makefile; they install packages",
    "pip": "test_packaging builds and reads the wheel",
    "python": "benchmarks take minutes",
    "Slicer": "test_headless runs it in a stand-in for the program",
    "PythonSlicer": "Slicer's Python runs the same command",
    "dask": "the scheduler of a cluster; the tests of cohorts start one",
    "torchrun": "test_trainer starts several processes",
    "openssl": "the demonstration of a federation makes certificates with the same commands",
    "ssh-keygen": "the demonstration of a federation makes keys with the same command",
    "srun": "there may be no cluster",
    "sbatch": "there may be no cluster",
}
"""Programs that are not run here, and why; `brainlandmarks` arguments among theirs are parsed."""

ONLY_PARSED = {
    "finetune": "training takes long; test_train_on_scans does it with a small model (a recipe is "
    "written)",
    "ablation": "many trainings; test_train_on_scans does a small one",
    "calibrate": "dozens of detections; test_calibrate does it with a small model",
    "dataset annotate": "needs segmentations of scans; test_dataset_annotate makes some",
    "scans points": "the folder that dataset annotate writes",
    "t1 points": "the folder that dataset annotate writes",
    "dataset split real": "the dataset of that folder",
    "--model mine": "the model that calibrate writes",
    "--device cuda": "there may be no graphics card",
    "--bids": "the tests of cohorts run whole cohorts with the same command",
    "federate": "test_federation has two sites in one process; its slow test starts Flower's own",
    "report": "reads what a cohort's run has left; the tests of cohorts make it",
    "serve": "waits for requests; test_worker makes them",
}
SLOW = {
    "augment": "starts worker processes",
    "dataset synthesize": "deforms and renders heads",
    "evaluate --label-maps": "renders scans",
    "explain compare": "two models",
    "--survey": "resamples to five million voxels",
}


def annotated(here, out):
    placed = read_landmarks(here / "landmarks.mrk.json", load_protocol("brain88"))
    assert f"{(~placed.missing).sum()} of 88 landmarks placed" in out


def one_map_file(here, out):
    maps = nib.load(here / "maps" / "head_gradcam.nii.gz")
    assert maps.shape[3] == len(read_json(here / "maps" / "head_gradcam.json")["maps"]) == 88


def maps_of(*names):
    def check(here, out):
        written = {path.name for path in (here / "maps").glob("*.nii.gz")}
        assert written == {f"head_gradcam_{name}.nii.gz" for name in names}

    return check


def layer(here, out):
    assert read_json(here / "maps" / "head_gradcam.json")["layer"].startswith("stages.1.2")


def with_originals(here, out):
    before, after = (Dataset.open(here / name).entries for name in ("oasis", "oasis_all"))
    assert len(after) == 2 * len(before)


def recipe_shown(here, out):
    shown = yaml.safe_load(out)
    assert {"name", "output", "fine", "machine"} <= set(shown)
    assert out.count("label_maps") or shown["scans"]["dataset"]


def recipe_written(here, out):
    tuned = load_recipe(here / "tuned.yaml")
    assert (tuned.start_from, tuned.fine.minutes) == ("brain88", 30)


def parcellated(here, out):
    labels = nib.load(here / "labels.nii.gz")
    assert labels.get_data_dtype() == np.int16
    count = len((here / "labels.tsv").read_text(encoding="utf-8").splitlines()) - 1
    assert out.count("white matter") + out.count("hippocampus") == count


WRITES = {
    r"parcellate .*-o labels.nii.gz": parcellated,
    r"annotate ": annotated,
    r"explain .*--files 4d": one_map_file,
    r"explain .*--group Eye --files group": maps_of("eye"),
    r"explain .*--landmark CC_G 37": maps_of("CC_G", "CC_GI"),
    r"explain .*--layer stages.1.2": layer,
    r"augment .*--with-originals": with_originals,
    r"train .*--dry-run": recipe_shown,
    r"finetune .*--write-recipe": recipe_written,
}
"""Arguments of a command to what looks at its folder and its text."""


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def shell_lines(text):
    """The command lines in the fenced blocks of a page; tables hold output, no commands."""
    for kind, block in FENCE.findall(TABLE.sub("", text)):
        if kind in SHELL:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if is_command(line) else []
                if words:
                    yield words


def is_command(line):
    return bool(re.match(r"(brainlandmarks|" + "|".join(PROGRAMS) + r") ", line))


def commands():
    for page in PAGES:
        for words in shell_lines(page.read_text(encoding="utf-8")):
            line = shlex.join(words)
            marks = []
            if any(reason_of(line, SLOW)):
                marks.append(pytest.mark.slow)
            yield pytest.param(page, words, marks=marks, id=f"{page.stem}: {line}")


def reason_of(line, table):
    """Entries of a table that a command line falls under."""
    return [
        name for name in table if re.search(rf"(^brainlandmarks | ){re.escape(name)}( |$)", line)
    ]


def arguments_of(words):
    """The arguments for `brainlandmarks` in a command line, also of another program, or None."""
    if words[0] == "Slicer":
        assert words[1:4] == OPTIONS_OF_SLICER
        assert words[4].endswith("BrainLandmarksTrain.py")
        assert words[5] == "--", "without it Slicer takes some options for its own"
        return words[6:]
    for n, word in enumerate(words):
        module = words[n - 1] == "-m" and word in ("BrainLandmarksLib", "BrainLandmarksTrainLib")
        if word == "brainlandmarks" or module:
            return words[n + 1 :]
    return None


def parsed(arguments):
    with contextlib.suppress(SystemExit):
        return build_parser().parse_args(joined(arguments))
    pytest.fail(f"brainlandmarks does not understand {shlex.join(arguments)}")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory, phantom_truth):
    """A network that has learned nothing, with everything that a model has."""
    import torch

    from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
    from BrainLandmarksLib.network.model_files import (
        CropSpec,
        Model,
        ModelSpec,
        load_model,
        save_model,
    )

    torch.manual_seed(7)
    shipped = load_model("brain88")
    heads = shipped.spec.held_out["heads"][:1]
    networks = [HighRes3DNet(out_channels=88, features=2).eval() for _ in range(2)]
    crops = CropSpec(16, 208.0), CropSpec(16, 256.0)
    spec = ModelSpec(
        "brain88", *crops, shipped.spec.mean_shape, held_out={"heads": heads},
        calibration=shipped.spec.calibration,
    )  # fmt: skip
    model = Model(shipped.protocol, *networks, spec, shipped.shape)
    return save_model(model, tmp_path_factory.mktemp("model") / "brain88")


@pytest.fixture(scope="module")
def parcelling(tmp_path_factory, small_model):
    """The same with a parcellation network, which would have a say in every other command."""
    return parcelling_folder(small_model, tmp_path_factory.mktemp("parcelling") / "brain88")


@pytest.fixture(scope="module")
def makers(phantom_truth, small_model):
    file = resources.model_folder("brain88") / "model.json"
    held_out = json.loads(file.read_text(encoding="utf-8"))["held_out"]["heads"]
    return Makers(phantom_truth, small_model, held_out)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, makers):
    """Page to its folder, made once."""
    made = {}

    def folder_of(page):
        if page not in made:
            made[page] = tmp_path_factory.mktemp(page.stem.lower())
            text = page.read_text(encoding="utf-8")
            makers.make("\n".join(" ".join(words) for words in shell_lines(text)), made[page])
            write_files(text, made[page])
        return made[page]

    return folder_of


def write_files(text, folder):
    """The files that a page prints: a block whose first line is a comment with a file's name."""
    for _kind, block in FENCE.findall(text):
        named = re.match(r"# ([\w.-]+\.(?:yaml|json))\n", block)
        if named:
            (folder / named[1]).write_text(block, encoding="utf-8")


@pytest.fixture(params=["small", pytest.param("shipped", marks=pytest.mark.slow)])
def model(request, monkeypatch, small_model):
    if request.param == "small":
        monkeypatch.setattr(resources, "model_folder", lambda name: small_model)
    # A network that has learned nothing, and one that never saw ellipsoids, must find a head.
    monkeypatch.setattr(landmarks, "PLAUSIBLE", 0.0)
    return request.param


def fresh(folder, words, tmp_path):
    """A copy of a page's folder without what the command writes."""
    place = tmp_path / "here"
    shutil.copytree(folder, place, copy_function=os.link)
    for option in ("-o", "--output"):
        if option in words:
            output = place / words[words.index(option) + 1]
            shutil.rmtree(output, ignore_errors=True)
            output.unlink(missing_ok=True)
    return place


def expanded(arguments):
    """What a shell makes of `*.nii.gz`."""
    return [n for a in arguments for n in (sorted(glob.glob(a)) if "*" in a else [a])]


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_command(page, words, folders, model, parcelling, tmp_path, monkeypatch, capsys):
    arguments = arguments_of(words)
    if arguments is None:
        assert words[0] in PROGRAMS
        return
    line = shlex.join(["brainlandmarks", *arguments])
    if words[0] in PROGRAMS or (reason_of(line, ONLY_PARSED) and "--write-recipe" not in words):
        if "--help" not in arguments:
            parsed(arguments)
        return
    monkeypatch.chdir(fresh(folders(page), words, tmp_path))
    if arguments[0] == "train":  # takes hours; test_recipe trains a small model
        arguments = [*arguments, "--dry-run"]
    if arguments[0] == "parcellate" and model == "small":
        arguments = [*arguments, "--model", str(parcelling)]
    code = main(expanded(arguments))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    for pattern, check in WRITES.items():
        if re.match(pattern, shlex.join(arguments)):
            check(Path(), printed.out)


def inline():
    """Commands within sentences, as far as they name no placeholder."""
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for line in re.findall(r"`(brainlandmarks [^`]+)`", text):
            if not re.search(r"\b[A-Z]{3,}\b", line):
                yield pytest.param(shlex.split(line)[1:], id=f"{page.stem}: {line}")


@pytest.mark.parametrize("arguments", list(inline()))
def test_a_command_within_a_sentence_exists(arguments):
    """Sentences leave arguments out, but what they name is there."""
    parser, depth = build_parser(), 0
    words = joined(arguments)
    while depth < len(words) and (commands := commands_of(parser)):
        assert words[depth] in commands
        parser, depth = commands[words[depth]], depth + 1
    options = {word.partition("=")[0] for word in words[depth:] if word.startswith("-")}
    assert options <= set(parser._option_string_actions)


def commands_of(parser):
    """The commands below a parser; none for one that takes no further command."""
    found = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
    return found[0] if found else {}


PYTHON = [
    pytest.param(page, block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (kind, block) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
    if kind == "python"
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python(page, block, folders, makers, model, tmp_path, monkeypatch):
    monkeypatch.chdir(fresh(folders(page), [], tmp_path))
    names = {"volume": makers.scan, "landmarks": makers.truth}
    exec(compile(block, f"{page.name}", "exec"), names)


def test_nothing_is_overlooked():
    """Every line of a shell block is a command of a known program, and every page was read."""
    lines = [shlex.join(arguments_of(p.values[1]) or []) for p in commands()]
    for pattern in WRITES:
        pattern = pattern.removesuffix(".*--dry-run")  # added here
        assert any(re.match(pattern, line) for line in lines), pattern
    seen = 0
    for page in PAGES:
        for kind, block in FENCE.findall(TABLE.sub("", page.read_text(encoding="utf-8"))):
            lines = [line for line in block.splitlines() if line.strip()]
            if kind in ("sh", "bash") and not block.startswith("#!"):  # scripts have other lines
                assert all(is_command(line) or line.startswith(("#", " ")) for line in lines)
            seen += any(is_command(line) for line in lines)
    assert seen > 10
