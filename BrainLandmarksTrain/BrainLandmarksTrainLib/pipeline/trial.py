"""Variants of the fine network, against the first one: at equal steps, and at equal time.

A variant that costs more has to be better after fewer steps. What a step of each costs is measured
first, in turns, on cubes of the recipe's size; then every variant is trained with the recipe's
steps, and once more with as many as the first variant's time has room for. Each of that is done
with several seeds, whose spread says which differences mean something.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write, atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet, channels_last
from BrainLandmarksTrainLib.config.ablation import AblationConfig
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.engine.config import TrainingConfig
from BrainLandmarksTrainLib.engine.distributed import leads, make_fabric

from .train import train_model
from .transfer import untrained

PAGE = "ablation.md"
TABLE = "variants.csv"
COSTS = "costs.json"

_TURNS = 7
_SAME_COST = 0.05


@dataclass(frozen=True)
class Errors:
    """Mean radial error of what was found, mm, NaN if nothing was, and the share that was not.

    A head that the model does not recognise has no error: without the share, a worse network could
    look better.
    """

    mean: float
    missed: float


@dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Args:
        weights: Number of weights of its fine network.
        cost: Time of a step, as a multiple of the first variant's.
        steps: Steps that the first variant's time has room for.
        at_steps: What each seed's network errs after the recipe's steps.
        at_time: What each seed's network errs after `steps`.
    """

    weights: int
    cost: float
    steps: int
    at_steps: tuple[Errors, ...]
    at_time: tuple[Errors, ...]


def run_trial(
    config: AblationConfig,
    dataset: Dataset,
    report: Callable[[str], None] = print,
    on_log: Callable[[str, dict[str, float]], None] | None = None,
    command: str = "",
) -> str | None:
    """Train and measure all variants, write the page; goes on where it was stopped.

    Args:
        dataset: That of the recipe; its test split is what is measured on.

    Returns:
        The page, Markdown; None when training was interrupted.

    Raises:
        UserError: the dataset has no test split, or training cannot run.
    """
    recipe = config.recipe
    budget = _fine(recipe).steps
    if budget is None:
        raise UserError("variants are compared at equal steps; give 'fine.steps', not minutes.")
    output = Path(recipe.output)
    networks = {
        name: untrained(_fine(variant), len(dataset.protocol))
        for name, variant in config.variants.items()
    }
    costs = _costs(networks, config, output / COSTS)
    announce = report if leads() else lambda line: None
    errors: dict[tuple[str, int], list[Errors]] = {}
    # Seed by seed: what a stopped command leaves behind can be compared.
    for seed in range(config.seeds):
        for name, variant in config.variants.items():
            for steps in dict.fromkeys((budget, _affordable(budget, costs[name]))):
                announce(f"{name}, {steps} steps, seed {seed}")
                run = _Run(output, name, seed, steps)
                if not run.done:
                    run.take_locator()
                    own = run.of(variant)
                    if train_model(own, report, command=command, on_log=on_log) is None:
                        return None
                errors.setdefault((name, steps), []).append(run.error())
    outcomes = {}
    for name, network in networks.items():
        steps = _affordable(budget, costs[name])
        outcomes[name] = Outcome(
            sum(weights.numel() for weights in network.parameters()),
            costs[name],
            steps,
            tuple(errors[name, budget]),
            tuple(errors[name, steps]),
        )
    table = _table(outcomes)
    page = _page(config, len(dataset.of_split("test")), table)
    if leads():
        with atomic_writes(output) as unfinished:
            table.write_csv(unfinished / TABLE)
            (unfinished / PAGE).write_text(page, encoding="utf-8")
    return page


@dataclass(frozen=True)
class _Run:
    """One training: of which variant, with which seed, for how many steps."""

    output: Path
    variant: str
    seed: int
    steps: int

    @property
    def folder(self) -> Path:
        name = self.variant.replace(" ", "_")
        return self.output / f"seed_{self.seed}" / f"{name}-{self.steps}"

    @property
    def done(self) -> bool:
        return (self.folder / "test.npz").is_file()

    def take_locator(self) -> None:
        """All runs of a seed share the locator that the first one trains."""
        own = self.folder / "locator"
        finished = sorted(self.folder.parent.glob("*/test.npz"))
        if finished and not own.is_dir():
            copy_whole(finished[0].parent / "locator", own)

    def of(self, variant: Recipe) -> Recipe:
        """The recipe of this run."""
        return replace(
            variant,
            name=f"{variant.name}-{self.folder.name}",
            output=str(self.folder),
            seed=variant.seed + self.seed,
            fine=replace(_fine(variant), steps=self.steps),
        )

    def error(self) -> Errors:
        """Over the scans of the test split."""
        with np.load(self.folder / "test.npz") as measured:
            found, truth = measured["found"], measured["truth"]
        there = np.isfinite(truth).all(axis=-1)
        errors = np.linalg.norm(found - truth, axis=-1)[there]
        known = np.isfinite(errors)
        mean = float(errors[known].mean()) if known.any() else float("nan")
        return Errors(mean, float(1 - known.mean()))


