"""From the choices of a panel to a recipe, and what is seen of a run; PyTorch is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.split import split_dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.augmentation import AugmentationConfig
from BrainLandmarksTrainLib.augmentation.config import Policy
from BrainLandmarksTrainLib.config.finetune import finetune_recipe
from BrainLandmarksTrainLib.config.options import (
    TrainingOptions,
    arguments_of,
    keep_recipe,
    recipe_from,
    training_scans,
)
from BrainLandmarksTrainLib.config.recipe import load_recipe
from BrainLandmarksTrainLib.pipeline.progress import read_progress


@pytest.fixture
def choices(twelve_heads, tmp_path):
    return TrainingOptions("fine-tune", dataset=twelve_heads, output=tmp_path / "run")


def test_a_recipe_is_read_as_it_was_written(choices):
    recipe = recipe_from(choices)
    file = keep_recipe(recipe)
    assert load_recipe(file) == recipe
    assert arguments_of(file.parent) == ["train", str(file)]
    assert arguments_of(file.parent, resume=False)[-2:] == ["--resume", "no"]


def test_fine_tuning_differs_from_the_command_only_in_what_was_chosen(choices):
    command = finetune_recipe("brain88", choices.dataset, choices.output, steps=choices.amount)
    recipe = recipe_from(choices)
    assert replace(recipe, fine=replace(recipe.fine, log_every=command.fine.log_every)) == command
    recipe = recipe_from(replace(choices, alpha=0.2, loss="mse", size=48, name="x", device="cpu"))
    assert (recipe.name, recipe.machine.device) == ("x", "cpu")
    fine = recipe.fine
    assert (fine.alpha, fine.coordinate_loss, fine.size) == (0.2, "mse", 48)


def test_lengths(choices, heads):
    assert recipe_from(replace(choices, amount=7, unit="minutes")).fine.minutes == 7
    assert recipe_from(replace(choices, amount=7, unit="minutes")).fine.steps is None
    assert recipe_from(replace(choices, amount=2, unit="epochs")).fine.steps == 24
    # A step of the paper's recipe takes two scans.
    paper = recipe_from(replace(choices, method="paper", amount=2, unit="epochs")).fine
    assert (paper.batch_size, paper.steps) == (2, 12)
    dataset = Dataset.open(heads)
    split_dataset(dataset, validation=2, test=2)
    assert training_scans(dataset) == 8
    assert recipe_from(replace(choices, dataset=heads, amount=2, unit="epochs")).fine.steps == 16


def test_policies_and_new_models(choices):
    config = AugmentationConfig(policies={"X": Policy(1.0, ("blur",))})
    recipe = recipe_from(replace(choices, method="paper", augmentation=config))
    assert recipe.scans.augmentation == config
    assert recipe.start_from is None
    assert recipe.locator is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": None}, "dataset"),
        ({"output": None}, "output folder"),
        ({"model": "nothing"}, "no model"),
        ({"size": 30}, "multiple of 4"),
        ({"alpha": 2.0}, "alpha"),
        ({"method": "file"}, "recipe file"),
    ],
)
def test_what_does_not_go_is_one_sentence(choices, changes, words):
    with pytest.raises(UserError, match=words):
        load_recipe(keep_recipe(recipe_from(replace(choices, **changes))))


def test_progress_is_read_while_it_is_written(tmp_path):
    assert read_progress(tmp_path) == []
    (tmp_path / "fine").mkdir()
    log = tmp_path / "fine" / "log.csv"
    log.write_text("step,seconds,total,error_mm,progress\n5,10,3.5,20,0.25\n10,20,3,18,0.5\n15,3")
    (tmp_path / "fine" / "epochs.csv").write_text("epoch,step,validation_mm\n1,5,\n2,10,17.5\n")
    (progress,) = read_progress(tmp_path)
    assert (progress.part, progress.step, progress.share, progress.left_s) == ("fine", 10, 0.5, 20)
    assert (progress.loss.steps, progress.loss.values) == ([5, 10], [3.5, 3])
    assert (progress.validation.steps, progress.validation.values) == ([10], [17.5])


def test_nothing_heavy_is_imported():
    code = (
        "import sys, BrainLandmarksTrainLib.config.options, "
        "BrainLandmarksLib.worker.background_run, "
        "BrainLandmarksTrainLib.pipeline.progress; "
        "from BrainLandmarksTrainLib.augmentation import Record;"
        "print([m for m in ('torch', 'torchio', 'nibabel', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_in_the_background_tells_how_it_ended(tmp_path):
    from BrainLandmarksLib.worker.background_run import RUN_FILE, WORDS_FILE

    program = [sys.executable, "-m", "BrainLandmarksLib.cli.child", "--background", str(tmp_path)]
    for arguments, code in ((["--version"], 0), (["no-such-command"], 2)):
        done = subprocess.run([*program, *arguments], capture_output=True, text=True)
        about = json.loads((tmp_path / RUN_FILE).read_text())
        assert done.returncode == about["exit"] == code
        assert about["arguments"] == arguments
    assert {path.name for path in tmp_path.iterdir()} == {RUN_FILE, WORDS_FILE}
