"""From label maps to a model folder, small: every step of the real thing runs."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom import phantom_head
from scipy.spatial.transform import Rotation

from BrainLandmarksLib.agreement.summaries import summary
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import CropSpec, load_model
from BrainLandmarksLib.protocol import landmarks
from BrainLandmarksTrainLib.config.recipe import load_recipe
from BrainLandmarksTrainLib.evaluation.metrics import ErrorTable


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for number, angle in enumerate((-4, 0, 5), start=1):
        head = phantom_head(Rotation.from_euler("xz", [angle, -angle], degrees=True).as_matrix())
        image = nib.Nifti1Image(head.data.astype(np.int16), head.grid.affine)
        nib.save(image, folder / f"head_{number}.nii.gz")
    return folder


def settings(**changes):
    small = {
        "features": 4, "steps": 6, "warmup_steps": 2, "recalibration_batches": 2,
        "validation_scans": 1,
    }  # fmt: skip
    return {
        "name": "tiny",
        "output": "out",
        "heads": {"held_out": ["head_3"], "deformed_copies_per_head": 1, "samples_per_head": 1},
        "locator": {"size": 16, "field_of_view_mm": 256, **small},
        "fine": {"size": 16, "field_of_view_mm": 208, **small},
        **changes,
    }


def test_a_recipe_makes_a_model_that_detects_and_is_measured(
    label_maps, tmp_path, capsys, monkeypatch
):
    # Six steps teach nothing: whatever the locator says must pass for a head here.
    monkeypatch.setattr(landmarks, "PLAUSIBLE", 0.0)
    recipe = tmp_path / "tiny.json"
    fine = settings()["fine"]
    refinement = {**fine, "size": 32, "crop": [16, 16, 16], "prior_mm": 3.5}
    recipe.write_text(json.dumps(settings(refinement=refinement)))
    assert main(["train", str(recipe), "--label-maps", str(label_maps)]) == 0
    model = load_model(tmp_path / "out" / "model")
    assert model.spec.name == "tiny"
    assert model.spec.training["heads"] == ["head_1", "head_2"]
    assert model.spec.training["fine"]["steps"] == 6
    assert model.spec.training["recipe"]["fine"]["alpha"] == 0.4
    assert model.spec.training["refinement"]["steps"] == 6
    assert model.spec.refinement == CropSpec(16, 104.0)
    assert model.refinement is not None
    assert model.spec.inverse_temperature == 1.5
    assert set(model.spec.training["software"]) > {"torch", "numpy", "brainlandmarks"}
    assert str(tmp_path) not in json.dumps(model.spec.training)
    assert model.spec.command == "brainlandmarks train tiny.json"
    assert model.spec.held_out["heads"] == ["head_3"]
    assert model.spec.held_out["errors_mm"]["All"]["count"] > 40
    assert model.spec.calibration is not None
    assert model.shape is not None
    assert model.shape.deviation(model.spec.mean_shape).max() < 3.0
    assert sorted(p.name for p in (tmp_path / "out" / "deformed_copies").glob("*.nii.gz")) == [
        "head_1_000.nii.gz", "head_2_000.nii.gz", "head_3_000.nii.gz",
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "| Corpus Callosum |" in out
    # The same command again finds everything done and only measures.
    assert main(["train", str(recipe), "--label-maps", str(label_maps)]) == 0
    report = tmp_path / "report"
    report.mkdir()
    folder = str(tmp_path / "out" / "model")
    command = ["evaluate", "--model", folder, "--label-maps", str(label_maps)]
    assert main([*command, "--scans", "1", "-o", str(report), "--quality", "best"]) == 0
    assert (report / "confidence.png").stat().st_size > 5000
    assert "| corrected points |" in (report / "errors.md").read_text(encoding="utf-8")
    rows = (report / "errors.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
    assert rows[0].startswith("scan,FP_L,")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown training setting 'colour'"),
        ({"fine": {"size": 64, "steps": 5, "learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"heads": {"held_out": ["head_9"]}}, "head_9"),
        ({"heads": {"held_out": ["head_1", "head_2", "head_3"]}}, "all label maps are held out"),
        ({"heads": "maps"}, "'heads' must hold one value per name"),
        ({"protocol": "afids32"}, "annotated by rule with the landmarks of brain88"),
        ({"refinement": {"size": 64, "steps": 5}}, "'refinement' lacks 'prior_mm'"),
        (
            {"refinement": {"steps": 5, "prior_mm": 3.5, "crop": [16, 16, 32]}},
            "give 'crop' three equal numbers",
        ),
        (
            {"fine": {"steps": 5, "attention": "squeeze_excitation", "crop": [32, 32, 32]}},
            "leave out 'fine.crop'",
        ),
    ],
)
def test_a_wrong_recipe_is_refused(label_maps, tmp_path, capsys, changes, message):
    recipe = tmp_path / "wrong.json"
    recipe.write_text(json.dumps(settings(**changes)))
    assert main(["train", str(recipe), "--label-maps", str(label_maps)]) == 2
    assert message in capsys.readouterr().err


def test_the_shipped_recipe_needs_label_maps_and_output():
    with pytest.raises(UserError, match="--label-maps"):
        load_recipe("brain88")
    with pytest.raises(UserError, match="--output"):
        load_recipe("brain88", ["maps"])
    recipe = load_recipe("brain88", ["maps"], "out")
    assert recipe.fine.size == 64
    assert recipe.heads.label_maps == (str(Path("maps").absolute()),)


def test_summary_of_known_errors():
    values = summary(np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 10.0]]))
    assert values["count"] == 5
    assert values["mean"] == 4.0
    assert values["median"] == 3.0
    assert values["sdr_3"] == 0.6


def test_error_table_covers_groups_and_all(brain88):
    errors = np.tile(np.arange(1.0, 89.0), (2, 1))
    table = ErrorTable.of(brain88, errors)
    assert [name for name, _ in table.rows][-1] == "All"
    assert table.to_dict()["Frontal Lobe"]["mean"] == 3.0
    assert table.markdown().count("\n") == len(brain88.groups) + 2
