"""`brainlandmarks federate`: train with other sites in Flower's federation; one module per action.

The actions are those of Flower's own commands: `app` writes what `flwr new` would, `server` is
`flower-superlink`, `admit` is `flwr supernode register`, `site` is `flower-supernode`, and `run` is
`flwr run`.
"""

from __future__ import annotations

import argparse

from . import admit, app, report, run, server, site

_EXAMPLE = """\
examples:
  brainlandmarks federate app joined --model brain88 --rounds 20       the settings, once
  brainlandmarks federate server -o federation --certificate server.pem --key server.key \\
      --root-certificates ca.crt                                       where the weights meet
  brainlandmarks federate site --server federation.org:8000 --root-certificates ca.crt \\
      --dataset scans -o joined                                        at every hospital
  brainlandmarks federate run app --server federation.org:8000 --root-certificates ca.crt
  brainlandmarks federate report --sites scans --before brain88 --federated joined/model -o report
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "federate",
        help="train a model with other sites; scans stay where they are",
        description="Train a model further at several sites at once. Each site trains on its own "
        "dataset; weights, numbers of scans and errors travel, nothing else. Flower runs it "
        "(pip install 'brainlandmarks[federated]').",
        epilog=_EXAMPLE,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action in (app, server, admit, site, run, report):
        action.add_action(actions)
