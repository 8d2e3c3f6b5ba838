"""`brainlandmarks federate admit`: let a site into a federation by its public key."""

from __future__ import annotations

import argparse
from pathlib import Path

from .server import add_transport

_EXAMPLE = """\
example:
  brainlandmarks federate admit site.key.pub --server federation.org:8000 \\
      --root-certificates ca.crt
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command line."""
    parser = actions.add_parser(
        "admit",
        help="let a site in by its public key (flwr supernode register)",
        description="Register the public key of a site with a server that was started with "
        "--known-sites.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("key", type=Path, metavar="FILE", help="public key of the site")
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the server's address")
    add_transport(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Register the key; returns Flower's exit code.

    Raises:
        UserError: Flower, the key or a certificate is missing.
    """
    from BrainLandmarksTrainLib.federation import flower
    from BrainLandmarksTrainLib.federation.node import CONNECTION, run_flwr

    flower.need_flower()
    flower.need_file(arguments.key, "public key")
    options = ["supernode", "register", str(arguments.key), CONNECTION]
    return run_flwr(options, arguments.server, arguments.insecure, arguments.root_certificates)
