"""Training: it learns, it stops and goes on exactly, and it is killed without harm."""

from __future__ import annotations

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksTrainLib.engine import batches as batch_files
from BrainLandmarksTrainLib.engine import checkpoint as checkpoint_files
from BrainLandmarksTrainLib.engine.batches import Sampler, lost_worker_told, make_batches
from BrainLandmarksTrainLib.engine.checkpoint import (
    averaged_weights,
    checkpoints,
    latest_checkpoint,
    load_weights,
    trained_weights,
)
from BrainLandmarksTrainLib.engine.config import MachineConfig, TrainingConfig
from BrainLandmarksTrainLib.engine.ema import ExponentialMovingAverage
from BrainLandmarksTrainLib.engine.logs import epoch_fields, step_fields
from BrainLandmarksTrainLib.engine.optimizer import orthogonalised
from BrainLandmarksTrainLib.engine.step import train_mode
from BrainLandmarksTrainLib.engine.tasks import HeatmapTask
from BrainLandmarksTrainLib.engine.trainer import Trainer

LANDMARKS = 2


def tiny_network(dropout: float = 0.0, seed: int = 0) -> HighRes3DNet:
    torch.manual_seed(seed)
    return HighRes3DNet(
        out_channels=LANDMARKS,
        features=4,
        residual_blocks=1,
        dilations=(1, 2),
        penultimate=8,
        dropout=dropout,
    )


