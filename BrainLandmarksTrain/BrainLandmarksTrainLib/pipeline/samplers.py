"""What makes the samples of each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from BrainLandmarksTrainLib.config.recipe import Recipe, ScansConfig
from BrainLandmarksTrainLib.data.boxes import RefinementSampler
from BrainLandmarksTrainLib.data.scans import ScanSampler, TrainingScan
from BrainLandmarksTrainLib.engine.batches import Mixture, Sampler
from BrainLandmarksTrainLib.engine.config import TrainingConfig
from BrainLandmarksTrainLib.synthesis.generator import HeadGenerator, HeadSampler
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import ANY_POSE, CANONICAL, Variation

from .prepare import OVERSAMPLING, TrainingData


def samplers(
    data: TrainingData, recipe: Recipe, part: str, config: TrainingConfig
) -> tuple[Sampler, Sampler | None]:
    """What makes the samples of a network, and those for validation (None: unseen ones of it)."""
    variation = ANY_POSE if part == "locator" else CANONICAL
    lattice = Lattice(config.cube, config.voxel_mm, OVERSAMPLING[part])
    validation: Sampler | None = None

    def of(sampler: HeadSampler | ScanSampler) -> Sampler:
        return RefinementSampler(sampler, data.shape) if part == "refinement" else sampler

    made: list[Sampler] = []
    if recipe.scans is not None:
        sampler = _scan_sampler(data, data.scans, variation, lattice, recipe.scans)
        made.append(of(sampler))
        if data.validation:
            plain = replace(recipe.scans, augmented_share=0.0)
            validation = of(_scan_sampler(data, data.validation, variation, lattice, plain))
    if recipe.heads is not None:
        heads = recipe.heads
        varied = replace(variation, t1_share=heads.t1_share, void_share=heads.void_share)
        mirror = data.protocol.mirror_permutation()
        generator = HeadGenerator(data.heads, mirror, varied)
        made.append(of(HeadSampler(generator, lattice)))
    if len(made) == 1:
        return made[0], validation
    assert recipe.scans is not None
    return Mixture(made[0], made[1], recipe.scans.share), validation


def _scan_sampler(
    data: TrainingData,
    scans: Sequence[TrainingScan],
    variation: Variation,
    lattice: Lattice,
    config: ScansConfig,
) -> ScanSampler:
    return ScanSampler(
        scans,
        data.shape,
        data.protocol,
        variation,
        lattice,
        config.augmentation,
        config.augmented_share,
    )
