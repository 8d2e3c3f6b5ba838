"""A recipe with a parcellation network, from scans, segmentations and label maps to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from phantom import coarse_phantom_head, phantom_scan

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    ParcellationSpec,
    load_model,
    save_model,
)
from BrainLandmarksLib.protocol import landmarks
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.data.classes import Classes
from BrainLandmarksTrainLib.data.segmentations import find_segmentations
from BrainLandmarksTrainLib.pipeline import parcellation

STRUCTURES = ["cerebral white matter", "hippocampus", "brain stem", "pons", "corpus callosum"]
SMALL = {
    "features": 2, "steps": 4, "warmup_steps": 1, "recalibration_batches": 1, "epoch_steps": 2,
    "validation_scans": 2, "log_every": 1, "tensorboard": False,
}  # fmt: skip
PARCELLATION = {
    **SMALL, "voxel_mm": 9.0, "crop": [16, 16, 16], "structures": STRUCTURES,
    "class_weights": {"hippocampus": 2}, "optimizer": "adamw",
}  # fmt: skip


def save(volume: Volume, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(volume.data.astype(np.int16), volume.grid.affine), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, phantom_truth: LandmarkSet) -> Path:
    """Scans, segmentations of them, their dataset, label maps and a model to start from."""
    root = tmp_path_factory.mktemp("parcellation")
    labels = coarse_phantom_head()
    scan = phantom_scan(labels, 4.0)
    dataset = Dataset.create(root / "dataset", phantom_truth.protocol)
    for number, split in enumerate(("train", "train", "validation", "train")):
        move = np.eye(4)
        move[:3, 3] = (4.0 * number, -3.0, 2.0 * number)
        name = f"P{number}.nii.gz"
        image = save(Volume(scan.data + number, Grid(scan.grid.shape, move @ scan.grid.affine)),
                     root / "t1" / name)  # fmt: skip
        points = LandmarkSet.from_points(
            phantom_truth.protocol, phantom_truth.moved(move).points, "truth"
        )
        dataset.add(read_image(image), Review.of(points), split=split)
        if number < 3:  # of the last one there is none
            grid = Grid(labels.grid.shape, move @ labels.grid.affine)
            save(Volume(labels.data, grid), root / "aseg" / name)
            save(Volume(np.roll(labels.data, 1, 1), grid), root / "synthseg" / name)
    for name in ("head_1", "head_2"):
        save(labels, root / "maps" / f"{name}.nii.gz")
    torch.manual_seed(0)
    count = len(phantom_truth)
    fine, locator = (
        HighRes3DNet(out_channels=count, features=2, residual_blocks=1, penultimate=8).eval()
        for _ in range(2)
    )
    low, high = np.nanmin(phantom_truth.points, 0), np.nanmax(phantom_truth.points, 0)
    shape = phantom_truth.points - (low + high) / 2
    spec = ModelSpec(
        "before", CropSpec(16, 208.0), CropSpec(16, 256.0), shape, inverse_temperature=1.25,
        held_out={"errors_mm": {"All": {"mean": 2.5}}},
    )  # fmt: skip
    save_model(Model(phantom_truth.protocol, fine, locator, spec), root / "before")
    return root


def recipe(folder: Path, output: str, **changes: object) -> Path:
    values = {
        "name": "parcelling",
        "output": output,
        "start_from": str(folder / "before"),
        "scans": {},
        "heads": {"held_out": ["head_2"], "samples_per_head": 1},
        "locator": None,
        "fine": None,
        "parcellation": PARCELLATION,
        "machine": {"device": "cpu", "precision": "float32", "threads": 1},
        **changes,
    }
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def options(folder: Path) -> list[str]:
    maps = [f"aseg={folder / 'aseg'}", f"synthseg={folder / 'synthseg'}"]
    return [
        "--dataset", str(folder / "dataset"), "--label-maps", str(folder / "maps"),
        "--segmentations", *maps, "--images", str(folder / "t1"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(folder: Path, phantom_truth: LandmarkSet) -> Path:
    """The output folder of a run that trained a parcellation network alone."""
    annotations = folder / "run" / "annotations"
    annotations.mkdir(parents=True)
    for name in ("head_1", "head_2"):  # the rules would say the same, and take their time
        write_landmarks(annotations / f"{name}.mrk.json", phantom_truth)
    assert main(["train", str(recipe(folder, "run")), *options(folder)]) == 0
    return folder / "run"


def test_a_parcellation_is_added_to_a_model(trained: Path, folder: Path) -> None:
    before, model = load_model(folder / "before"), load_model(trained / "model")
    numbers = (0, 2, 41, 17, 53, 16, 174, 251)
    assert model.spec.parcellation == ParcellationSpec(9.0, numbers)
    assert model.parcellation is not None
    assert model.parcellation.out_channels == len(numbers)
    # All else is what it was.
    for part in ("network", "locator"):
        old, new = (getattr(m, part).state_dict() for m in (before, model))
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert model.spec.inverse_temperature == 1.25
    assert model.spec.held_out["errors_mm"] == before.spec.held_out["errors_mm"]
    dice = model.spec.held_out["dice"]
    assert {name: part["count"] for name, part in dice.items()} == {
        "validation_scans": 1, "held_out_heads": 1,
    }  # fmt: skip
    # The label maps have no callosum and no pons: nothing says how well these are found.
    assert set(dice["held_out_heads"]["structures"]) == {
        "cerebral white matter L", "cerebral white matter R", "hippocampus L", "hippocampus R",
        "brain stem",
    }  # fmt: skip
    assert all(0 <= value <= 1 for value in dice["validation_scans"]["structures"].values())


def test_the_run_is_logged_and_tells_nothing_of_the_machine(trained: Path, folder: Path) -> None:
    training = load_model(trained / "model").spec.training
    assert training["parcellation"]["steps"] == 4
    assert training["heads"] == ["head_1", "0001", "0002", "0004"]
    assert training["recipe"]["parcellation"]["segmentations"] == ["aseg", "synthseg"]
    assert str(folder) not in json.dumps(training)
    header, *rows = (trained / "parcellation" / "epochs.csv").read_text().splitlines()
    assert "validation_dice_loss" in header
    assert len(rows) == 2
    assert not (trained / "fine").exists()


def test_the_same_command_again_only_measures(
    trained: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_model(trained / "model").parcellation
    command = ["train", str(folder / "run.yaml"), *options(folder)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "2 of 3 training scans and 1 of 1 validation scans are segmented" in out
    assert "| hippocampus L |" in out
    again = load_model(trained / "model").parcellation
    assert before is not None
    assert again is not None
    assert torch.equal(before.classifier.weight, again.classifier.weight)
    assert main([*command, "--resume", "no"]) == 2


def test_a_model_keeps_its_parcellation_when_others_are_trained(
    trained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "PLAUSIBLE", 0.0)
    fine = {**SMALL, "size": 16, "steps": 1, "validation_scans": 0}
    path = recipe(
        folder, "next", start_from=str(trained / "model"), heads=None, parcellation=None, fine=fine
    )
    assert main(["train", str(path), "--dataset", str(folder / "dataset")]) == 0
    before, model = load_model(trained / "model"), load_model(folder / "next" / "model")
    assert model.spec.parcellation == before.spec.parcellation
    assert model.parcellation is not None
    assert before.parcellation is not None
    old, new = before.parcellation.state_dict(), model.parcellation.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert not torch.equal(before.network.classifier.weight, model.network.classifier.weight)


def test_label_maps_without_any_structure_have_no_dice(monkeypatch) -> None:
    """A model could not be saved with a mean of nothing."""
    monkeypatch.setattr(parcellation, "measured_dice", lambda *_: np.full(3, np.nan))
    monkeypatch.setattr(parcellation, "_tiles", lambda *_: iter(()))
    data = parcellation.ParcellationData(
        Classes.of(["hippocampus"]), np.zeros((4, 3)), validation=[cast(Any, None)]
    )
    nothing = cast(Any, None)
    values, table = parcellation.measure_parcellation(
        nothing, data, nothing, nothing, torch.device("cpu")
    )
    assert json.loads(json.dumps(values, allow_nan=False)) == {
        "validation_scans": {"count": 1, "structures": {}}
    }
    assert len(table.rows) == 3


def test_label_maps_are_found_by_the_image_or_by_its_number(folder: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(folder / "dataset")
    maps = {"aseg": str(folder / "aseg"), "synthseg": str(folder / "synthseg")}
    found = find_segmentations(dataset, dataset.entries, maps, str(folder / "t1"))
    assert list(found) == ["0001", "0002", "0003"]
    assert [path.parent.name for path in found["0002"].values()] == ["aseg", "synthseg"]
    assert found["0002"]["aseg"].name == "P1.nii.gz"
    assert find_segmentations(dataset, dataset.entries, maps) == {}
    save(coarse_phantom_head(), tmp_path / "own" / "0003_dseg.nii.gz")
    own = find_segmentations(dataset, dataset.entries, {"aseg": str(tmp_path / "own")})
    assert list(own) == ["0003"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_from": None}, "without 'start_from' there is no locator"),
        ({"parcellation": None}, "trains nothing"),
        ({"heads": None, "images": None}, "nothing to learn from"),
        ({"structures": ["hipocampus"]}, "did you mean 'hippocampus'"),
        ({"structures": ["pons", "pons"]}, "once"),
        ({"class_weights": {"eye": 2}}, "no class"),
        ({"crop": [15, 16, 16]}, "multiple of 4"),
        ({"transfer": {"labels": "gif"}}, "--weights"),
        ({"segmentations": {"aseg": "before"}, "heads": None}, "no image files"),
        ({"segmentations": {"aseg": "maps"}}, "no training scan of the dataset has a label map"),
        ({"segmentations": {"aseg": "aseg"}, "images": "maps"}, "is an image of"),
        ({"segmentations": {"brain": "aseg"}, "images": "t1"}, "no label scheme called 'brain'"),
    ],
)
def test_a_wrong_recipe_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    own = {key: changes[key] for key in changes if key in (*PARCELLATION, "segmentations", "images",
           "transfer")}  # fmt: skip
    others = {key: value for key, value in changes.items() if key not in own}
    values = {"heads": None, "parcellation": {**PARCELLATION, **own}, **others}
    if not own and "heads" not in changes:
        values["heads"] = {"held_out": []}
    if own and "heads" not in changes and "segmentations" not in own:
        values["heads"] = {"held_out": []}
    command = ["train", str(recipe(folder, "wrong", **values))]
    command += ["--dataset", str(folder / "dataset")]
    if values["heads"]:
        command += ["--label-maps", str(folder / "maps")]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
