"""A label map ready for rendering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from BrainLandmarksLib.geometry.alignment import rigid_fit

from .tissues import NAMES, TISSUES


@dataclass(frozen=True)
class Head:
    """A label map ready for rendering.

    ``tissues`` (I, J, K) uint8 tensor of tissue numbers, ``affine`` ijk -> RAS, ``landmarks``
    (K, 3) RAS mm with NaN for missing points, ``to_head`` 4x4 from canonical to this head's RAS.
    """

    name: str
    tissues: torch.Tensor
    affine: np.ndarray
    landmarks: np.ndarray
    to_head: np.ndarray


def make_head(
    name: str,
    labels: np.ndarray,
    affine: np.ndarray,
    landmarks: np.ndarray,
    mean_shape: np.ndarray,
    device: torch.device | str = "cpu",
) -> Head:
    """Head from an integer label array; its pose comes from ``mean_shape`` (K, 3)."""
    highest = max(int(labels.max()), max(max(numbers) for numbers, _ in TISSUES.values()))
    lookup = np.zeros(highest + 1, np.uint8)
    # A label that the table does not know is something in the head: soft tissue.
    lookup[1:] = NAMES.index("soft tissue")
    for number, (members, _) in enumerate(TISSUES.values(), start=1):
        lookup[list(members)] = number
    to_head = rigid_fit(mean_shape, landmarks)
    tissues = torch.from_numpy(lookup[labels.astype(np.int64)]).to(device)
    return Head(name, tissues, np.asarray(affine, float), np.asarray(landmarks, float), to_head)


def nearest_voxels(head: Head, canonical: torch.Tensor) -> torch.Tensor:
    """Value of a head's map at canonical points (3, ...): nearest voxel, 0 outside the map."""
    return nearest(head.tissues, np.linalg.inv(head.affine) @ head.to_head, canonical)


def nearest(voxels: torch.Tensor, to_voxel: np.ndarray, canonical: torch.Tensor) -> torch.Tensor:
    """Values (I, J, K) at canonical points (3, ...): nearest voxel, 0 outside.

    Args:
        to_voxel: 4x4 from canonical points to ijk.
    """
    m = torch.as_tensor(to_voxel, dtype=torch.float32, device=canonical.device)
    shape = voxels.shape
    flat = canonical.reshape(3, -1)
    voxel = torch.addmm(m[:3, 3:], m[:3, :3], flat).add_(0.5).floor_().to(torch.int32)
    inside = torch.ones(flat.shape[1], dtype=torch.bool, device=flat.device)
    for k in range(3):
        inside &= (voxel[k] >= 0) & (voxel[k] < shape[k])
    index = (voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]
    index = torch.where(inside, index, 0)
    found = torch.where(inside, voxels.flatten()[index], 0)
    return found.view(canonical.shape[1:])