def two_blobs(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A sharp and a wide blob somewhere in a noisy 12 mm cube; now and then one is missing."""
    points = rng.uniform(3, 8, (LANDMARKS, 3))
    axes = np.indices((12, 12, 12))
    cube = rng.normal(0, 0.05, (12, 12, 12))
    for point, width, height in zip(points, (1.0, 2.5), (1.0, 0.7), strict=True):
        squared = ((axes - point[:, None, None, None]) ** 2).sum(0)
        cube += height * np.exp(-0.5 * squared / width**2)
    if rng.random() < 0.2:
        points[rng.integers(LANDMARKS)] = np.nan
    return (
        torch.from_numpy(cube[None]).float(),
        torch.from_numpy(points).float(),
    )


MACHINE = MachineConfig(device="cpu", precision="float32")


def settings(**changes: object) -> TrainingConfig:
    values: dict[str, object] = {
        "size": 12,
        "field_of_view_mm": 12.0,
        "steps": 12,
        "warmup_steps": 3,
        "learning_rate": 5e-3,
        "log_every": 2,
        "recalibration_batches": 4,
        "sigma": 1.0,
        "epoch_steps": 4,
        "validation_scans": 2,
        "tensorboard": False,
    }
    return TrainingConfig(**{**values, **changes})  # type: ignore[arg-type]


def trainer_of(
    folder: Path,
    network: HighRes3DNet | None = None,
    sampler: Sampler = two_blobs,
    machine: MachineConfig = MACHINE,
    **changes: object,
) -> Trainer:
    return Trainer(network or tiny_network(), sampler, settings(**changes), folder, machine=machine)


def read_log(folder: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def curve(folder: Path, name: str = "log.csv") -> list[dict[str, str]]:
    """A log without what the clock says."""
    clock = ("seconds", "samples_per_second", "waiting_share")
    return [{k: v for k, v in row.items() if k not in clock} for row in read_log(folder, name)]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_learns_to_find_blobs(tmp_path: Path, optimizer: str) -> None:
    trainer = trainer_of(tmp_path, steps=120, log_every=10, optimizer=optimizer, batch_size=2)
    assert trainer.train().finished
    rows = read_log(tmp_path)
    assert tuple(rows[0]) == step_fields(HeatmapTask(settings()))
    assert [int(r["step"]) for r in rows] == list(range(10, 121, 10))
    assert float(rows[-1]["error_voxels"]) < 0.7 * float(rows[0]["error_voxels"])
    assert float(rows[-1]["error_mm"]) == pytest.approx(float(rows[-1]["error_voxels"]), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resuming_is_exact(tmp_path: Path, optimizer: str) -> None:
    """Stopped at step 5 and, batch norm frozen, at step 10: the weights of a run that never was."""
    changes = {"freeze_norm_at": 0.6, "optimizer": optimizer}
    straight = trainer_of(tmp_path / "a", tiny_network(0.3), **changes)
    straight.train()
    folder = tmp_path / "b"
    running: list[Trainer] = []
    for seed, stop in enumerate((4, 9, None)):

        def sampler(
            step: int, rng: np.random.Generator, stop: int | None = stop
        ) -> tuple[Tensor, Tensor]:
            if step == stop:
                running[-1].stop()
            return two_blobs(step, rng)

        # Only the first session starts from its own weights; the others must not.
        trainer = trainer_of(folder, tiny_network(0.3, seed), sampler=sampler, **changes)
        running.append(trainer)
        result = trainer.train()
        assert result.finished is (stop is None)
        assert result.step == (12 if stop is None else stop + 1)
    assert same(straight.network, trainer.network)
    assert same(straight.ema.network, trainer.ema.network)
    for name in ("log.csv", "epochs.csv"):
        assert curve(folder, name) == curve(tmp_path / "a", name)


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    first = trainer_of(tmp_path)
    first.train()
    again = trainer_of(tmp_path, tiny_network(seed=1))
    assert again.train().step == 12
    assert same(first.network, again.network)
    assert len(read_log(tmp_path)) == 6


@pytest.mark.parametrize("changes", [{"prefetch": 1}, {"prefetch": 3}, {"workers": 1}])
def test_making_samples_ahead_changes_nothing(tmp_path: Path, changes: dict[str, int]) -> None:
    plain = trainer_of(tmp_path / "a")
    plain.train()
    ahead = trainer_of(tmp_path / "b", machine=replace(MACHINE, **changes))
    ahead.train()
    assert same(plain.network, ahead.network)
    assert curve(tmp_path / "b") == curve(tmp_path / "a")


def test_the_log_tells_the_speed_and_how_long_samples_took(tmp_path: Path) -> None:
    def slow(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        time.sleep(0.05)
        return two_blobs(step, rng)

    trainer_of(tmp_path, sampler=slow, batch_size=2, validation_scans=0).train()
    last = read_log(tmp_path)[-1]
    assert 0 < float(last["samples_per_second"]) < 20
    assert 0.02 < float(last["waiting_share"]) <= 1


@pytest.mark.parametrize("depth", [0, 2])
def test_errors_of_the_sampler_surface(tmp_path: Path, depth: int) -> None:
    def broken(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if step == 3:
            raise RuntimeError("no more heads")
        return two_blobs(step, rng)

    with pytest.raises(RuntimeError, match="no more heads"):
        trainer_of(tmp_path, sampler=broken, machine=replace(MACHINE, prefetch=depth)).train()


def test_cubes_of_different_shapes_share_a_step() -> None:
    sides: list[int] = []

    def sampler(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        sides.append((8, 12, 8, 8, 12)[len(sides)])
        return torch.rand(1, sides[-1], 8, 8), torch.rand(LANDMARKS, 3)

    batches = make_batches(sampler, seed=0, step=4, indices=range(5))
    assert [tuple(cubes.shape) for cubes, _ in batches] == [(3, 1, 8, 8, 8), (2, 1, 12, 8, 8)]
    assert [tuple(points.shape) for _, points in batches] == [(3, 2, 3), (2, 2, 3)]


def test_accumulating_shapes_is_one_gradient(tmp_path: Path) -> None:
    """Two cubes in two batches give the mean gradient of the two, like one batch would."""
    samples = [two_blobs(0, np.random.default_rng(i)) for i in range(9)]
    cubes = [sample for sample in samples if torch.isfinite(sample[1]).all()][:2]
    together = [(torch.stack([c for c, _ in cubes]), torch.stack([p for _, p in cubes]))]
    apart = [(c[None], p[None]) for c, p in cubes]
    gradients = []
    for batches in (together, apart):
        trainer = trainer_of(tmp_path, clip_norm=1e9)
        trainer.freeze_norm()  # statistics of one cube and of two differ; the frozen ones do not
        trainer.take_step(batches, trainer.learning_rate())
        gradients.append([p.grad.clone() for p in trainer.network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_frozen_norm_trains_what_detection_evaluates(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    cube = two_blobs(0, np.random.default_rng(0))[0][None]
    trainer.network.train()
    moving = trainer.network(cube)
    trainer.freeze_norm()
    train_mode(trainer.network, norm_frozen=True)
    frozen = trainer.network(cube)
    trainer.network.eval()
    torch.testing.assert_close(frozen, trainer.network(cube))
    assert not torch.allclose(frozen, moving)
    means = [m.running_mean for m in trainer.network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert all(float(m.abs().max()) > 0 for m in means)
    assert same(trainer.network, trainer.ema.network)


def test_learning_rate_warms_up_and_anneals(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, steps=100, warmup_steps=10, final_learning_rate=0.1)
    rates = []
    for step in range(101):
        trainer.state.step = step
        rates.append(trainer.learning_rate() / trainer.config.learning_rate)
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], abs=0.02)
    assert rates[50] == pytest.approx(0.55, abs=0.01)
    assert rates[100] == pytest.approx(0.1)


def test_a_time_budget_ends_the_run(tmp_path: Path) -> None:
    result = trainer_of(tmp_path, steps=None, minutes=0.01).train()
    assert result.finished
    assert 0.6 <= result.seconds < 60
    assert result.step > 0


def test_only_kernels_decay(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    for group in trainer.state.optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    held = sum(len(g["params"]) for g in trainer.state.optimizer.param_groups)
    assert held == len(list(trainer.network.parameters()))


def test_orthogonalised_matrices_have_even_singular_values() -> None:
    for shape in ((16, 432), (80, 64)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalised(matrix))
        assert values.min() > 0.4
        assert values.max() < 1.3


def test_a_broken_sample_does_not_poison_the_weights(tmp_path: Path) -> None:
    def sampler(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        cube, points = two_blobs(step, rng)
        return (cube * torch.inf if step == 4 else cube), points

    trainer = trainer_of(tmp_path, sampler=sampler, freeze_norm_at=0.0)
    trainer.train()
    assert trainer.state.step == 12
    for network in (trainer.network, trainer.ema.network):
        assert all(torch.isfinite(p).all() for p in network.parameters())


def test_checkpoints_are_few_and_whole(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, checkpoint_minutes=1e-9, keep_checkpoints=2)
    result = trainer.train()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-00000011", "checkpoint-00000012"]
    assert result.checkpoint == latest_checkpoint(tmp_path)
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    trainer_of(tmp_path, checkpoint_minutes=1e-9).train()
    older, cut, broken = checkpoints(tmp_path)
    (broken / "state.json").write_text('{"step": ')
    tensors = cut / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    (tmp_path / ".checkpoint-00000099.1").mkdir()
    assert latest_checkpoint(tmp_path) == older
    assert trainer_of(tmp_path).state.step == 10


def test_average_follows_the_network() -> None:
    network = tiny_network()
    average = ExponentialMovingAverage(network, 0.9)
    start = average.network.classifier.weight.clone()
    with torch.no_grad():
        network.classifier.weight.add_(1.0)
    for _ in range(100):
        average.update(network)
    torch.testing.assert_close(average.network.classifier.weight, start + 1.0, atol=1e-3, rtol=0)
    assert not average.network.training


def test_weights_travel_to_a_larger_cube(tmp_path: Path) -> None:
    first = trainer_of(tmp_path / "small")
    first.train()
    start = str(tmp_path / "small")
    grown = trainer_of(tmp_path / "large", tiny_network(seed=3), size=16, init_from=start)
    assert grown.state.step == 0
    assert same(grown.network, first.ema.network)
    torch.testing.assert_close(
        averaged_weights(tmp_path / "small")["classifier.weight"], grown.network.classifier.weight
    )


def test_start_weights_that_do_not_fit(tmp_path: Path) -> None:
    trainer_of(tmp_path / "run").train()
    other = HighRes3DNet(out_channels=5, features=2)
    with pytest.raises(UserError, match="another network"):
        load_weights(other, tmp_path / "run")
    with pytest.raises(UserError, match="another network"):
        trainer_of(tmp_path / "run", other)
    with pytest.raises(UserError, match="no training checkpoint"):
        load_weights(other, tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(other, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["banana", "cuda"])
def test_device_that_is_not_there(tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device"):
        trainer_of(tmp_path, machine=MachineConfig(device=name))


def test_bfloat16_learns_too(tmp_path: Path) -> None:
    machine = MachineConfig(device="cpu", precision="bfloat16")
    trainer_of(tmp_path, machine=machine, steps=60, batch_size=2).train()
    rows = read_log(tmp_path)
    assert float(rows[-1]["error_voxels"]) < float(rows[0]["error_voxels"])


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_trainer import *
result = trainer_of(Path({folder!r}), steps=100000, checkpoint_minutes=1e-9).train()
print("stopped", result.step, result.finished)
"""


def start_training(folder: Path) -> subprocess.Popen[str]:
    """A run in a process of its own that saves after every step."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while latest_checkpoint(folder) is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_sigterm_writes_a_checkpoint(tmp_path: Path) -> None:
    process = start_training(tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    word, step, finished = output.split()
    assert process.returncode == 0
    assert (word, finished) == ("stopped", "False")
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == f"checkpoint-{int(step):08d}"


def test_sigkill_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    """Killed anywhere, it ends with the weights and the curve of a run that was left alone."""
    process = start_training(tmp_path / "killed")
    process.kill()
    process.communicate(timeout=120)
    trainer = trainer_of(tmp_path / "killed", tiny_network(seed=5), steps=100000)
    reached = trainer.state.step
    assert reached > 0
    # The learning rate follows the length of the run, so both are as long as the killed one was.
    straight = trainer_of(tmp_path / "straight", steps=100000)
    for each in (trainer, straight):
        each.on_log = lambda row, each=each: each.stop() if row["step"] >= reached + 4 else None
        each.train()
    assert same(straight.network, trainer.network)
    assert same(straight.ema.network, trainer.ema.network)
    for name in ("log.csv", "epochs.csv"):
        assert curve(tmp_path / "killed", name) == curve(tmp_path / "straight", name)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch) -> None:
    trainer = trainer_of(tmp_path)
    real, calls = checkpoint_files.save_file, []

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        calls.append(path)
        if len(calls) > 1:
            Path(path).write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint_files, "save_file", full)
    with pytest.raises(UserError, match=r"No space left on device.*untouched"):
        trainer.train()
    assert [p.name for p in tmp_path.glob("*checkpoint*")] == ["checkpoint-00000004"]
    monkeypatch.setattr(checkpoint_files, "save_file", real)
    again = trainer_of(tmp_path, tiny_network(seed=1))
    assert again.state.step == 4
    assert again.train().finished
    trainer_of(tmp_path.with_name("straight")).train()
    assert curve(tmp_path) == curve(tmp_path.with_name("straight"))


def killed_in_step_six(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return two_blobs(step, rng)


def test_a_lost_worker_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    machine = replace(MACHINE, workers=1)
    with pytest.raises(UserError, match="has died"):
        trainer_of(tmp_path, sampler=killed_in_step_six, machine=machine).train()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-00000004"
    assert trainer_of(tmp_path).train().finished


def with_a_broken_scan(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    raise UserError("scan 7 is broken; repair it.")


def test_an_error_in_a_worker_is_told_as_what_it_is(tmp_path: Path, monkeypatch) -> None:
    """No worker has died of it, and a person's sentence comes without a traceback around it."""

    def here(of: Dataset, sampler: Sequence[int], **_: object) -> list[object]:
        return [pickle.loads(pickle.dumps(of[step])) for step in sampler]

    monkeypatch.setattr(batch_files, "DataLoader", here)  # starting processes takes long
    machine = replace(MACHINE, workers=1)
    with pytest.raises(UserError) as told:
        trainer_of(tmp_path, sampler=with_a_broken_scan, machine=machine).train()
    assert str(told.value) == "scan 7 is broken; repair it."
    from torch._utils import ExceptionWrapper

    try:
        raise RuntimeError("shapes cannot be multiplied")
    except RuntimeError:
        made = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), lost_worker_told():
        made.reraise()


