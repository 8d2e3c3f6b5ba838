"""The loss of a parcellation: cross entropy plus soft Dice, on maps that may say less than it does.

A label map need not tell all classes apart: in one without a callosum this is a part of the white
matter. What a label of the map may be is its *reading*: the probabilities of these classes count
together where the map has the label, so the network is free to tell them apart there.

With ``p`` the softmax of the logits, ``t`` a voxel's label, ``R(t)`` its reading and
``q = sum of p over R(t)``:

- cross entropy ``-sum(w_t * log q) / sum(w_t)``, with a weight for each class;
- Dice loss ``1 - 2 * sum(q) / (sum of p_c + voxels of c)`` of a class ``c``, averaged over the
  classes that the map shows, where ``p`` is taken after what was read into a label has been moved
  to it.

Voxels of `IGNORE` count for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import Batch

SURE = 100
"""Added to a label that is just what it says, whatever its reading: far from the midline nothing of
the white matter is callosum."""

IGNORE = 255
"""The label of voxels that are not learnt from: it is not known what they are."""

ENOUGH_VOXELS = 20
"""A class of which a cube shows fewer has no Dice: a voxel more or less would decide it."""


@dataclass(frozen=True)
class SegmentationLoss:
    """Cross entropy and Dice loss of one sample, with gradients, and their sum."""

    cross_entropy: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """The loss."""
        return self.cross_entropy + self.dice


def segmentation_loss(
    logits: Tensor, labels: Tensor, readings: Tensor, weights: Tensor
) -> SegmentationLoss:
    """Compare a network's answer with a label map.

    Args:
        logits: ``(C, D, H, W)``.
        labels: ``(D, H, W)`` classes, with `SURE` added or not, or `IGNORE`.
        readings: ``(C, C)`` bool, row: label of the map, column: what it may be; the diagonal set.
        weights: ``(C,)`` of the classes in the cross entropy.
    """
    count = len(logits)
    known = labels.flatten() != IGNORE
    target, sure = _labels(labels, known)
    logp = torch.log_softmax(logits.float().flatten(1)[:, known], 0)
    picked = logp.gather(0, target[None])[0]
    mass = logp.exp().sum(1)
    for label, other in _extra(readings):
        there = (target == label) & ~sure
        moved = torch.where(there, logp[other], -math.inf)
        picked = torch.logaddexp(picked, moved)
        gained = moved.exp().sum()
        change = torch.zeros_like(mass)
        change[label], change[other] = gained, -gained
        mass = mass + change
    weight = weights[target]
    cross_entropy = -(weight * picked).sum() / weight.sum().clamp(min=1e-9)
    hit = torch.zeros_like(mass).index_add(0, target, picked.exp())
    voxels = torch.bincount(target, minlength=count)
    shown = voxels >= ENOUGH_VOXELS
    dice = 1 - 2 * hit[shown] / (mass + voxels)[shown]
    return SegmentationLoss(cross_entropy, dice.sum() / max(int(shown.sum()), 1))


def overlap(classes: Tensor, labels: Tensor, readings: Tensor) -> Tensor:
    """How far a segmentation and a label map agree.

    Args:
        classes: ``(D, H, W)`` of the segmentation.
        labels, readings: as for `segmentation_loss`.

    Returns:
        ``(3, C)`` float64: voxels in both, in the segmentation, in the label map.
    """
    count = len(readings)
    known = labels.flatten() != IGNORE
    target, sure = _labels(labels, known)
    found = classes.flatten()[known]
    found = torch.where(readings[target, found] & ~sure, target, found)
    both = torch.bincount(target[found == target], minlength=count)
    each = [torch.bincount(x, minlength=count) for x in (found, target)]
    return torch.stack([both, *each]).double()


def _labels(labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Classes of the known voxels, and which of them are sure."""
    target = labels.flatten()[known].long()
    sure = target >= SURE
    return torch.where(sure, target - SURE, target), sure


def dice_scores(counts: Tensor) -> Tensor:
    """Dice of each class, ``(C,)``, from sums of `overlap`; NaN where the label maps lack it."""
    both, found, there = counts
    return torch.where(there > 0, 2 * both / (found + there), math.nan)


class SegmentationTask:
    """Structures from class probabilities (`tasks.Task`); the error is 1 - mean Dice.

    Args:
        weights: of the classes in the cross entropy, background first.
    """

    values: tuple[str, ...] = ("cross_entropy", "dice_loss")
    validation = "validation_dice_loss"

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = torch.tensor(weights, dtype=torch.float32)
        self.tallied = 3 * len(weights)

    def amount(self, batch: Batch) -> float:
        """Samples in a batch."""
        return float(len(batch[0]))

    def loss(
        self, answers: Tensor, targets: Sequence[Tensor], amount: float
    ) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of the samples; targets are labels and readings."""
        weights = self._weights.to(answers.device)
        parts = [
            segmentation_loss(logits, labels, readings, weights)
            for logits, labels, readings in zip(answers, *targets)
        ]
        total = torch.stack([part.total for part in parts]).sum() / amount
        return total, {
            "cross_entropy": sum(float(part.cross_entropy.detach()) for part in parts) / amount,
            "dice_loss": sum(float(part.dice.detach()) for part in parts) / amount,
        }

    def tally(self, answers: Tensor, targets: Sequence[Tensor]) -> list[float]:
        """Sums of `overlap`."""
        each = [overlap(a.argmax(0), *rest) for a, *rest in zip(answers, *targets)]
        return torch.stack(each).sum(0).flatten().tolist()

    def error(self, tally: Sequence[float]) -> float:
        """1 - Dice, averaged over the structures that the label maps show."""
        dice = dice_scores(torch.tensor(tally, dtype=torch.float64).view(3, -1))[1:]
        return 1.0 - float(dice.nanmean())


def _extra(readings: Tensor) -> list[tuple[int, int]]:
    """Labels and the classes that may be hidden in them."""
    pairs = torch.nonzero(readings & ~torch.eye(len(readings), dtype=torch.bool).to(readings))
    return [(int(label), int(other)) for label, other in pairs]
