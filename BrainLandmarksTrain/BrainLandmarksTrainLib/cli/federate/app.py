"""`brainlandmarks federate app`: write the Flower app that all sites run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from BrainLandmarksLib.cli.options import add_model, need_at_least

STEPS = 50

_EXAMPLE = """\
examples:
  brainlandmarks federate app joined --rounds 20 --steps 50      brain88, trained further
  brainlandmarks federate app joined --strategy fedprox          sites that differ much
  brainlandmarks federate app joined --settings federation.yaml  every setting, from a file
  brainlandmarks federate app joined --recipe recipe.yaml        other losses and rates
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command line."""
    parser = actions.add_parser(
        "app",
        help="write the Flower app that all sites run",
        description="Write a folder with the settings of a federation and two files of code of a "
        "line each. It is what a hospital reads before it joins, and what Flower sends to the "
        "sites. Options go before the file of --settings.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the app")
    add_model(parser)
    parser.add_argument("--name", help="of the new model (the old one's with -federated)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (10)")
    parser.add_argument(
        "--steps", type=int, metavar="N",
        help=f"steps of the fine network in a round ({STEPS}, or those of --recipe)",
    )  # fmt: skip
    parser.add_argument("--strategy", choices=("fedavg", "fedprox", "fedadam"))
    parser.add_argument("--batch-norm", choices=("shared", "local"))
    parser.add_argument(
        "--secure-aggregation", action="store_true", default=None,
        help="SecAgg+: the server learns the mean of the weights only",
    )  # fmt: skip
    parser.add_argument(
        "--privacy", choices=("none", "server", "site", "local"), help="differential privacy"
    )
    parser.add_argument(
        "--min-sites", type=int, metavar="N",
        help="fewest sites of a round; it waits until so many are connected (2)",
    )  # fmt: skip
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="settings of the federation, .yaml or .json"
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="a recipe instead of that of finetune, for networks as the model has them",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the app; returns 0.

    Raises:
        UserError: the model, the recipe, a setting or the folder cannot be used.
    """
    from BrainLandmarksTrainLib.config.federation import WHAT, FederationConfig, federation_of
    from BrainLandmarksTrainLib.federation.app_folder import write_app
    from BrainLandmarksTrainLib.settings import from_values, read_settings

    need_at_least(arguments, steps=1)
    values: dict[str, Any] = {}
    if arguments.settings is not None:
        values = read_settings(arguments.settings, "federation settings")
    names = ("rounds", "strategy", "batch_norm", "secure_aggregation", "privacy")
    values |= {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    if arguments.min_sites is not None:
        values |= {
            f"min_{what}_nodes": arguments.min_sites for what in ("train", "evaluate", "available")
        }
    federation = federation_of(
        arguments.model,
        from_values(FederationConfig, values, WHAT),
        steps=STEPS if arguments.steps is None and arguments.recipe is None else arguments.steps,
        name=arguments.name,
        recipe=arguments.recipe,
    )
    write_app(federation, arguments.folder)
    settings = federation.settings
    print(
        f"wrote {arguments.folder}: {settings.rounds} rounds from {federation.model}, "
        f"{settings.strategy}, at least {settings.min_train_nodes} sites"
    )
    return 0
