"""One step of training: forward and backward passes, and a step of the optimizer.

The samples of a step may have several shapes and lie in several processes; the gradient is that of
one batch all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batches import Batch
from .checkpoint import TrainingState
from .config import RunConfig
from .distributed import summed
from .tasks import Task


class TrainingStep:
    """Takes the steps of a run.

    Args:
        state: The network and its optimizer, which a step changes.
        task: What it learns.
        config: The settings of the training.
        fabric: The processes.
        seed: Of everything random.
    """

    def __init__(
        self, state: TrainingState, task: Task, config: RunConfig, fabric: Fabric, seed: int
    ) -> None:
        self.state = state
        self.task = task
        self.sums = ("total", *task.values)
        """Values of a step that are sums over the batch."""
        self.config = config
        self.fabric = fabric
        self.seed = seed
        self._module, self._optimizer = fabric.setup(state.network, state.optimizer)

    def __call__(self, batches: Sequence[Batch], rate: float) -> dict[str, float]:
        """Take a step; the values of this process alone.

        Args:
            batches: This process' samples, those of one shape together.
            rate: Learning rate.
        """
        config, state, fabric = self.config, self.state, self.fabric
        # Dropout draws from torch's generator; seeding it by the step makes resuming exact.
        torch.manual_seed((self.seed * 1_000_003 + state.step) * 1009 + fabric.global_rank)
        train_mode(state.network, norm_frozen=state.norm_frozen)
        statistics = [buffer.clone() for buffer in state.network.buffers()]
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        # The loss is the mean over the whole batch (over all its landmarks, say), wherever its
        # parts are: DDP divides by the number of processes.
        amount = self._amount(batches) / fabric.world_size
        sums = dict.fromkeys(self.sums, 0.0)
        for number, batch in enumerate(batches, start=1):
            with self._gradients_summed(number == len(batches)):
                loss, values = self.task.loss(*self.answers(self._module, batch), amount)
                fabric.backward(loss)
            for name, value in (("total", float(loss.detach())), *values.items()):
                sums[name] += value
        norm = float(nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm))
        # One broken sample (an overflow in bfloat16) must not poison the weights for good.
        if math.isfinite(norm):
            self._optimizer.step()
            state.ema.update(state.network)
        else:
            # Batch norm has seen it already in the forward pass.
            for buffer, before in zip(state.network.buffers(), statistics, strict=True):
                buffer.copy_(before)
        state.step += 1
        return {"step": float(state.step), **sums, "learning_rate": rate, "gradient_norm": norm}

    def answers(self, network: nn.Module, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """What a network says to a batch, and what it ought to say."""
        device = self.fabric.device
        cubes, *targets = batch
        cubes = cubes.to(device, memory_format=torch.channels_last_3d)
        with self.fabric.autocast():
            answers = network(cubes)
        return answers, [target.to(device) for target in targets]

    def _gradients_summed(self, now: bool) -> AbstractContextManager[object]:
        """Let the gradients of all processes be summed with the last part of a step only."""
        if now or self.fabric.world_size == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self._module)

    def _amount(self, batches: Sequence[Batch]) -> float:
        """The amount in the batch of all processes; at least one."""
        own = sum(self.task.amount(batch) for batch in batches)
        return max(summed(self.fabric, [own])[0], 1.0)


# Batch norm ---------------------------------------------------------------------------------------


def train_mode(network: nn.Module, *, norm_frozen: bool) -> None:
    """Make a network train, with fixed batch-norm statistics where they are frozen."""
    network.train()
    if norm_frozen:
        for module in _norms(network):
            module.eval()


@torch.no_grad()
def average_statistics(network: nn.Module, cubes: Iterable[Tensor], fabric: Fabric) -> None:
    """Make a network's batch-norm statistics the means over some cubes; without any, keep them."""
    norms = _norms(network)
    momenta = [module.momentum for module in norms]
    network.train()
    for number, cube in enumerate(cubes):
        for module in norms if number == 0 else ():
            module.reset_running_stats()
            module.momentum = None  # cumulative mean instead of an exponential one
        with fabric.autocast():
            network(cube.to(fabric.device))
    for module, momentum in zip(norms, momenta):
        module.momentum = momentum


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm)]
