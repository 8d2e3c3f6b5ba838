"""Recipes: read from JSON or YAML, everything unknown refused by name, described by a schema."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.augmentation.config import augmentation_schema
from BrainLandmarksTrainLib.config import recipe as recipes
from BrainLandmarksTrainLib.config.parcellation import TransferConfig
from BrainLandmarksTrainLib.config.recipe import Recipe, load_recipe, recipe_schema, write_recipe
from BrainLandmarksTrainLib.engine.config import TrainingConfig
from BrainLandmarksTrainLib.settings import from_values

FOLDER = Path(str(resources.files(recipes.__package__) / "recipes"))
NETWORK = {"steps": 5}
SMALL = {
    "name": "a",
    "output": "run",
    "heads": {"label_maps": ["maps"]},
    "locator": NETWORK,
    "fine": NETWORK,
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, scans={"dataset": "set"}))
    assert recipe.output == str(tmp_path / "run")
    assert recipe.heads is not None
    assert recipe.heads.label_maps == (str(tmp_path / "maps"),)
    assert recipe.scans is not None
    assert recipe.scans.dataset == str(tmp_path / "set")
    assert recipe.fine == TrainingConfig(steps=5)


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    path = written(tmp_path, machine={"threads": 1, "device": "cpu"})
    recipe = load_recipe(path, ["/m"], "/o", "/d", devices=2, nodes=None, device="cuda")
    assert recipe.heads is not None
    assert recipe.heads.label_maps == ("/m",)
    assert recipe.scans is not None
    assert (recipe.output, recipe.scans.dataset) == ("/o", "/d")
    machine = recipe.machine
    assert (machine.device, machine.devices, machine.nodes, machine.threads) == ("cuda", 2, None, 1)


def test_json_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(SMALL), encoding="utf-8")
    assert load_recipe(path) == load_recipe(written(tmp_path))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, fine={"steps": 7, "crop": [32, 32, 32], "alpha": 0.25}))
    write_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("command", "schema"), [("train", recipe_schema), ("augment", augmentation_schema)]
)
def test_the_command_prints_the_schema(command, schema, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--schema"])
    assert stop.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(schema()))
    jsonschema.Draft202012Validator.check_schema(printed)


def test_a_recipe_may_name_its_schema(tmp_path: Path) -> None:
    path = written(tmp_path, **{"$schema": "recipe.schema.json"})
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), recipe_schema())
    assert load_recipe(path) == load_recipe(written(tmp_path))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_shipped_recipes_are_valid(name: str) -> None:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(values, recipe_schema())
    own = {"weights": "w", "segmentations": {"gif": "g"}} if "parcellation" in values else None
    maps = ["maps"] if "heads" in values else None
    recipe = load_recipe(name, maps, "out", "set", parcellation=own)
    assert recipe.name == name


def test_paths_of_a_parcellation_are_those_of_the_command_line_or_the_file(tmp_path: Path) -> None:
    maps = {"aseg": "own", "dlmuse": "/far"}
    own = {"steps": 5, "segmentations": maps, "transfer": {"weights": "w.pth", "gain": 2.0}}
    path = written(tmp_path, scans={"dataset": "/d"}, parcellation=own)
    recipe = load_recipe(path)
    assert recipe.parcellation is not None
    assert recipe.parcellation.segmentations == {"aseg": str(tmp_path / "own"), "dlmuse": "/far"}
    assert recipe.parcellation.transfer == TransferConfig(str(tmp_path / "w.pth"), gain=2.0)
    assert list(recipe.trained) == ["locator", "fine", "parcellation"]
    given = {"weights": "/v.pth", "images": "/t1", "segmentations": {"gif": "/g"}}
    recipe = load_recipe(path, parcellation=given)
    assert recipe.parcellation is not None
    assert recipe.parcellation.segmentations == {"gif": "/g"}
    assert recipe.parcellation.images == "/t1"
    assert recipe.parcellation.transfer == TransferConfig("/v.pth", gain=2.0)
    write_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_names_of_earlier_versions_are_read(tmp_path: Path) -> None:
    network = {"steps": 5, "average_decay": 0.5}
    box = {**network, "size": 24, "crop": [24, 24, 24], "prior_mm": 3.0}
    path = written(
        tmp_path, fine=network, detail=box, heads={"label_maps": ["m"], "offspring_per_head": 3}
    )
    recipe = load_recipe(path)
    assert recipe.fine.ema_decay == 0.5
    assert recipe.refinement is not None
    assert (recipe.refinement.prior_mm, recipe.refinement.ema_decay) == (3.0, 0.5)
    assert recipe.heads is not None
    assert recipe.heads.deformed_copies_per_head == 3


def test_every_setting_is_described() -> None:
    def check(group: dict[str, object], path: str) -> int:
        count = 0
        for name, entry in group["properties"].items():  # type: ignore[attr-defined]
            if name == "$schema":
                continue
            assert entry.get("description"), f"{path}{name}"
            inner = next((e for e in entry.get("anyOf", [entry]) if "properties" in e), None)
            count += 1 if inner is None else check(inner, f"{path}{name}.")
        return count

    assert check(recipe_schema(), "") > 80


@pytest.mark.parametrize(
    ("values", "sentence", "schema_sees_it"),
    [
        ({"learningrate": 1e-3}, "'fine.learningrate'; did you mean 'learning_rate'", True),
        ({"epochs": 3}, "unknown training setting 'fine.epochs'", True),
        ({"steps": "many"}, "'fine.steps' must be a whole number or null", True),
        ({"steps": 3.5}, "'fine.steps' must be a whole number", True),
        ({"steps": True}, "'fine.steps' must be a whole number", True),
        ({"tensorboard": 1}, "'fine.tensorboard' must be true or false", True),
        ({"learning_rate": "fast"}, "'fine.learning_rate' must be a number", True),
        ({"crop": 32}, "'fine.crop' must be 3 whole numbers", True),
        ({"crop": [32, 32]}, "'fine.crop' must be 3 whole numbers", True),
        ({"crop": [32, 32, 30]}, "multiple of 4", False),
        ({"steps": 0}, "'fine.steps' must be at least 1", True),
        ({"steps": None}, "no end", False),
        ({"alpha": 1.5}, "'fine.alpha' must be between 0 and 1", True),
        ({"size": 30}, "multiple of 4", False),
        ({"warmup_steps": -1}, "must be at least 0", True),
        ({"coordinate_loss": "l1"}, "choose one of mse, euclidean", True),
        ({"learning_rate": float("inf")}, "must be finite", False),
    ],
)
def test_wrong_settings_are_one_sentence(
    tmp_path: Path, values: dict[str, object], sentence: str, schema_sees_it: bool
) -> None:
    changed = {**SMALL, "fine": {**NETWORK, **values}}
    with pytest.raises(UserError) as caught:
        from_values(Recipe, changed, recipes.WHAT)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    validator = jsonschema.Draft202012Validator(recipe_schema())
    assert validator.is_valid(changed) is not schema_sees_it


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": None}, "nothing to learn from"),
        ({"heads": {}}, "lacks 'heads.label_maps'"),
        ({"scans": {}}, "lacks 'scans.dataset'"),
        ({"output": ""}, "lacks 'output'"),
        ({"machine": {"gpus": 2}}, "unknown training setting 'machine.gpus'"),
        ({"scans": {"augmentation": {"policies": {}}}}, "must hold one value per name"),
    ],
)
def test_wrong_recipes_are_one_sentence(tmp_path: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_recipe(written(tmp_path, **changes))


@pytest.mark.parametrize("group", ["heads", "scans", "machine", "parcellation"])
def test_a_value_where_a_group_belongs_is_one_sentence(tmp_path: Path, group: str) -> None:
    """Also where the command line sets something in the group."""
    with pytest.raises(UserError, match=f"'{group}' must hold one value per name"):
        load_recipe(
            written(tmp_path, **{group: "mine"}), ["maps"], "out", "scans", device="cpu",
            parcellation={"weights": "w.pth"},
        )  # fmt: skip


@pytest.mark.parametrize("watching", [{"patience": 3}, {"schedule": "plateau"}])
def test_what_follows_the_validation_error_needs_one(tmp_path: Path, watching: dict) -> None:
    fine = {**NETWORK, **watching}
    assert load_recipe(written(tmp_path, fine=fine)).fine is not None
    with pytest.raises(UserError, match="of 'fine' follows the validation error"):
        load_recipe(written(tmp_path, fine={**fine, "validation_scans": 0}))


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "1E-3", ".1e-2", "0.001"])
def test_numbers_as_people_write_them(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, fine={**NETWORK, "learning_rate": "HERE"})
    path.write_text(path.read_text().replace("HERE", text))
    assert load_recipe(path).fine.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "one setting per name"),
        ("a.yaml", "a: [", "not valid YAML"),
        ("a.json", None, "not found"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_recipe(tmp_path / name)
