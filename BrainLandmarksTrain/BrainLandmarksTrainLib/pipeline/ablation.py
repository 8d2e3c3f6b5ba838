"""The paper's ablation (Table III): what dropout with corrected ground truth, augmentation and the
mixed loss bring, each with and without the others.

Eight fine networks are trained on one dataset with one budget and one locator. "Uncorrected" ground
truth is the dataset's with the errors of a simulated rater, who breaks what the guidelines ask for
by a stated amount (:mod:`.raters`). All eight are measured against the dataset's own landmarks, so
that their numbers can be compared; the paper measures each against its own ground truth.

An ablation with `variants` compares settings of the fine network instead (:mod:`.trial`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.atomic import atomic_write, atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.compliance import off_plane, spacings
from BrainLandmarksTrainLib.augmentation.folder import fingerprint
from BrainLandmarksTrainLib.config.ablation import AblationConfig
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.engine.distributed import leads
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.evaluation.metrics import ErrorTable
from BrainLandmarksTrainLib.evaluation.paper_tables import READINGS, table_three
from BrainLandmarksTrainLib.settings import to_values
from BrainLandmarksTrainLib.synthesis.simulated_rater import Rater, RaterErrors

from .prepare import TrainingData
from .train import train_model
from .trial import PAGE, copy_whole, run_trial

SETTINGS = "ablation.json"
"""What the runs in the folder were made with."""

CONFIGURATIONS = ("Baseline + uncorrected GT", "Dropout + corrected GT")
CONDITIONS = tuple(
    f"{when} Augmentation + {loss} Loss"
    for loss, when in itertools.product(("MSE", "Mixed"), ("Before", "After"))
)
"""Columns of Table III, in the paper's order."""


@dataclass(frozen=True)
class Cell:
    """One of the eight: row, column, and what is switched on."""

    corrected: bool
    augmented: bool
    mixed: bool

    @property
    def configuration(self) -> str:
        """Row of Table III."""
        return CONFIGURATIONS[self.corrected]

    @property
    def condition(self) -> str:
        """Column of Table III."""
        return CONDITIONS[2 * self.mixed + self.augmented]

    @property
    def folder(self) -> str:
        """Name of the cell's folder."""
        return "-".join(
            (
                "corrected" if self.corrected else "uncorrected",
                "augmented" if self.augmented else "plain",
                "mixed" if self.mixed else "mse",
            )
        )

    def of(self, recipe: Recipe, output: Path) -> Recipe:
        """The recipe of this cell."""
        assert recipe.fine is not None  # `load_ablation` has made sure
        fine = replace(
            recipe.fine,
            alpha=recipe.fine.alpha if self.mixed else 0.0,
            coordinate_loss="mse",
            dropout=recipe.fine.dropout if self.corrected else 0.0,
        )
        assert recipe.scans is not None
        share = recipe.scans.augmented_share if self.augmented else 0.0
        scans = replace(recipe.scans, augmented_share=share)
        name = f"{recipe.name}-{self.folder}"
        return replace(recipe, name=name, output=str(output / self.folder), fine=fine, scans=scans)


def cells() -> Iterator[Cell]:
    """All eight, the one with everything first: the others take its locator."""
    for corrected, augmented, mixed in itertools.product((True, False), repeat=3):
        yield Cell(corrected, augmented, mixed)


def run_ablation(
    config: AblationConfig,
    report: Callable[[str], None] = print,
    on_log: Callable[[str, dict[str, float]], None] | None = None,
    command: str = "",
) -> str | None:
    """Train and measure all eight, or all variants, write the page; goes on where it was stopped.

    Returns:
        The page, Markdown; None when training was interrupted.

    Raises:
        UserError: the dataset has no test split, the folder holds the runs of another ablation, or
            training cannot run.
    """
    recipe = config.recipe
    assert recipe.scans is not None
    dataset = Dataset.open(recipe.scans.dataset)
    dataset.of_split("test")
    _need_same(config, dataset, Path(recipe.output))
    if config.variants:
        return run_trial(config, dataset, report, on_log, command)
    announce = report if leads() else lambda line: None
    output = Path(recipe.output)
    results: dict[str, dict[str, FloatArray]] = {row: {} for row in CONFIGURATIONS}
    first: Path | None = None
    for number, cell in enumerate(cells(), start=1):
        folder = output / cell.folder
        announce(f"[{number}/8] {cell.configuration}, {cell.condition}")
        if not (folder / "test.npz").is_file():
            if first is not None and not (folder / "locator").is_dir():
                copy_whole(first / "locator", folder / "locator")
            vary = _unchanged if cell.corrected else _uncorrected(config.uncorrected, recipe.seed)
            if (
                train_model(
                    cell.of(recipe, output), report, command=command, on_log=on_log, vary=vary
                )
                is None
            ):
                return None
        first = first or folder
        with np.load(folder / "test.npz") as measured:
            results[cell.configuration][cell.condition] = measured["found"] - measured["truth"]
    ordered = {row: {name: results[row][name] for name in CONDITIONS} for row in CONFIGURATIONS}
    page = _page(config, dataset, ordered)
    if leads():
        _write(page, ordered, output)
    return page


