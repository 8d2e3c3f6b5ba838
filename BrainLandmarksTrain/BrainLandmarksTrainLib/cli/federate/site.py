"""`brainlandmarks federate site`: Flower's SuperNode, at a hospital, on its own dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from BrainLandmarksLib.network.device import DEVICES

from .server import add_transport

_EXAMPLE = """\
examples:
  brainlandmarks federate site --server federation.org:8000 --root-certificates ca.crt \\
      --dataset scans -o joined --app joined_app --key site.key
  brainlandmarks federate site --server 127.0.0.1:8000 --insecure --dataset scans -o joined
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command line."""
    parser = actions.add_parser(
        "site",
        help="join a federation with a dataset (flower-supernode)",
        description="Start Flower's SuperNode, which connects to the server and trains whenever "
        "it asks. The dataset stays here, and so does its path. Ctrl-C leaves the federation; the "
        "same command joins it again.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the server's address")
    add_transport(parser)
    parser.add_argument(
        "--dataset", required=True, type=Path, metavar="DIR", help="dataset folder of this site"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder to work in; the model is written to its folder 'model'",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="NAME|DIR", help="the model that training starts from, if it does not "
        "come with the program",
    )  # fmt: skip
    parser.add_argument(
        "--app", type=Path, metavar="DIR",
        help="the app as this site has read it; the server cannot run another one here",
    )  # fmt: skip
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="private key of this site, where the server lets "
        "only known sites in",
    )  # fmt: skip
    parser.add_argument(
        "--require", choices=("secure-aggregation", "local-noise"),
        help="train only if the federation protects the weights so",
    )  # fmt: skip
    parser.add_argument("--device", choices=DEVICES, help="where to train (auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run Flower's SuperNode until it is stopped; returns 130 then, 2 if it cannot join.

    Raises:
        UserError: Flower, the dataset, the model, the app or a certificate is missing, or the
            address or the key is wrong.
    """
    from BrainLandmarksTrainLib.federation import flower
    from BrainLandmarksTrainLib.federation.app_folder import read_app
    from BrainLandmarksTrainLib.federation.node import join_options, keep_joined, prepare_site

    flower.need_flower()
    transport = flower.transport(arguments.insecure, arguments.root_certificates)
    told = prepare_site(
        arguments.dataset,
        arguments.output,
        model=arguments.model,
        require=arguments.require,
        device=arguments.device,
        threads=arguments.threads,
    )
    joining = join_options(arguments.server, told, arguments.key, arguments.insecure)
    options = [*transport, *joining]
    if arguments.app is not None:
        read_app(arguments.app)
    print(f"joining {arguments.server}", flush=True)
    return keep_joined(options, arguments.output.absolute() / "flower", arguments.app)