def test_every_epoch_is_validated_logged_and_kept(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, steps=16, validation_scans=3)
    trainer.train()
    rows = read_log(tmp_path, "epochs.csv")
    assert tuple(rows[0]) == epoch_fields(HeatmapTask(settings()))
    assert [(int(r["epoch"]), int(r["step"])) for r in rows] == [(1, 4), (2, 8), (3, 12), (4, 16)]
    steps = read_log(tmp_path)
    for epoch, row in enumerate(rows):
        total = [float(r["total"]) for r in steps[2 * epoch : 2 * epoch + 2]]
        assert float(row["total"]) == pytest.approx(sum(total) / 2, rel=1e-6)
    assert float(rows[-1]["validation_mm"]) == pytest.approx(trainer.validate(), rel=1e-6)
    assert [p.name[-2:] for p in checkpoints(tmp_path)] == ["08", "12", "16"]


def test_validation_is_the_mean_error_of_the_averaged_network(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, validation_scans=5)
    errors = []
    for index in range(5):
        cube, points = two_blobs(0, np.random.default_rng([0, 2**31, index]))
        heatmaps = trainer.ema.network(cube[None])[0]
        for heatmap, point in zip(heatmaps, points, strict=True):
            if torch.isfinite(point).all():
                phi = heatmap.detach().flatten().softmax(0).view(12, 12, 12)
                axes = torch.meshgrid(*[torch.arange(12.0)] * 3, indexing="ij")
                found = torch.stack([(phi * axis).sum() for axis in axes])
                errors.append(float((found - point).norm()))
    assert trainer.validate() == pytest.approx(np.mean(errors), rel=1e-4)


