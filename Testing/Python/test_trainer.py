"""Training: it learns, it stops and goes on exactly, and it is killed without harm."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network import HighRes3DNet
from BrainLandmarksTrainLib.config import TrainingConfig
from BrainLandmarksTrainLib.optimizer import orthogonalised
from BrainLandmarksTrainLib.trainer import (
    LOG_FIELDS,
    Average,
    Trainer,
    averaged_weights,
    checkpoints,
    latest_checkpoint,
    load_weights,
    make_batches,
)

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


def settings(folder: Path, **changes: object) -> TrainingConfig:
    values: dict[str, object] = {
        "output": str(folder),
        "size": 12,
        "field_of_view_mm": 12.0,
        "steps": 12,
        "warmup_steps": 3,
        "learning_rate": 5e-3,
        "precision": "float32",
        "device": "cpu",
        "log_every": 2,
        "recalibration_batches": 4,
        "sigma": 1.0,
    }
    return TrainingConfig(**{**values, **changes})  # type: ignore[arg-type]


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_learns_to_find_blobs(tmp_path: Path, optimizer: str) -> None:
    config = settings(tmp_path, steps=120, log_every=10, optimizer=optimizer, batch_size=2)
    trainer = Trainer(tiny_network(), two_blobs, config)
    assert trainer.train().finished
    rows = read_log(tmp_path)
    assert tuple(rows[0]) == LOG_FIELDS
    assert [int(r["step"]) for r in rows] == list(range(10, 121, 10))
    assert float(rows[-1]["error_voxels"]) < 0.7 * float(rows[0]["error_voxels"])
    assert float(rows[-1]["error_mm"]) == pytest.approx(float(rows[-1]["error_voxels"]), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resuming_is_exact(tmp_path: Path, optimizer: str) -> None:
    """Stopped at step 5 and, batch norm frozen, at step 10: the weights of a run that never was."""
    changes = {"freeze_norm_at": 0.6, "optimizer": optimizer}
    straight = Trainer(tiny_network(0.3), two_blobs, settings(tmp_path / "a", **changes))
    straight.train()
    folder = tmp_path / "b"
    running: list[Trainer] = []
    for seed, stop in enumerate((5, 10, None)):

        def sampler(
            step: int, rng: np.random.Generator, stop: int | None = stop
        ) -> tuple[Tensor, Tensor]:
            if step == stop:
                running[-1].stop()
            return two_blobs(step, rng)

        # Only the first session starts from its own weights; the others must not.
        trainer = Trainer(tiny_network(0.3, seed), sampler, settings(folder, **changes))
        running.append(trainer)
        result = trainer.train()
        assert result.finished is (stop is None)
        assert result.step == (stop or 12)
    assert same(straight.network, trainer.network)
    assert same(straight.average.network, trainer.average.network)
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in read_log(tmp_path / "a")]
    assert strip[-1] == {k: v for k, v in read_log(folder)[-1].items() if k != "seconds"}


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    first = Trainer(tiny_network(), two_blobs, settings(tmp_path))
    first.train()
    again = Trainer(tiny_network(seed=1), two_blobs, settings(tmp_path))
    assert again.train().step == 12
    assert same(first.network, again.network)
    assert len(read_log(tmp_path)) == 6


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetching_changes_nothing(tmp_path: Path, depth: int) -> None:
    plain = Trainer(tiny_network(), two_blobs, settings(tmp_path / "a", prefetch=0))
    plain.train()
    ahead = Trainer(tiny_network(), two_blobs, settings(tmp_path / "b", prefetch=depth))
    ahead.train()
    assert same(plain.network, ahead.network)


@pytest.mark.parametrize("depth", [0, 2])
def test_errors_of_the_sampler_surface(tmp_path: Path, depth: int) -> None:
    def broken(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if step == 3:
            raise RuntimeError("no more heads")
        return two_blobs(step, rng)

    with pytest.raises(RuntimeError, match="no more heads"):
        Trainer(tiny_network(), broken, settings(tmp_path, prefetch=depth)).train()


def test_cubes_of_different_shapes_share_a_step() -> None:
    sides: list[int] = []

    def sampler(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        sides.append((8, 12, 8, 8, 12)[len(sides)])
        return torch.rand(1, sides[-1], 8, 8), torch.rand(LANDMARKS, 3)

    batches = make_batches(sampler, seed=0, step=4, batch_size=5)
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
        trainer = Trainer(tiny_network(), two_blobs, settings(tmp_path, clip_norm=1e9))
        trainer.freeze_norm()  # statistics of one cube and of two differ; the frozen ones do not
        trainer._train_step(batches)
        gradients.append([p.grad.clone() for p in trainer.network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_frozen_norm_trains_what_detection_evaluates(tmp_path: Path) -> None:
    trainer = Trainer(tiny_network(), two_blobs, settings(tmp_path))
    cube = two_blobs(0, np.random.default_rng(0))[0][None]
    trainer.network.train()
    moving = trainer.network(cube)
    trainer.freeze_norm()
    trainer._set_mode(trainer.network)
    frozen = trainer.network(cube)
    trainer.network.eval()
    torch.testing.assert_close(frozen, trainer.network(cube))
    assert not torch.allclose(frozen, moving)
    means = [m.running_mean for m in trainer.network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert all(float(m.abs().max()) > 0 for m in means)
    assert same(trainer.network, trainer.average.network)


def test_learning_rate_warms_up_and_anneals(tmp_path: Path) -> None:
    config = settings(tmp_path, steps=100, warmup_steps=10, final_learning_rate=0.1)
    trainer = Trainer(tiny_network(), two_blobs, config)
    rates = []
    for step in range(101):
        trainer.step = step
        rates.append(trainer.learning_rate() / config.learning_rate)
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], abs=0.02)
    assert rates[50] == pytest.approx(0.55, abs=0.01)
    assert rates[100] == pytest.approx(0.1)


def test_a_time_budget_ends_the_run(tmp_path: Path) -> None:
    config = settings(tmp_path, steps=None, minutes=0.01)
    result = Trainer(tiny_network(), two_blobs, config).train()
    assert result.finished
    assert 0.6 <= result.seconds < 60
    assert result.step > 0


def test_only_kernels_decay(tmp_path: Path) -> None:
    trainer = Trainer(tiny_network(), two_blobs, settings(tmp_path))
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    held = sum(len(g["params"]) for g in trainer.optimizer.param_groups)
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

    trainer = Trainer(tiny_network(), sampler, settings(tmp_path, freeze_norm_at=0.0))
    trainer.train()
    assert trainer.step == 12
    for network in (trainer.network, trainer.average.network):
        assert all(torch.isfinite(p).all() for p in network.parameters())


def test_checkpoints_are_few_and_whole(tmp_path: Path) -> None:
    config = settings(tmp_path, checkpoint_minutes=1e-9, keep_checkpoints=2)
    trainer = Trainer(tiny_network(), two_blobs, config)
    result = trainer.train()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-00000011", "checkpoint-00000012"]
    assert result.checkpoint == latest_checkpoint(tmp_path)
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    config = settings(tmp_path, checkpoint_minutes=1e-9, keep_checkpoints=3)
    Trainer(tiny_network(), two_blobs, config).train()
    older, cut, broken = checkpoints(tmp_path)
    (broken / "state.json").write_text('{"step": ')
    tensors = cut / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    (tmp_path / ".checkpoint-00000099.1").mkdir()
    assert latest_checkpoint(tmp_path) == older
    assert Trainer(tiny_network(), two_blobs, config).step == 10


def test_average_follows_the_network() -> None:
    network = tiny_network()
    average = Average(network, 0.9)
    start = average.network.classifier.weight.clone()
    with torch.no_grad():
        network.classifier.weight.add_(1.0)
    for _ in range(100):
        average.update(network)
    torch.testing.assert_close(average.network.classifier.weight, start + 1.0, atol=1e-3, rtol=0)
    assert not average.network.training


def test_weights_travel_to_a_larger_cube(tmp_path: Path) -> None:
    first = Trainer(tiny_network(), two_blobs, settings(tmp_path / "small"))
    first.train()
    config = settings(tmp_path / "large", size=16, init_from=str(tmp_path / "small"))
    grown = Trainer(tiny_network(seed=3), two_blobs, config)
    assert grown.step == 0
    assert same(grown.network, first.average.network)
    torch.testing.assert_close(
        averaged_weights(tmp_path / "small")["classifier.weight"], grown.network.classifier.weight
    )


def test_start_weights_that_do_not_fit(tmp_path: Path) -> None:
    Trainer(tiny_network(), two_blobs, settings(tmp_path / "run")).train()
    other = HighRes3DNet(out_channels=5, features=2)
    with pytest.raises(UserError, match="another network"):
        load_weights(other, tmp_path / "run")
    with pytest.raises(UserError, match="another network"):
        Trainer(other, two_blobs, settings(tmp_path / "run"))
    with pytest.raises(UserError, match="no training checkpoint"):
        load_weights(other, tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(other, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["banana", "cuda"])
def test_device_that_is_not_there(tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device"):
        Trainer(tiny_network(), two_blobs, settings(tmp_path, device=name))


def test_bfloat16_learns_too(tmp_path: Path) -> None:
    config = settings(tmp_path, precision="bfloat16", steps=60, batch_size=2)
    Trainer(tiny_network(), two_blobs, config).train()
    rows = read_log(tmp_path)
    assert float(rows[-1]["error_voxels"]) < float(rows[0]["error_voxels"])


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_trainer import *
config = settings(Path({folder!r}), steps=100000, checkpoint_minutes=1e-9)
result = Trainer(tiny_network(), two_blobs, config).train()
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
    process = start_training(tmp_path)
    process.kill()
    process.communicate(timeout=120)
    trainer = Trainer(tiny_network(seed=5), two_blobs, settings(tmp_path, steps=100000))
    reached = trainer.step
    assert reached > 0
    trainer.config = settings(tmp_path, steps=reached + 2)
    assert trainer.train().step == reached + 2
    steps = [int(r["step"]) for r in read_log(tmp_path)]
    assert steps == sorted(set(steps))
