"""How far from the truth: error tables, and held-out heads rendered as unseen scans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.correction import Correction
from BrainLandmarksLib.geometry.shape_model import ShapeModel, sigma_of_confidence
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.network.decoding import Calibration
from BrainLandmarksTrainLib.synthesis.deformed_copies import make_deformed_copies
from BrainLandmarksTrainLib.synthesis.head import Head
from BrainLandmarksTrainLib.synthesis.label_maps import AnnotatedMap
from BrainLandmarksTrainLib.synthesis.rendering import unseen_scans

if TYPE_CHECKING:
    from BrainLandmarksLib.network.model_files import Model


FEWEST_PAIRS = 100
"""Landmarks that both a network and a rule have seen, from which their agreement tells anything."""


@dataclass(frozen=True)
class HeldOut:
    """What a detector did on held-out scans; all arrays (scans, K)."""

    heads: tuple[str, ...]
    """Name of each scan's head."""
    errors: FloatArray
    """mm, NaN where the truth or the prediction is missing."""
    features: FloatArray
    """The heatmap feature that confidence is made from."""
    found: FloatArray
    """(scans, K, 3) RAS mm, NaN where missed."""
    truth: FloatArray
    """(scans, K, 3) RAS mm, NaN where missing."""
    seen: FloatArray
    """(scans, K, 3) RAS mm, what the network saw that looked last, before any correction."""
    apart: FloatArray
    """mm between the rules and all else, NaN where the rules had no say."""

    @classmethod
    def joined(cls, parts: Iterable[HeldOut]) -> HeldOut:
        """Several results as one."""
        results = list(parts)
        return cls(
            tuple(name for r in results for name in r.heads),
            *(
                np.concatenate([getattr(r, field.name) for r in results])
                for field in fields(cls)[1:]
            ),
        )

    def calibration(
        self,
        without: str | None = None,
        feature: str = "peak_mass",
        correction: Correction | None = None,
        part: str = "",
    ) -> Calibration:
        """Confidence table fitted on all heads, or on all but one.

        Args:
            without: Name of that one.
            feature: What ``features`` are.
            correction: Of the model whose results these are; with it, the confidence of landmarks
                that no rule has seen is that of the corrected points of the network ``part``.
        """
        use = np.array([name != without for name in self.heads])
        errors = self.errors[use]
        if correction is not None:
            alone = [correction(seen, part) for seen in self.seen[use]]
            errors = np.linalg.norm(np.array(alone) - self.truth[use], axis=2)
        table = Calibration.fit(
            self.features[use], errors, rising=feature == "peak_mass", feature=feature
        )
        twice = np.isfinite(self.apart[use] + self.errors[use])
        if twice.sum() < FEWEST_PAIRS:
            return table
        agreement = Calibration.fit(
            self.apart[use][twice], self.errors[use][twice], feature="apart_mm"
        )
        return replace(table, agreement=agreement)


def evaluate_held_out(
    model: Model,
    heads: Sequence[Head],
    seed: int = 2026,
    device: str = "auto",
    quality: str = "standard",
) -> HeldOut:
    """Detect the landmarks on an unseen synthetic scan of each held-out head."""
    mirror = model.protocol.mirror_permutation()
    scans = unseen_scans(heads, mirror, seed)
    return evaluate_scans(
        model, ((head.name, volume, truth) for head, volume, truth in scans), device, quality
    )


def evaluate_scans(
    model: Model,
    scans: Iterable[tuple[str, Volume, FloatArray]],
    device: str = "auto",
    quality: str = "standard",
) -> HeldOut:
    """Detect the landmarks on scans with known ones.

    The whole product runs: locating, resampling, network, decoding. The model's own calibration is
    set aside, so that ``features`` holds the raw heatmap feature.

    Args:
        scans: name, volume and (K, 3) true landmarks (RAS mm, NaN missing) of each.
    """
    bare = replace(model, spec=replace(model.spec, calibration=None))
    detector = Detector(bare, device=device)
    names: list[str] = []
    errors, features, points, truths, seen, apart = ([] for _ in range(6))
    for name, volume, truth in scans:
        names.append(name)
        truths.append(truth)
        nowhere = np.full_like(truth, np.nan)
        try:
            detection = detector.detect(volume, quality=quality)
        except UserError:  # no head recognised: all of its landmarks are missed
            errors.append(np.full(len(truth), np.nan))
            features.append(np.full(len(truth), np.nan))
            apart.append(np.full(len(truth), np.nan))
            points.append(nowhere)
            seen.append(nowhere)
            continue
        found = detection.landmarks
        errors.append(np.linalg.norm(found.points - truth, axis=1))
        features.append(found.confidence)
        points.append(found.points)
        seen.append(next(iter(detection.sources.values())))
        apart.append(detection.apart)
    arrays = (errors, features, points, truths, seen, apart)
    return HeldOut(tuple(names), *map(np.array, arrays))


def measure(
    model: Model,
    held_out: Sequence[AnnotatedMap],
    scans: int,
    folder: Path,
    device: str = "auto",
    quality: str = "standard",
) -> dict[str, HeldOut]:
    """Detect the landmarks on unseen scans of held-out heads, and of deformed copies of them.

    Args:
        scans: how many of each head; every scan of "deformed" has an anatomy of its own.
        folder: where the deformed copies are kept (:mod:`.deformed_copies`).

    Returns:
        "own" anatomy and "deformed" anatomy, both with the truth by rule.
    """
    shape = model.spec.mean_shape
    own = [head for head in (m.head(shape) for m in held_out) for _ in range(scans)]
    return {
        "own": evaluate_held_out(model, own, device=device, quality=quality),
        "deformed": evaluate_held_out(
            model,
            list(make_deformed_copies(held_out, shape, scans, folder)),
            device=device,
            quality=quality,
        ),
    }


def after_corrections(
    result: HeldOut, shape: ShapeModel, calibration: Calibration, count: int
) -> tuple[float, float]:
    """What correcting a few points of a head does to the others (`ShapeModel.resolve`).

    On each scan the ``count`` points of the lowest confidence are put where they belong.

    Returns:
        Mean error of all other points before and after, mm; NaN if no scan has so many points.
    """
    before, after = [], []
    every = zip(result.found, result.truth, result.features, result.apart, strict=True)
    for found, truth, features, apart in every:
        known = np.isfinite(found).all(1) & np.isfinite(truth).all(1)
        if known.sum() <= count:
            continue
        confidence = calibration(features, apart)
        uncertain = np.argsort(np.where(known, confidence, np.inf))[:count]
        corrected = np.full_like(truth, np.nan)
        corrected[uncertain] = truth[uncertain]
        sigma = sigma_of_confidence(confidence, calibration.threshold_mm)
        solved = shape.resolve(found, corrected, sigma)
        others = known.copy()
        others[uncertain] = False
        before.append(np.linalg.norm(found - truth, axis=1)[others].mean())
        after.append(np.linalg.norm(solved - truth, axis=1)[others].mean())
    if not before:
        return float("nan"), float("nan")
    return float(np.mean(before)), float(np.mean(after))