def test_training_stops_early_and_keeps_the_best(tmp_path: Path, monkeypatch) -> None:
    trainer = trainer_of(tmp_path, steps=400, patience=2, freeze_norm_at=1.0)
    errors = iter([3.0, 2.0, 2.5, 2.1, 1.0])
    weights = []

    def validate() -> float:
        weights.append(trainer.ema.network.classifier.weight.clone())
        return next(errors)

    monkeypatch.setattr(trainer, "validate", validate)
    result = trainer.train()
    assert result.finished
    assert result.step == 16
    best = trained_weights(tmp_path)["classifier.weight"]
    assert torch.equal(best, weights[1])
    assert not torch.equal(best, averaged_weights(tmp_path)["classifier.weight"])
    again = trainer_of(tmp_path, steps=400, patience=2, freeze_norm_at=1.0)
    assert again.train().step == 16


def test_a_run_that_goes_on_without_stopping_early_is_for_its_last_weights(
    tmp_path: Path, monkeypatch
) -> None:
    first = trainer_of(tmp_path, steps=400, patience=1)
    errors = iter([1.0, 2.0])
    monkeypatch.setattr(first, "validate", lambda: next(errors))
    assert first.train().step == 8
    longer = trainer_of(tmp_path, steps=12)
    assert longer.train().step == 12
    weights = trained_weights(tmp_path)["classifier.weight"]
    assert torch.equal(weights, longer.ema.network.classifier.weight)


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.1}, {"alpha": 0.9}, {"batch_size": 2}, {"freeze_norm_at": 0.5}]
)
def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path, change: dict) -> None:
    trainer_of(tmp_path).train()
    with pytest.raises(UserError, match=f"holds a run with '{next(iter(change))}'"):
        trainer_of(tmp_path, **change)
    lasting = {"patience": 9, "epoch_steps": 2, "log_every": 1, "keep_checkpoints": 1}
    assert trainer_of(tmp_path, steps=14, **lasting).train().step == 14


