"""The app of a site, which Flower's SuperNode runs for every message of the server.

>>> app = client_app()

Its node configuration says where the dataset and the working folder are; nothing of it is sent.
What is sent: weights, numbers of scans, losses and errors, and for an error a sentence without
anything of the site in it; the whole sentence is in the site's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.config.federation import Federation, FederationConfig
from BrainLandmarksTrainLib.engine.config import MachineConfig
from BrainLandmarksTrainLib.settings import from_values

from .site import Site
from .stage import Refused

FAILED = "the site could not do it; its own log says why."
"""All that the server learns of a failure."""

ERROR_CODE = 100
"""Of our errors; Flower's own are smaller."""

_UNKNOWN_KIND = "the server has asked for what this app does not do; nothing was trained."

Handler = Callable[[Message, Context], Message]

_log = logging.getLogger("flwr")


def client_app() -> ClientApp:
    """The app: trains a round, or measures the model."""
    app = ClientApp(mods=[protected])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _answered(_train, message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _answered(_evaluate, message, context)

    return app


def protected(message: Message, context: Context, call_next: Handler) -> Message:
    """Apply Flower's protections that the federation asks for (a mod, in Flower's words)."""
    kind = message.metadata.message_type
    if kind not in ("train", "evaluate"):
        # Flower brings "train.default" to the same handler; no name may go round what follows.
        return _refusal(message, Refused(_UNKNOWN_KIND))
    if kind == "evaluate":
        return call_next(message, context)
    try:
        settings = Federation.of_run_config(context.run_config).settings
        need_protected(settings, str(context.node_config.get("require", "")))
    except UserError as error:
        return _refusal(message, error)
    if settings.secure_aggregation:
        return _masked(message, context, call_next)
    if settings.privacy == "site":
        return fixedclipping_mod(message, context, call_next)
    if settings.privacy == "local":
        norm = settings.clipping_norm
        noise = LocalDpMod(norm, 2 * norm, settings.epsilon, settings.delta)
        return noise(message, context, call_next)
    return call_next(message, context)


def _masked(message: Message, context: Context, call_next: Handler) -> Message:
    """SecAgg+. Its mod takes every answer for weights; an error is one at once."""
    from flwr.client.mod import secaggplus_mod

    refused: list[Message] = []

    def noted(asked: Message, its_context: Context) -> Message:
        answer = call_next(asked, its_context)
        if answer.has_error():
            refused.append(answer)
        return answer

    try:
        return secaggplus_mod(message, context, noted)
    except Exception as error:
        return refused[0] if refused else _refusal(message, error)


def need_protected(settings: FederationConfig, wanted: str) -> None:
    """Check that the server uses the protection that the site asks for.

    Args:
        wanted: "secure-aggregation", "local-noise", or nothing.

    Raises:
        Refused: it does not.
    """
    there = {
        "": True,
        "secure-aggregation": settings.secure_aggregation,
        "local-noise": settings.privacy == "local",
    }
    if not there.get(wanted, False):
        raise Refused(
            f"this site trains with {wanted.replace('-', ' ')} only and the federation has none; "
            "nothing was trained."
        )


def _train(message: Message, context: Context) -> Message:
    site = _site(context)
    if site.settings.secure_aggregation:
        return _train_secretly(site, message)
    config = message.content.config_records["config"]
    site.need_same(config)
    done = site.train(int(config["server-round"]), _arrays(message))  # type: ignore[arg-type]
    record = ArrayRecord({name: Array(array) for name, array in done.arrays.items()})
    numbers = MetricRecord(
        {"num-examples": done.scans, "loss": done.loss, "error_mm": done.error_mm}
    )
    return Message(RecordDict({"arrays": record, "metrics": numbers}), reply_to=message)


def _train_secretly(site: Site, message: Message) -> Message:
    """The same in the words of Flower's older interface, for which SecAgg+ is written."""
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.compat.common import recorddict_compat as compat

    asked = compat.recorddict_to_fitins(message.content, keep_input=True)
    site.need_same(asked.config)
    names = site.names
    arrays = dict(zip(names, parameters_to_ndarrays(asked.parameters)))
    done = site.train(int(asked.config["server-round"]), arrays)
    answer = FitRes(
        Status(Code.OK, ""),
        ndarrays_to_parameters([done.arrays[name] for name in names]),
        done.scans,
        {"loss": done.loss, "error_mm": done.error_mm},
    )
    return Message(compat.fitres_to_recorddict(answer, keep_input=False), reply_to=message)


def _evaluate(message: Message, context: Context) -> Message:
    site = _site(context)
    config = message.content.config_records["config"]
    site.need_same(config)
    done = site.measure(int(config["server-round"]), _arrays(message))  # type: ignore[arg-type]
    numbers = MetricRecord(
        {
            "num-examples": done.scans,
            "before_mm": done.before_mm,
            "after_mm": done.after_mm,
            "missed_before": done.missed_before,
            "missed_after": done.missed_after,
        }
    )
    return Message(RecordDict({"metrics": numbers}), reply_to=message)


def _site(context: Context) -> Site:
    """The site that the node configuration describes.

    Raises:
        UserError: the dataset, the model or the app cannot be used.
    """
    federation = Federation.of_run_config(context.run_config)
    node = context.node_config
    model = str(node.get("model", ""))
    if not model:
        # The name comes from the server: a path must not be made of it.
        if federation.model not in resources.model_names():
            raise Refused(
                "the federation starts from a model that does not come with the program; give the "
                "site its folder with --model."
            )
        model = federation.model
    machine: dict[str, Any] = {k: node[k] for k in ("device", "threads", "workers") if k in node}
    return Site(
        federation,
        str(node["dataset"]),
        str(node["output"]),
        model,
        from_values(MachineConfig, machine, "site setting"),
        seed=context.node_id % 2**31,
        report=_log.info,
    )


def _arrays(message: Message) -> Mapping[str, Any]:
    (record,) = message.content.array_records.values()
    return {name: array.numpy() for name, array in record.items()}


def _answered(handler: Handler, message: Message, context: Context) -> Message:
    try:
        return handler(message, context)
    except Exception as error:
        return _refusal(message, error)


def _refusal(message: Message, error: Exception) -> Message:
    """An answer that says no more than the server may know."""
    if isinstance(error, UserError):
        _log.error("%s", error)
    else:
        _log.error("the site failed", exc_info=error)
    reason = str(error) if isinstance(error, Refused) else FAILED
    return Message(Error(code=ERROR_CODE, reason=reason), reply_to=message)