def copy_whole(source: Path, target: Path) -> None:
    """Copy a folder; it is there whole or not at all."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, unfinished)
    with suppress(OSError):  # another process has been faster
        unfinished.rename(target)
    shutil.rmtree(unfinished, ignore_errors=True)


def _affordable(budget: int, cost: float) -> int:
    """Steps of a variant in the time of the first one's; the budget where they cost the same."""
    return budget if abs(cost - 1) <= _SAME_COST else max(1, round(budget / cost))


def _fine(recipe: Recipe) -> TrainingConfig:
    assert recipe.fine is not None  # `load_ablation` has made sure
    return recipe.fine


def _costs(
    networks: Mapping[str, HighRes3DNet], config: AblationConfig, path: Path
) -> dict[str, float]:
    """Time of a step of each network as a multiple of the first's; measured once, then kept.

    All processes have those of the first one: steps follow from them, and must be as many in each.
    """
    fabric = make_fabric(config.recipe.machine)
    own = _own_costs(networks, config, path, fabric.device) if leads() else {}
    return fabric.broadcast(own)


def _own_costs(
    networks: Mapping[str, HighRes3DNet], config: AblationConfig, path: Path, device: torch.device
) -> dict[str, float]:
    """Those that were kept, or are measured in this process."""
    if path.is_file():
        kept = read_json(path, "the costs of the variants")
        if kept.keys() == networks.keys():
            return {name: float(kept[name]) for name in networks}
    fine = _fine(config.recipe)
    best = dict.fromkeys(networks, float("inf"))
    # In turns, and the fastest of each: what else the machine does must not decide.
    for _ in range(_TURNS):
        for name, network in networks.items():
            seconds = _step_seconds(network, (fine.batch_size, 1, *fine.cube), device)
            best[name] = min(best[name], seconds)
    first = next(iter(best.values()))
    costs = {name: round(seconds / first, 3) for name, seconds in best.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    return costs


def _step_seconds(network: HighRes3DNet, shape: tuple[int, ...], device: torch.device) -> float:
    """Seconds of one pass forwards and backwards."""
    network = channels_last(network.to(device)).train()
    cube = torch.rand(shape, device=device)
    started = time.perf_counter()
    network(cube).square().mean().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _table(outcomes: Mapping[str, Outcome]) -> Table:
    budget = next(iter(outcomes.values())).steps
    header = (
        "variant", "weights", "time of a step", f"error after {budget} steps",
        "steps in the same time", "error in the same time",
    )  # fmt: skip
    rows = [
        (
            name, outcome.weights, f"x {outcome.cost:.2f}", _seeds(outcome.at_steps),
            outcome.steps, _seeds(outcome.at_time),
        )
        for name, outcome in outcomes.items()
    ]  # fmt: skip
    return Table(header, rows)


def _seeds(errors: Sequence[Errors]) -> str:
    """The mean, what it is the mean of, and how much was missed, if anything was."""
    means = [error.mean for error in errors]
    each = ", ".join("none" if np.isnan(mean) else f"{mean:.2f}" for mean in means)
    text = each
    if len(errors) > 1 and np.isfinite(means).all():
        text = f"{np.mean(means):.2f} ({each})"
    missed = float(np.mean([error.missed for error in errors]))
    return f"{text}; {100 * missed:.0f} % missed" if missed else text


def _page(config: AblationConfig, scans: int, table: Table) -> str:
    fine = _fine(config.recipe)
    first = next(iter(config.variants))
    several = config.seeds > 1
    over = f"over {config.seeds} seeds (in brackets each)" if several else "with one seed"
    about = (
        f"N = {fine.size}, {fine.features} features, {fine.steps} steps of {fine.batch_size} scans "
        f"each, measured on {scans} scans of the test split. Mean radial error in mm of the points "
        f"that were found, {over}; where points were missed, errors cannot be compared. The time "
        f"of a step, forwards and backwards, is a multiple of that of '{first}'; where it differs "
        f"by more than {100 * _SAME_COST:g} %, the variant was trained once more with as many "
        "steps as the same time has room for. "
    )
    about += (
        "Differences no larger than those between the seeds say nothing."
        if several
        else "How much another seed changes is not known; small differences say nothing."
    )
    title = f"# Variants of the network: {config.recipe.name}"
    return "\n\n".join((title, about, table.markdown())) + "\n"
