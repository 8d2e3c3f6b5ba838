"""Training settings: read from JSON or YAML, everything unknown refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.config import TrainingConfig, config_from_dict, load_config


def test_reads_json(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"size": 32, "steps": 100, "minutes": 5, "label_maps": ["a", "b"]}))
    config = load_config(path)
    assert (config.size, config.steps, config.minutes) == (32, 100, 5.0)
    assert config.label_maps == ("a", "b")
    assert config.voxel_mm == pytest.approx(208 / 32)


def test_reads_yaml(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "train.yaml"
    path.write_text("size: 32\nsteps: 100\ninit_from: null\n")
    assert load_config(path) == TrainingConfig(size=32, steps=100)


def test_survives_json() -> None:
    config = TrainingConfig(steps=7, label_maps=("a",), alpha=0.25)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"learningrate": 1e-3}, "did you mean 'learning_rate'"),
        ({"epochs": 3}, "unknown training setting 'epochs'"),
        ({"steps": "many"}, "'steps' must be a whole number or null"),
        ({"steps": 3.5}, "'steps' must be a whole number"),
        ({"steps": True}, "'steps' must be a whole number"),
        ({"learning_rate": "fast"}, "'learning_rate' must be a number"),
        ({"output": 3}, "'output' must be text"),
        ({"label_maps": "a"}, "'label_maps' must be a list"),
        ({"steps": 0}, "'steps' must be above zero"),
        ({"steps": None}, "no end"),
        ({"alpha": 1.5}, "'alpha' must lie between 0 and 1"),
        ({"size": 30}, "multiple of 4"),
        ({"warmup_steps": -1}, "must not be negative"),
        ({"prefetch": -1}, "must not be negative"),
        ({"coordinate_loss": "l1"}, "choose one of mse, euclidean"),
        ({"learning_rate": float("inf")}, "above zero"),
    ],
)
def test_wrong_settings_are_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        config_from_dict({"steps": 5, **values})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "one setting per name"),
        ("a.json", None, "not found"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_config(tmp_path / name)
