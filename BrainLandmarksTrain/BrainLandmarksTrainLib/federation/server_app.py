"""The app of the server, which Flower's SuperLink runs: rounds in, a model folder out.

>>> app = server_app()

It keeps every round in the folder that `brainlandmarks federate server` was given. Running the app
again there goes on after the last round that was kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import Model, load_model, save_model
from BrainLandmarksTrainLib.config.federation import Federation
from BrainLandmarksTrainLib.config.recipe import Recipe
from BrainLandmarksTrainLib.engine.config import MachineConfig

from .flower import SERVER_FOLDER, SERVER_MODEL
from .model import federated_model
from .rounds import Rounds
from .stage import Stage
from .strategies import Recorded, to_record
from .weights import Arrays, networks_of, shared_arrays

MODEL = "model"


def server_app() -> ServerApp:
    """The app: trains the rounds that are left, has the model measured, and writes it."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = os.environ.get(SERVER_FOLDER)
        if not folder:
            raise UserError(
                "the server has no folder for its rounds; start it with brainlandmarks federate "
                "server."
            )
        federation = Federation.of_run_config(context.run_config)
        start = os.environ.get(SERVER_MODEL) or federation.model
        serve(grid, context, federation, start, Path(folder))

    return app


def serve(
    grid: Grid,
    context: Context,
    federation: Federation,
    start: str | Path,
    folder: Path,
    report: Callable[[str], None] = print,
) -> Path:
    """Run a federation to its end.

    Args:
        grid: Flower's way to the sites.
        context: Flower's, of the app.
        start: Name or folder of the model to start from.
        folder: For the rounds and the model.

    Returns:
        The model's folder.

    Raises:
        UserError: the model, the settings or the folder cannot be used, or no site answers.
    """
    base = load_model(start)
    need_model(base, federation)
    recipe = federation.at(start, folder, "", MachineConfig())
    federation.settings.need_fitting(recipe)
    stage = Stage.of(base)
    rounds = Rounds(folder, stage, federation)
    if rounds.done:
        report(f"going on after round {rounds.done}")
    arrays = rounds.arrays or first_arrays(base, recipe, federation)
    strategy = Recorded(federation.settings, rounds)
    if federation.settings.secure_aggregation:
        from .secure_aggregation import train_secretly

        train_secretly(grid, context, strategy, arrays, stage)
    else:
        _train(grid, strategy, arrays, stage)
    arrays = rounds.arrays or arrays
    if not strategy.measured:
        _measure(grid, strategy, arrays, stage)
    model = federated_model(base, federation, recipe, rounds.done, arrays)
    save_model(model, folder / MODEL, overwrite=True)
    rounds.write_history(sites=strategy.measured)
    report(f"model written to {folder / MODEL}")
    return folder / MODEL


def need_model(base: Model, federation: Federation) -> None:
    """Check that the server starts from the app's model.

    Raises:
        UserError: it does not.
    """
    if base.spec.name != federation.model:
        raise UserError(
            f"the app starts from the model {federation.model} and the server has "
            f"{base.spec.name}; give --model the folder of {federation.model}."
        )


def need_startable(federation: Federation, model: str | None) -> None:
    """Check that the start model can be found by its name, or is given.

    Raises:
        UserError: it cannot.
    """
    if model is None and federation.model not in resources.model_names():
        raise UserError(
            f"{federation.model} does not come with the program; give --model its folder."
        )


def first_arrays(base: Model, recipe: Recipe, federation: Federation) -> Arrays:
    """The weights of the first round: those of the start model."""
    batch_norm = federation.settings.batch_norm
    return shared_arrays(networks_of(base), recipe.trained, batch_norm)


def _train(grid: Grid, strategy: Recorded, arrays: Arrays, stage: Stage) -> None:
    settings, rounds = strategy.settings, strategy.rounds
    while rounds.done < settings.rounds:
        strategy.start(
            grid,
            to_record(rounds.arrays or arrays),
            num_rounds=settings.rounds - rounds.done,
            timeout=60 * settings.round_minutes,
            train_config=ConfigRecord({**stage.to_config()}),
            evaluate_config=ConfigRecord({**stage.to_config()}),
        )


def _measure(grid: Grid, strategy: Recorded, arrays: Arrays, stage: Stage) -> None:
    """Have the sites measure the model, where the last round has not."""
    config = ConfigRecord({**stage.to_config()})
    number = strategy.rounds.done
    messages = strategy.configure_evaluate(number, to_record(arrays), config, grid)
    replies = grid.send_and_receive(messages, timeout=60 * strategy.settings.round_minutes)
    strategy.aggregate_evaluate(number, replies)
