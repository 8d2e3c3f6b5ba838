"""Which policy a scan gets: by chance for one scan, in exact proportion for a dataset."""

from __future__ import annotations

import math

import numpy as np

from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

from .abnormal_side import Abnormality
from .config import SIDES, AugmentationConfig
from .record import Step


def allocate(config: AugmentationConfig, count: int, rng: np.random.Generator) -> list[str]:
    """Policies for ``count`` scans, in random order but in exact proportion.

    >>> Counter(allocate(AugmentationConfig(), 100, rng))
    Counter({'DA4': 30, 'DA2': 25, 'DA3': 25, 'DA1': 20})

    Where the proportions are no whole numbers, the largest remainders are rounded up (Hamilton's
    method), so no policy is more than one scan off.
    """
    names = list(config.policies)
    # A share of 0.29 of 100 is 29, whatever binary fractions make of it.
    shares = [round(config.policies[name].probability * count, 9) for name in names]
    counts = [math.floor(share) for share in shares]
    order = sorted(range(len(names)), key=lambda n: counts[n] - shares[n])
    for number in order[: count - sum(counts)]:
        counts[number] += 1
    policies = [name for name, times in zip(names, counts) for _ in range(times)]
    return [policies[n] for n in rng.permutation(count)]


def choose(config: AugmentationConfig, rng: np.random.Generator) -> str:
    """One policy by its probability (Fig. 5)."""
    weights = np.array([policy.probability for policy in config.policies.values()])
    return str(rng.choice(list(config.policies), p=weights / weights.sum()))


def draw_steps(
    config: AugmentationConfig,
    policy: str,
    rng: np.random.Generator,
    volume: Volume,
    landmarks: LandmarkSet,
) -> tuple[Step, ...]:
    """The transforms of a policy with parameters for this image.

    Abnormal anatomy is placed by the landmarks as they are before the policy: it comes first.

    Raises:
        UserError: a range makes no sense for this image, or abnormal anatomy finds no brain in it.
    """
    steps = []
    for name in config.policies[policy].apply:
        if name in SIDES:
            name = str(rng.choice(getattr(config, name)))
        transform = config.transform(name)
        if isinstance(transform, Abnormality):
            steps.append(Step(name, transform.draw_for(rng, volume, landmarks)))
        else:
            steps.append(Step(name, transform.draw(rng, volume)))
    return tuple(steps)