def _need_same(config: AblationConfig, dataset: Dataset, output: Path) -> None:
    """Check that a folder holds no runs of other settings or scans; keep these for the next time.

    Numbers of runs that are there already would pass for those of the new settings.

    Raises:
        UserError: it does.
    """
    settings = to_values(config)
    settings.pop("seeds")  # more of them go on with what is there
    for recipe in (settings["recipe"], *settings["variants"].values()):
        recipe.pop("output")
        recipe.pop("machine")
        recipe["scans"].pop("dataset")
    settings["dataset"] = fingerprint(dataset)
    path = output / SETTINGS
    if path.is_file():
        if read_json(path, "the settings of the ablation") != settings:
            raise UserError(
                f"{output} holds an ablation with other settings or another state of the dataset; "
                "choose another --output."
            )
    elif leads():
        output.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            unfinished.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _unchanged(part: str, data: TrainingData) -> TrainingData:
    return data


def _uncorrected(errors: RaterErrors, seed: int) -> Callable[[str, TrainingData], TrainingData]:
    """Puts a rater's errors on the landmarks that the fine network is trained on."""

    def vary(part: str, data: TrainingData) -> TrainingData:
        if part != "fine":
            return data
        rater = Rater.random(data.protocol, np.random.default_rng(seed), errors)
        scans = [
            replace(
                scan,
                landmarks=rater.annotate(scan.landmarks, np.random.default_rng([seed, number])),
            )
            for number, scan in enumerate(data.scans)
        ]
        return replace(data, scans=scans)

    return vary


def _page(
    config: AblationConfig, dataset: Dataset, results: Mapping[str, Mapping[str, FloatArray]]
) -> str:
    recipe = config.recipe
    fine = recipe.fine
    assert fine is not None
    scans = len(next(iter(results[CONFIGURATIONS[0]].values())))
    budget = f"{fine.steps} steps" if fine.steps else f"{fine.minutes:g} minutes"
    page = [
        f"# Ablation: {recipe.name}",
        f"Eight networks, N = {fine.size}, {budget} of {fine.batch_size} scans each, measured on "
        f"{scans} scans of the test split against the dataset's own landmarks. Mixed loss: alpha "
        f"{fine.alpha:g}. Dropout: {fine.dropout:g}.",
        _noise_sentence(config, dataset),
    ]
    for reading in READINGS:
        page += [f"## Table III, MAE {reading}", table_three(results, reading).markdown()]
    for row, columns in results.items():
        page += [f"## Mean radial error per group: {row}, mm"]
        page.append(_groups(dataset.protocol, columns).markdown())
    return "\n\n".join(page) + "\n"


def _write(page: str, results: Mapping[str, Mapping[str, FloatArray]], output: Path) -> None:
    with atomic_writes(output) as unfinished:
        for reading in READINGS:
            name = f"table_3_{reading.replace(' ', '_').lower()}.csv"
            table_three(results, reading).write_csv(unfinished / name)
        (unfinished / PAGE).write_text(page, encoding="utf-8")


def _groups(protocol: Protocol, columns: Mapping[str, FloatArray]) -> Table:
    tables = [
        ErrorTable.of(protocol, np.linalg.norm(differences, axis=-1)).to_dict()
        for differences in columns.values()
    ]
    rows = [
        (group, *(table[group].get("mean", float("nan")) for table in tables))
        for group in tables[0]
    ]
    return Table(("group", *columns), rows)


def _noise_sentence(config: AblationConfig, dataset: Dataset) -> str:
    """What the simulated rater does to the training landmarks, measured."""
    rater = Rater.random(
        dataset.protocol, np.random.default_rng(config.recipe.seed), config.uncorrected
    )
    truth = [
        true_points(dataset.read_landmarks(entry).current)[0]
        for entry in dataset.entries
        if entry.split == "train"
    ]
    noisy = [
        rater.annotate(points, np.random.default_rng([config.recipe.seed, number]))
        for number, points in enumerate(truth)
    ]
    moved = np.linalg.norm(np.array(noisy) - np.array(truth), axis=-1)
    parts = [f"Uncorrected ground truth is off by {np.nanmean(moved):.2f} mm in the mean"]
    before, after = (_compliance(dataset.protocol, points) for points in (noisy, truth))
    if np.isfinite(before[0]):
        parts.append(f"{before[0]:.2f} mm off the shared planes (corrected: {after[0]:.2f})")
    if np.isfinite(before[1]):
        parts.append(
            f"the steps between equidistant points vary by {100 * before[1]:.0f} % (corrected: "
            f"{100 * after[1]:.0f} %)"
        )
    return "; ".join(parts) + "."


def _compliance(protocol: Protocol, heads: list[FloatArray]) -> tuple[float, float]:
    """Mean distance from the shared planes, mm, and mean variation of the steps; NaN if none."""
    planes = [off_plane(protocol, points) for points in heads]
    steps = [s.variation for points in heads for s in spacings(protocol, points)]
    off = np.concatenate(planes)
    off = off[np.isfinite(off)]
    return (
        float(off.mean()) if len(off) else float("nan"),
        float(np.mean(steps)) if steps else float("nan"),
    )
