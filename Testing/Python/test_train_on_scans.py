"""Training on a dataset of scans: train, finetune and ablation from the command line, small."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.network.model_files import load_model
from BrainLandmarksLib.protocol import landmarks, load_protocol
from BrainLandmarksTrainLib.config.ablation import load_ablation
from BrainLandmarksTrainLib.engine.checkpoint import averaged_weights, checkpoints
from BrainLandmarksTrainLib.pipeline import trial
from BrainLandmarksTrainLib.pipeline.ablation import cells
from BrainLandmarksTrainLib.pipeline.transfer import start_network

SMALL = {
    "size": 16, "features": 4, "steps": 4, "warmup_steps": 1, "recalibration_batches": 1,
    "validation_scans": 2, "epoch_steps": 2, "log_every": 1, "tensorboard": False,
}  # fmt: skip
MACHINE = {"device": "cpu", "precision": "float32", "threads": 1}


@pytest.fixture(autouse=True)
def anything_is_a_head(monkeypatch):
    """Four steps teach nothing: whatever the locator says must pass for a head here."""
    monkeypatch.setattr(landmarks, "PLAUSIBLE", 0.0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory, twelve_heads) -> Path:
    """Six scans: some to train on, one for validation, two for the test."""
    folder = Path(shutil.copytree(twelve_heads, tmp_path_factory.mktemp("sets") / "six"))
    dataset = Dataset.open(folder)
    dataset.update(dataset.entries[::2], {"what": "every second head, for a quick test"})
    command = ["dataset", "split", str(folder), "--validation", "1", "--test", "2"]
    assert main(command) == 0
    return folder


def recipe(folder: Path, **changes: object) -> Path:
    values = {
        "name": "tiny",
        "output": "run",
        "scans": {},
        "locator": {**SMALL, "field_of_view_mm": 256},
        "fine": {**SMALL, "field_of_view_mm": 208},
        "machine": MACHINE,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scans) -> Path:
    """The output folder of a run on the scans."""
    folder = tmp_path_factory.mktemp("trained")
    patch = pytest.MonkeyPatch()
    patch.setattr(landmarks, "PLAUSIBLE", 0.0)
    refinement = {**SMALL, "size": 32, "field_of_view_mm": 208, "crop": [16] * 3, "prior_mm": 3.5}
    assert main(["train", str(recipe(folder, refinement=refinement)), "--dataset", str(scans)]) == 0
    patch.undo()
    return folder / "run"


def test_a_dataset_makes_a_model_that_is_measured(trained, scans):
    model = load_model(trained / "model")
    dataset = Dataset.open(scans)
    assert model.spec.training["scans"] == len(dataset.of_split("train")) > 1
    for split in ("test", "validation"):
        count = len(dataset.of_split(split))
        assert model.spec.held_out[f"{split}_scans"]["count"] == count
    assert model.spec.held_out["errors_mm"] == model.spec.held_out["test_scans"]["errors_mm"]
    assert model.spec.calibration is not None
    assert model.spec.refinement.voxel_mm == 6.5
    assert str(scans) not in json.dumps(model.spec.training)
    with (trained / "fine" / "epochs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["validation_mm"]) > 0 for row in rows)


def test_a_dry_run_shows_all_settings_and_does_nothing(tmp_path, scans, capsys):
    assert main(["train", str(recipe(tmp_path)), "--dataset", str(scans), "--dry-run"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["fine"]["alpha"] == 0.4
    assert shown["scans"]["augmentation"]["policies"]["DA4"]["probability"] == 0.3
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_taken_up_against_ones_will(trained, scans, capsys):
    command = ["train", str(trained.parent / "recipe.yaml"), "--dataset", str(scans)]
    assert main([*command, "--resume", "no"]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_corrected_landmarks(trained, scans, tmp_path, capsys):
    """Its weights were learnt from others; a finished one would be measured as if it were new."""
    again = Path(shutil.copytree(trained.parent, tmp_path / "again"))
    corrected = Path(shutil.copytree(scans, tmp_path / "corrected"))
    command = ["train", str(again / "recipe.yaml"), "--dataset", str(corrected)]
    dataset = Dataset.open(corrected)
    entry = dataset.of_split("train")[0]
    review = dataset.read_landmarks(entry)
    review.move("CC_G", review.current.point("CC_G") + 1.0)
    dataset.revise(entry, review, {})
    assert main(command) == 2
    assert "another training set" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_numbers(trained, scans, tmp_path, monkeypatch, capsys):
    """An ablation takes a run for finished by them."""
    again = Path(shutil.copytree(trained.parent, tmp_path / "again"))
    (again / "run" / "test.npz").unlink()

    def full(path: Path, **_: object) -> None:
        Path(path).write_bytes(b"PK")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    assert main(["train", str(again / "recipe.yaml"), "--dataset", str(scans)]) == 2
    assert os.strerror(errno.ENOSPC) in capsys.readouterr().err
    assert not (again / "run" / "test.npz").exists()


def test_a_broken_dataset_is_refused_before_anything(tmp_path, heads, capsys):
    os.truncate(heads / Dataset.open(heads).entries[0].image, 1000)
    assert main(["train", str(recipe(tmp_path)), "--dataset", str(heads)]) == 2
    assert "is broken" in capsys.readouterr().err
    assert not (tmp_path / "run" / "locator").exists()


def command_line(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "BrainLandmarksLib", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


@pytest.mark.slow  # test_trainer has the fast one
def test_the_command_runs_on_two_processes(tmp_path, scans):
    """Two processes of one batch each step: the weights of one process."""
    weights = []
    for name, devices in (("one", "1"), ("two", "2")):
        folder = tmp_path / name
        folder.mkdir()
        fixed = {**SMALL, "batch_size": 2, "freeze_norm_at": 0.0, "optimizer": "adamw", "steps": 2}
        path = recipe(folder, locator={**fixed, "field_of_view_mm": 256},
                      fine={**fixed, "field_of_view_mm": 208})  # fmt: skip
        command = ["train", str(path), "--dataset", str(scans), "--devices", devices]
        process = command_line(command)
        deadline = time.monotonic() + 240
        while not checkpoints(folder / "run" / "fine"):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        output, _ = process.communicate(timeout=240)
        # What a network of two steps says is no head: the run ends with the measurement.
        assert output.count("training the fine network") == 1
        weights.append(averaged_weights(folder / "run" / "locator"))
    for name, weight in weights[0].items():
        if name != "classifier.bias":
            torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_an_interrupted_command_goes_on(tmp_path, scans, capsys):
    path = recipe(tmp_path, locator={**SMALL, "field_of_view_mm": 256, "steps": 4000})
    process = command_line(["train", str(path), "--dataset", str(scans)])
    deadline = time.monotonic() + 240
    while not checkpoints(tmp_path / "run" / "locator"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command resumes" in output
    (step,) = [int(p.name[-8:]) for p in checkpoints(tmp_path / "run" / "locator")[-1:]]
    recipe(tmp_path, locator={**SMALL, "field_of_view_mm": 256, "steps": step + 2})
    assert main(["train", str(path), "--dataset", str(scans)]) == 0
    assert load_model(tmp_path / "run" / "model").spec.training["locator"]["steps"] == step + 2


def test_finetune_goes_on_from_a_model_and_reports_both(tmp_path, trained, scans, capsys):
    output = tmp_path / "tuned"
    command = ["finetune", str(trained / "model"), str(scans), "-o", str(output), "--steps", "3"]
    assert main([*command, "--device", "cpu"]) == 0
    old, new = load_model(trained / "model"), load_model(output / "model")
    assert new.spec.name == "tiny-tuned"
    assert new.spec.training["recipe"]["start_from"] == "tiny"
    assert new.spec.training["recipe"]["locator"] is None
    for name, weight in old.locator.state_dict().items():
        assert torch.equal(weight, new.locator.state_dict()[name])
    np.testing.assert_array_equal(old.spec.mean_shape, new.spec.mean_shape)
    moved = (old.network.classifier.weight - new.network.classifier.weight).abs().max()
    assert 0 < float(moved.detach()) < 0.05
    assert old.refinement is not None
    assert new.refinement is not None
    assert new.spec.refinement == old.spec.refinement
    assert new.spec.training["refinement"]["steps"] == 2
    moved = (old.refinement.classifier.weight - new.refinement.classifier.weight).abs().max()
    assert 0 < float(moved.detach()) < 0.05
    page = (output / "report" / "model_comparison.md").read_text(encoding="utf-8")
    assert "## Table IV of the paper, MAE Euclidean" in page
    assert "MAE tiny | MAE tiny-tuned" in page
    assert "The scans are those of the split test" in page
    assert (output / "report" / "model_comparison.png").stat().st_size > 5000
    capsys.readouterr()
    report = tmp_path / "evaluated"
    command = ["evaluate", "--model", str(output / "model"), "--before", str(trained / "model")]
    assert main([*command, "--dataset", str(scans), "-o", str(report)]) == 0
    assert (report / "model_comparison.md").is_file()
    assert "tiny-tuned after tiny" in capsys.readouterr().out


def test_a_model_learns_other_landmarks(tmp_path, trained, scans, tiny_protocol, capsys):
    """A dataset of another protocol: new locator, new last layer, old features."""
    source = Dataset.open(scans)
    dataset = Dataset.create(tmp_path / "five", tiny_protocol)
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet
    from BrainLandmarksLib.review import Review

    labels = ["EYE_L", "EYE_R", "CC_G", "HP_L", "HP_R"]
    known = source.protocol.labels
    rows = [known.index(label) if label in known else n for n, label in enumerate(labels)]
    for entry in source.entries[:3]:
        sample = source.read(entry)
        points = sample.review.current.points[rows]
        dataset.add(
            sample.volume, Review.of(LandmarkSet.from_points(tiny_protocol, points, "truth"))
        )
    output = tmp_path / "five_run"
    command = ["finetune", str(trained / "model"), str(dataset.folder), "-o", str(output)]
    assert main([*command, "--steps", "3", "--device", "cpu", "--name", "five"]) == 0
    model = load_model(output / "model")
    assert model.protocol.labels == tiny_protocol.labels
    assert model.network.classifier.out_channels == 5
    assert model.locator.classifier.out_channels == 5


def test_the_last_layer_keeps_what_both_protocols_know(brain88, tmp_path):
    """Labels decide: a protocol of the first landmarks in another order keeps their rows."""
    values = json.loads(brain88.to_json())
    eyes = [item for item in values["landmarks"] if item["label"].startswith("EYE")]
    values["landmarks"] = [
        {**item, "index": n, "group": "Eyes"} for n, item in enumerate(reversed(eyes), start=1)
    ]
    values["groups"] = [{"name": "Eyes", "first": 1, "last": len(eyes), "color": "#3674fe"}]
    for key in ("chains", "distances", "scan_planes"):
        values.pop(key, None)
    values["name"] = "eyes"
    path = tmp_path / "eyes.json"
    path.write_text(json.dumps(values))
    eyes_only = load_protocol(path)
    model = load_model("brain88")
    network = start_network(model, "fine", eyes_only)
    rows = [model.protocol.labels.index(label) for label in eyes_only.labels]
    old = model.network.state_dict()
    assert torch.equal(network.classifier.weight, old["classifier.weight"][rows])
    assert torch.equal(network.classifier.bias, old["classifier.bias"][rows])
    for name, weight in network.state_dict().items():
        assert name.startswith("classifier") or torch.equal(weight, old[name])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["finetune", "nothing", "{scans}", "-o", "o"], "nothing"),
        (["finetune", "brain88", "{scans}/images", "-o", "o"], "dataset"),
        (["ablation", "nothing", "-o", "o"], "not found"),
        (["ablation", "reduced", "-o", "o"], "--dataset"),
        (["train", "paper", "-o", "o"], "--dataset"),
        (
            ["evaluate", "--predictions", "a", "--truth", "b", "--before", "c", "-o", "o"],
            "--before",
        ),
    ],
)
def test_what_does_not_go_is_one_sentence(
    arguments, sentence, scans, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([each.format(scans=scans) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_the_ablation_fills_table_three_and_goes_on(tmp_path, scans, capsys):
    path = tmp_path / "ablation.yaml"
    fine = {**SMALL, "field_of_view_mm": 208, "steps": 4, "dropout": 0.2}
    inner = yaml.safe_load(recipe(tmp_path, fine=fine).read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({"recipe": inner}), encoding="utf-8")
    command = ["ablation", str(path), "--dataset", str(scans), "-o", str(tmp_path / "grid")]
    assert main(command) == 0
    page = (tmp_path / "grid" / "ablation.md").read_text(encoding="utf-8")
    assert page.count("| Baseline + uncorrected GT |") == 2
    assert "Uncorrected ground truth is off by" in page
    cells = sorted(p.name for p in (tmp_path / "grid").iterdir() if p.is_dir())
    assert len(cells) == 8
    models = {name: load_model(tmp_path / "grid" / name / "model") for name in cells}
    first = models["corrected-augmented-mixed"]
    for name, model in models.items():
        settings = model.spec.training["recipe"]
        assert (settings["fine"]["alpha"] == 0.4) == name.endswith("mixed")
        assert (model.spec.inverse_temperature > 1) == name.endswith("mixed")
        assert (settings["fine"]["dropout"] == 0.2) == name.startswith("corrected")
        assert (settings["scans"]["augmented_share"] == 0.5) == ("augmented" in name)
        assert torch.equal(model.locator.classifier.weight, first.locator.classifier.weight)
    weights = {tuple(m.network.classifier.weight.flatten().tolist()) for m in models.values()}
    assert len(weights) == 8
    # Given again, it trains nothing: a cell that is lost is made once more, the same.
    shutil.rmtree(tmp_path / "grid" / "uncorrected-plain-mse")
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("training the fine network") == 1
    assert (tmp_path / "grid" / "ablation.md").read_text(encoding="utf-8") == page


def test_the_numbers_of_an_ablation_are_those_of_its_settings(tmp_path, scans, capsys):
    """What is there already is not taken for runs of other settings."""
    grid = tmp_path / "grid"
    for cell in cells():
        (grid / cell.folder).mkdir(parents=True)
        points = np.zeros((2, len(Dataset.open(scans).protocol), 3))
        np.savez(grid / cell.folder / "test.npz", found=points + 1, truth=points)

    def run(**changes: object) -> int:
        inner = yaml.safe_load(recipe(tmp_path).read_text(encoding="utf-8"))
        inner["fine"].update(changes)
        path = tmp_path / "ablation.yaml"
        path.write_text(yaml.safe_dump({"recipe": inner}), encoding="utf-8")
        return main(["ablation", str(path), "--dataset", str(scans), "-o", str(grid)])

    assert run() == 0
    page = (grid / "ablation.md").read_text(encoding="utf-8")
    assert run() == 0
    capsys.readouterr()
    assert run(steps=2000) == 2
    assert "an ablation with other settings" in capsys.readouterr().err
    assert (grid / "ablation.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("first", [True, False])
def test_all_processes_take_the_costs_that_the_first_one_has_measured(
    tmp_path, scans, monkeypatch, first
):
    """Each measures other times, and steps follow from them."""
    values = {"recipe": yaml.safe_load(recipe(tmp_path).read_text(encoding="utf-8"))}
    path = tmp_path / "variants.yaml"
    path.write_text(yaml.safe_dump({**values, "variants": {"a": {}, "b": {}}}), encoding="utf-8")
    config = load_ablation(str(path), tmp_path / "grid", scans)
    sent = []

    class Processes:
        device = torch.device("cpu")

        def broadcast(self, own):
            sent.append(own)
            return {"a": 1.0, "b": 1.5}

    times = iter([1.0, 4.0] * trial._TURNS)
    monkeypatch.setattr(trial, "_step_seconds", lambda *_: next(times))
    monkeypatch.setattr(trial, "make_fabric", lambda machine: Processes())
    monkeypatch.setattr(trial, "leads", lambda: first)
    kept = tmp_path / "costs.json"
    assert trial._costs(dict.fromkeys("ab"), config, kept) == {"a": 1.0, "b": 1.5}
    assert sent == [{"a": 1.0, "b": 4.0} if first else {}]
    assert kept.is_file() == first


def test_variants_of_the_network_are_compared_at_equal_steps_and_time(
    tmp_path, scans, capsys, monkeypatch
):
    """The second variant costs twice as much, so it is trained with half of the steps as well."""
    costs = iter([1.0, 2.0] * trial._TURNS)
    monkeypatch.setattr(trial, "_step_seconds", lambda *_: next(costs))
    path = tmp_path / "variants.yaml"
    inner = yaml.safe_load(recipe(tmp_path).read_text(encoding="utf-8"))
    both = {"long_skips": True, "attention": "squeeze_excitation"}
    values = {"recipe": inner, "variants": {"plain": {}, "both of them": both}}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    command = ["ablation", str(path), "--dataset", str(scans), "-o", str(tmp_path / "grid")]
    assert main(command) == 0
    page = (tmp_path / "grid" / "ablation.md").read_text(encoding="utf-8")
    assert "x 2.00" in page
    runs = sorted(p.parent.relative_to(tmp_path / "grid") for p in tmp_path.rglob("test.npz"))
    names = ("both_of_them-2", "both_of_them-4", "plain-4")
    assert [str(run) for run in runs] == [f"seed_0/{name}" for name in names]
    folder = tmp_path / "grid" / "seed_0"
    models = {name: load_model(folder / name / "model") for name in names}
    plain = models["plain-4"]
    assert plain.network.spec().keys().isdisjoint(both)
    for name in names[:2]:
        assert both.items() <= models[name].network.spec().items()
        assert models[name].spec.training["fine"]["steps"] == int(name[-1])
        assert torch.equal(models[name].locator.classifier.weight, plain.locator.classifier.weight)
    with np.load(folder / "plain-4" / "test.npz") as measured:
        error = np.nanmean(np.linalg.norm(measured["found"] - measured["truth"], axis=-1))
    assert f"{error:.2f}" in page
    # Given again, it trains only what is lost, and measures no cost anew.
    shutil.rmtree(folder / "both_of_them-2")
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("training the fine network") == 1
    assert (tmp_path / "grid" / "ablation.md").read_text(encoding="utf-8") == page


def test_the_table_of_variants_shows_the_seeds():
    def errors(*means: float) -> tuple[trial.Errors, ...]:
        return tuple(trial.Errors(mean, 1.0 if np.isnan(mean) else 0.0) for mean in means)

    outcomes = {
        "plain": trial.Outcome(1000, 1.0, 100, errors(8, 9), errors(8, 9)),
        "wide": trial.Outcome(2000, 1.25, 80, errors(7, 7.5), errors(7.5, np.nan)),
    }
    text = trial._table(outcomes).markdown()
    assert "| error after 100 steps |" in text
    assert "| plain | 1000 | x 1.00 | 8.50 (8.00, 9.00) | 100 | 8.50 (8.00, 9.00) |" in text
    assert "| wide | 2000 | x 1.25 | 7.25 (7.00, 7.50) | 80 | 7.50, none; 50 % missed |" in text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seeds": 0, "variants": {"a": {}}}, "'seeds'"),
        ({"variants": {"a": 3}}, "'variants'"),
        ({"variants": {"a": {"long_skip": True}}}, "did you mean 'long_skips'"),
    ],
)
def test_wrong_variants_are_one_sentence(tmp_path, scans, capsys, values, sentence):
    path = tmp_path / "variants.yaml"
    inner = yaml.safe_load(recipe(tmp_path).read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({"recipe": inner, **values}), encoding="utf-8")
    command = ["ablation", str(path), "--dataset", str(scans), "-o", str(tmp_path / "grid")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "grid").exists()


def test_a_model_without_attention_cannot_start_a_network_with_it(tmp_path, trained, scans, capsys):
    for setting in ({"attention": "squeeze_excitation"}, {"long_skips": True}):
        path = recipe(tmp_path, fine={**SMALL, **setting}, start_from=str(trained / "model"))
        assert main(["train", str(path), "--dataset", str(scans)]) == 2
        assert f"'fine.{next(iter(setting))}' needs new weights" in capsys.readouterr().err


def test_a_start_of_another_width_is_refused_before_anything_is_trained(
    tmp_path, trained, scans, capsys
):
    path = recipe(tmp_path, fine={**SMALL, "features": 8}, start_from=str(trained / "model"))
    assert main(["train", str(path), "--dataset", str(scans)]) == 2
    assert "'fine.features' is 8" in capsys.readouterr().err
    assert not (tmp_path / "run" / "locator").exists()
