"""How far from the truth: error tables, and held-out heads rendered as unseen scans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib.decoding import Calibration
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry import FloatArray
from BrainLandmarksLib.images import Volume
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.shape_model import ShapeModel, sigma_of_confidence
from BrainLandmarksLib.summaries import DETECTION_RATES_MM, summary
from BrainLandmarksLib.tables import Table

from .generator import CANONICAL, Head, HeadGenerator, Lattice, Variation
from .heads import AnnotatedMap
from .offspring import breed

if TYPE_CHECKING:
    from BrainLandmarksLib.models import Model

UNSEEN_T1 = replace(
    CANONICAL,
    t1_share=1.0,
    rotation_deg=15.0,
    translation_mm=10.0,
    stripped_share=0.0,
    flip_share=0.0,
    void_share=0.0,
)
"""What held-out heads are rendered as: T1-like scans, turned up to 15 degrees about each axis."""

SCAN = Lattice((208, 240, 240), 1.0, 1)
"""Voxels of a rendered scan."""


@dataclass(frozen=True)
class ErrorTable:
    """Radial errors (Euclidean distance, mm) summarised per group or landmark, and over all."""

    rows: tuple[tuple[str, dict[str, float]], ...]
    kind: str = "group"

    @classmethod
    def of(cls, protocol: Protocol, errors: FloatArray) -> ErrorTable:
        """Table of (n, K) errors per group; NaN where truth or prediction is missing."""
        rows = []
        for group in protocol.groups:
            columns = [index - 1 for index in group.indices]
            rows.append((group.name, summary(errors[:, columns])))
        rows.append(("All", summary(errors)))
        return cls(tuple(rows))

    @classmethod
    def per_landmark(cls, protocol: Protocol, errors: FloatArray) -> ErrorTable:
        """Table of (n, K) errors per landmark."""
        rows = [(label, summary(column)) for label, column in zip(protocol.labels, errors.T)]
        return cls((*rows, ("All", summary(errors))), "landmark")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(self.rows)

    def markdown(self) -> str:
        """A Markdown table, millimetres and per cent."""
        rates = [f"SDR@{limit:g} mm" for limit in DETECTION_RATES_MM]
        lines = [
            f"| {self.kind} | n | mean | median | p90 | " + " | ".join(rates) + " |",
            "|---|---|---|---|---|" + "---|" * len(rates),
        ]
        for name, v in self.rows:
            cells = [f"{v['count']:.0f}"]
            cells += [_number(v, key) for key in ("mean", "median", "p90")]
            cells += [_per_cent(v, f"sdr_{limit:g}") for limit in DETECTION_RATES_MM]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def numbers(self) -> Table:
        """All numbers, shares from 0 to 1, as a table for a spreadsheet."""
        names = ["mean", "std", "median", "p90", *(f"sdr_{mm:g}" for mm in DETECTION_RATES_MM)]
        rows = [
            (name, int(v["count"]), *(v.get(key, float("nan")) for key in names))
            for name, v in self.rows
        ]
        return Table((self.kind, "n", *names), rows)


def _number(values: dict[str, float], key: str) -> str:
    return f"{values[key]:.2f}" if key in values else "-"


def _per_cent(values: dict[str, float], key: str) -> str:
    return f"{100 * values[key]:.1f} %" if key in values else "-"


def unseen_scans(
    heads: Sequence[Head], mirror: np.ndarray, seed: int
) -> Iterator[tuple[Head, Volume, FloatArray]]:
    """A synthetic scan of each head: (head, volume, (K, 3) true landmarks, RAS mm, NaN missing)."""
    for index, head in enumerate(heads):
        volume, points = render_scan(head, mirror, np.random.default_rng([seed, index]))
        yield head, volume, points


def render_scan(
    head: Head, mirror: np.ndarray, rng: np.random.Generator, variation: Variation = UNSEEN_T1
) -> tuple[Volume, FloatArray]:
    """A synthetic scan of a head and its (K, 3) true landmarks, RAS mm, NaN missing."""
    grid = SCAN.grid
    image, points = HeadGenerator([head], mirror, variation).sample(SCAN, rng, head)
    return Volume(image.numpy(), grid), grid.ijk_to_ras(points)


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

    def calibration(self, without: str | None = None, feature: str = "peak_mass") -> Calibration:
        """Confidence table fitted on all heads, or on all but one."""
        use = [name != without for name in self.heads]
        return Calibration.fit(
            self.features[use], self.errors[use], rising=feature == "peak_mass", feature=feature
        )


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
    names, errors, features, points, truths = [], [], [], [], []
    for name, volume, truth in scans:
        names.append(name)
        truths.append(truth)
        try:
            found = detector.detect(volume, quality=quality).landmarks
        except UserError:  # no head recognised: all of its landmarks are missed
            errors.append(np.full(len(truth), np.nan))
            features.append(np.full(len(truth), np.nan))
            points.append(np.full_like(truth, np.nan))
            continue
        errors.append(np.linalg.norm(found.points - truth, axis=1))
        features.append(found.confidence)
        points.append(found.points)
    return HeldOut(
        tuple(names), np.array(errors), np.array(features), np.array(points), np.array(truths)
    )


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
        folder: where the deformed copies are kept (:mod:`.offspring`).

    Returns:
        "own" anatomy and "deformed" anatomy, both with the truth by rule.
    """
    shape = model.spec.mean_shape
    own = [head for head in (m.head(shape) for m in held_out) for _ in range(scans)]
    return {
        "own": evaluate_held_out(model, own, device=device, quality=quality),
        "deformed": evaluate_held_out(
            model, list(breed(held_out, shape, scans, folder)), device=device, quality=quality
        ),
    }


def after_corrections(
    result: HeldOut, shape: ShapeModel, calibration: Calibration, count: int
) -> tuple[float, float]:
    """What correcting a few points of a head does to the others (`ShapeModel.resolve`).

    On each scan the ``count`` points of the lowest confidence are put where they belong.

    Returns:
        Mean error of all other points before and after, mm.
    """
    before, after = [], []
    for found, truth, features in zip(result.found, result.truth, result.features):
        known = np.isfinite(found).all(1) & np.isfinite(truth).all(1)
        if known.sum() <= count:
            continue
        confidence = calibration(features)
        doubtful = np.argsort(np.where(known, confidence, np.inf))[:count]
        corrected = np.full_like(truth, np.nan)
        corrected[doubtful] = truth[doubtful]
        sigma = sigma_of_confidence(confidence, calibration.threshold_mm)
        solved = shape.resolve(found, corrected, sigma)
        others = known.copy()
        others[doubtful] = False
        before.append(np.linalg.norm(found - truth, axis=1)[others].mean())
        after.append(np.linalg.norm(solved - truth, axis=1)[others].mean())
    return float(np.mean(before)), float(np.mean(after))
