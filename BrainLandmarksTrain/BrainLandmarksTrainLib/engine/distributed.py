"""The machine as Lightning Fabric sees it: one process or many, on CPUs or GPUs, on many nodes.

Fabric (https://lightning.ai/docs/fabric) places the network, reduces gradients over processes and
starts the processes: itself, or torchrun, or Slurm's srun.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.device import choose_device
from BrainLandmarksLib.network.inference import bfloat16_is_fast

from .config import MachineConfig

_PATIENCE = timedelta(hours=6)
"""How long processes wait for the first one, which annotates label maps for all."""


def make_fabric(machine: MachineConfig | None = None) -> Fabric:
    """Fabric for a machine; with several processes they run from here on.

    Raises:
        UserError: the device does not work here, or processes and devices do not match.
    """
    machine = machine or MachineConfig()
    device = choose_device(machine.device)
    bfloat16 = machine.precision == "bfloat16" or (
        machine.precision == "auto" and bfloat16_is_fast(device)
    )
    devices, nodes = _processes(machine, device, os.environ)
    single = devices * nodes == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about things that may also be used
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        try:
            fabric = Fabric(
                accelerator=device.type,
                devices=devices,
                num_nodes=nodes,
                strategy="auto" if single else DDPStrategy(timeout=_PATIENCE),
                # One process asks nobody how many a job of Slurm has.
                plugins=LightningEnvironment() if single else None,
                precision="bf16-mixed" if bfloat16 else "32-true",
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(
                f"training cannot run on {devices} x {device.type} on {nodes} nodes ({reason}); "
                "change 'devices' and 'nodes'."
            ) from None
        fabric.launch()
    # Kernels of one voxel have two layouts that are the same; DDP warns of it in every process.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if machine.threads:
        torch.set_num_threads(machine.threads)
    return fabric


def leads() -> bool:
    """Whether this process is the first of all, or the only one."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    return bool(distributed.get_rank() == 0)


def summed(fabric: Fabric, values: Sequence[float]) -> list[float]:
    """Sums over all processes."""
    if fabric.world_size == 1:
        return list(values)
    own = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    return fabric.all_reduce(own, reduce_op="sum").tolist()  # type: ignore[union-attr]


def share(fabric: Fabric, count: int) -> range:
    """This process' part of ``count`` things."""
    return range(fabric.global_rank, count, fabric.world_size)


def _processes(
    machine: MachineConfig, device: torch.device, environment: Mapping[str, str]
) -> tuple[int, int]:
    """Processes on a node, and nodes: as asked for, as torchrun or Slurm started, or all GPUs."""
    devices, nodes = machine.devices, machine.nodes
    if "LOCAL_WORLD_SIZE" in environment:  # torchrun
        devices = devices or int(environment["LOCAL_WORLD_SIZE"])
        nodes = nodes or int(environment["WORLD_SIZE"]) // devices
    elif "SLURM_NTASKS" in environment and "SLURM_PROCID" in environment:
        nodes = nodes or int(environment.get("SLURM_NNODES", "1"))
        devices = devices or int(environment["SLURM_NTASKS"]) // nodes
    if devices is None:
        devices = torch.cuda.device_count() if device.type == "cuda" else 1
    return devices, nodes or 1
