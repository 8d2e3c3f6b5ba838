"""Small models that parcellate: one by what its network is told, one from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    ParcellationSpec,
    load_model,
    save_model,
)
from BrainLandmarksLib.protocol import load_protocol

STRUCTURES = (0, 2, 41, 17)
VOXEL_MM = 2.0


class Halves(nn.Module):
    """Bright voxels are white matter, of the left in the first half of a cube, else of the right.

    The third structure is nowhere.
    """

    def forward(self, cube: torch.Tensor) -> torch.Tensor:
        bright = 12 * (cube[:, 0] - 0.5)
        along = torch.linspace(-1, 1, cube.shape[2])[None, :, None, None].expand_as(bright)
        dark = torch.zeros_like(bright)
        return torch.stack([dark, bright - 12 * along, bright + 12 * along, dark - 30], 1)


def untrained_folder(target: Path) -> Path:
    """The folder of a model that puts all points into the middle: so do the heads it knows."""
    torch.manual_seed(5)
    protocol = load_protocol("afids32")
    networks = [
        HighRes3DNet(out_channels=len(protocol), features=2, residual_blocks=1, penultimate=8)
        for _ in range(2)
    ]
    shape = np.random.default_rng(1).uniform(-1, 1, (len(protocol), 3))
    spec = ModelSpec("untrained", CropSpec(16, 208.0), CropSpec(16, 256.0), shape)
    return save_model(Model(protocol, *(network.eval() for network in networks), spec), target)


def told_model(folder: Path) -> Model:
    """The model of a folder with a network that names voxels as `Halves` says."""
    spec = ParcellationSpec(VOXEL_MM, STRUCTURES)
    model = load_model(folder)
    return replace(model, spec=replace(model.spec, parcellation=spec), parcellation=Halves())


def parcelling_folder(folder: Path, target: Path) -> Path:
    """A model folder with a network whose answer is of no sense, and always the same."""
    torch.manual_seed(11)
    network = HighRes3DNet(out_channels=4, features=2, residual_blocks=1, penultimate=8).eval()
    with torch.no_grad():
        network.classifier.weight *= 30
    spec = ParcellationSpec(VOXEL_MM, STRUCTURES)
    model = load_model(folder)
    spec = replace(model.spec, parcellation=spec)
    return save_model(replace(model, spec=spec, parcellation=network), target)
