"""`brainlandmarks federate run`: hand the app to the server and start it (flwr run)."""

from __future__ import annotations

import argparse
from pathlib import Path

from .server import add_transport

_EXAMPLE = """\
example:
  brainlandmarks federate run joined_app --server federation.org:8000 --root-certificates ca.crt
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command line."""
    parser = actions.add_parser(
        "run",
        help="start the app on the server (flwr run)",
        description="Hand an app to the server and follow its log. It trains as soon as enough "
        "sites have joined. The same command goes on after a restart of the server.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("app", type=Path, metavar="DIR", help="folder of the app")
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the server's address")
    add_transport(parser)
    parser.add_argument("--detach", action="store_true", help="do not follow the log")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Start the app; returns Flower's exit code.

    Raises:
        UserError: Flower, the app or a certificate is missing.
    """
    from BrainLandmarksTrainLib.federation import flower
    from BrainLandmarksTrainLib.federation.app_folder import read_app
    from BrainLandmarksTrainLib.federation.node import CONNECTION, run_flwr

    flower.need_flower()
    read_app(arguments.app)
    options = ["run", str(arguments.app), CONNECTION, *([] if arguments.detach else ["--stream"])]
    return run_flwr(options, arguments.server, arguments.insecure, arguments.root_certificates)