def test_a_run_does_not_go_on_with_another_seed_or_other_data(tmp_path: Path) -> None:
    def run(seed: int, made_of: dict[str, str]) -> Trainer:
        return Trainer(
            tiny_network(), two_blobs, settings(), tmp_path, machine=MACHINE, seed=seed,
            made_of=made_of,
        )  # fmt: skip

    run(3, {"training set": "a"}).train()
    assert run(3, {"training set": "a"}).finished()
    with pytest.raises(UserError, match="another seed"):
        run(4, {"training set": "a"})
    with pytest.raises(UserError, match="another training set"):
        run(3, {"training set": "b"})


def test_start_weights_are_not_needed_to_go_on(tmp_path: Path) -> None:
    trainer_of(tmp_path / "first").train()
    start = tmp_path / "start"
    (tmp_path / "first").rename(start)
    trainer_of(tmp_path / "next", init_from=str(start), steps=6).train()
    start.rename(tmp_path / "elsewhere")
    again = trainer_of(tmp_path / "next", init_from=str(start), steps=12)
    assert again.train().finished


def broken_once(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    cube, points = two_blobs(step, rng)
    return (cube * float("nan") if step == 3 else cube), points


@pytest.mark.parametrize("freeze", [1.0, 0.75])
def test_a_broken_sample_poisons_nothing(tmp_path: Path, freeze: float) -> None:
    trainer = trainer_of(tmp_path, sampler=broken_once, freeze_norm_at=freeze)
    trainer.train()
    for network in (trainer.network, trainer.ema.network):
        assert all(torch.isfinite(v).all() for v in network.state_dict().values())
    errors = [float(row["validation_mm"]) for row in read_log(tmp_path, "epochs.csv")]
    assert np.isfinite(errors).all()


def test_a_plateau_reduces_the_learning_rate(tmp_path: Path, monkeypatch) -> None:
    trainer = trainer_of(
        tmp_path, steps=24, schedule="plateau", plateau_patience=2, warmup_steps=0, log_every=4
    )
    errors = iter([3.0, 3.1, 3.2, 2.0, 2.1, 2.2])
    monkeypatch.setattr(trainer, "validate", lambda: next(errors))
    trainer.train()
    rates = [float(row["learning_rate"]) / 5e-3 for row in read_log(tmp_path)]
    assert rates == pytest.approx([1, 1, 1, 1 / 3, 1 / 3, 1 / 3])
    assert trainer.learning_rate() / 5e-3 == pytest.approx(1 / 9)


def test_tensorboard_shows_the_curve(tmp_path: Path) -> None:
    trainer_of(tmp_path, tensorboard=True).train()
    seen: dict[str, dict[int, float]] = {}
    for path in (tmp_path / "tensorboard").iterdir():
        for tag, step, value in events(path.read_bytes()):
            seen.setdefault(tag, {})[step] = value
    losses = {int(row["step"]): float(row["total"]) for row in read_log(tmp_path)}
    assert seen["training/total"] == pytest.approx(losses, rel=1e-5)
    assert list(seen["validation/validation_mm"]) == [4, 8, 12]


def events(data: bytes) -> list[tuple[str, int, float]]:
    """The scalars of an event file: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += 12 + length + 4
    return found


TWO_PROCESSES = """
import sys
sys.path.insert(0, {tests!r})
from test_trainer import *
result = shared_run(Path({folder!r}), 2)
"""


def shared_run(folder: Path, processes: int | None) -> Trainer:
    """Batches of four with landmarks missing, norm fixed: DDP must not change anything."""
    machine = replace(MACHINE, devices=processes)
    changes = {"batch_size": 4, "freeze_norm_at": 0.0, "steps": 6, "clip_norm": 1e9}
    trainer = trainer_of(folder, machine=machine, **changes)
    trainer.train()
    if trainer.fabric.is_global_zero:
        gradients = {n: p.grad for n, p in trainer.network.named_parameters()}
        torch.save(gradients, folder / "gradients.pt")
    return trainer


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    folder = tmp_path / "two"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), folder=str(folder)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(script)], check=True, timeout=240, env=environment)
    one = shared_run(tmp_path / "one", 1)
    for name, weight in averaged_weights(folder).items():
        # The softmax does not see a constant: what moves this bias is nothing but rounding.
        if name != "classifier.bias":
            mine = one.ema.network.state_dict()[name]
            torch.testing.assert_close(weight, mine, rtol=1e-3, atol=1e-5, msg=name)
    gradients = torch.load(folder / "gradients.pt")
    for name, parameter in one.network.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)
    for mine, theirs in zip(read_log(tmp_path / "one"), read_log(folder), strict=True):
        for field in ("total", "heatmap", "coordinate", "error_mm", "gradient_norm"):
            assert float(mine[field]) == pytest.approx(float(theirs[field]), rel=1e-4)
    both = [read_log(f, "epochs.csv")[0]["validation_mm"] for f in (tmp_path / "one", folder)]
    assert float(both[0]) == pytest.approx(float(both[1]), rel=1e-4)


def test_a_batch_must_be_shared_evenly(tmp_path: Path, monkeypatch) -> None:
    trainer = trainer_of(tmp_path)
    monkeypatch.setattr(type(trainer.fabric), "world_size", 2)
    with pytest.raises(UserError, match="multiple of them"):
        Trainer(tiny_network(), two_blobs, settings(batch_size=3), tmp_path, fabric=trainer.fabric)
