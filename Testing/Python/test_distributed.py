"""Processes and nodes: as asked for, or as torchrun and Slurm started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.engine import distributed
from BrainLandmarksTrainLib.engine.checkpoint import averaged_weights
from BrainLandmarksTrainLib.engine.config import MachineConfig

CPU = torch.device("cpu")
TORCHRUN = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "RANK": "5"}
SLURM = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({}, {}, (1, 1)),
        ({"devices": 3}, {}, (3, 1)),
        ({"devices": 2, "nodes": 2}, {}, (2, 2)),
        ({}, TORCHRUN, (4, 2)),
        ({}, SLURM, (2, 3)),
        # A shell inside an allocation has not been started by srun.
        ({}, {"SLURM_NTASKS": "6", "SLURM_NNODES": "3"}, (1, 1)),
    ],
)
def test_processes(settings, environment, expected):
    assert distributed._processes(MachineConfig(**settings), CPU, environment) == expected


def test_all_gpus_by_default(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert distributed._processes(MachineConfig(), torch.device("cuda"), {}) == (8, 1)


def test_the_only_process_leads():
    assert distributed.leads()


def test_a_machine_that_cannot_be_is_one_sentence(monkeypatch):
    """Slurm started two tasks, three devices are asked for: Lightning refuses, we say how."""
    for name, value in {**SLURM, "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="change 'devices' and 'nodes'") as caught:
        distributed.make_fabric(MachineConfig(device="cpu", devices=3, nodes=1))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_torchrun_starts_the_same_training(tmp_path: Path):
    script = tmp_path / "train.py"
    tests = str(Path(__file__).parent)
    script.write_text(
        f"import sys; sys.path.insert(0, {tests!r})\n"
        "from test_trainer import *\n"
        f"shared_run(Path({str(tmp_path / 'run')!r}), None)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", str(script)]
    subprocess.run(command, check=True, timeout=240, env=environment)
    assert averaged_weights(tmp_path / "run")
