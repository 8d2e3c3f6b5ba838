"""Muon: orthogonal steps for kernels, AdamW for the rest."""

from __future__ import annotations

import torch

from BrainLandmarksTrainLib.engine.optimizer import Muon, orthogonalised


def test_orthogonalised_singular_values_are_near_one():
    torch.manual_seed(0)
    for shape in ((16, 432), (64, 1728), (80, 64)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_the_rest_steps_exactly_as_adamw():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    muon = Muon([{"params": [ours]}], lr=0.1, weight_decay=0.01)
    adamw = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    for step in range(3):
        for parameter, optimizer in ((ours, muon), (theirs, adamw)):
            parameter.grad = torch.linspace(-1, 1, 5) * (step + 1)
            optimizer.step()
    assert torch.equal(ours, theirs)


def test_a_kernel_converges_to_a_target():
    torch.manual_seed(0)
    target = torch.randn(8, 4, 3, 3, 3)
    kernel = torch.nn.Parameter(torch.zeros_like(target))
    optimizer = Muon([{"params": [kernel], "orthogonal": True}], lr=0.3, weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
        kernel.grad = kernel.detach() - target
        optimizer.step()
    assert (kernel.detach() - target).norm() < 0.1 * target.norm()


def test_state_survives_a_round_trip():
    kernel = torch.nn.Parameter(torch.ones(4, 2, 3, 3, 3))
    optimizer = Muon([{"params": [kernel], "orthogonal": True}])
    kernel.grad = torch.randn_like(kernel)
    optimizer.step()
    again = Muon([{"params": [kernel], "orthogonal": True}])
    again.load_state_dict(optimizer.state_dict())
    buffer = optimizer.state[kernel]["momentum_buffer"]
    assert torch.equal(again.state[kernel]["momentum_buffer"], buffer)
