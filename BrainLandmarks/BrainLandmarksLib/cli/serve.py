"""`brainlandmarks serve`: the worker behind the Slicer modules."""

from __future__ import annotations

import argparse

_EXAMPLE = """\
example:
  echo '{"v": 1, "id": "a", "type": "ping"}' | brainlandmarks serve
      docs/worker.md of the source code describes the messages
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="answer requests, one JSON object a line (for programs)",
        description="Read requests from standard input and answer on standard output, one JSON "
        "object a line, until the input ends. The models stay in memory between requests.",
        epilog=_EXAMPLE,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until standard input ends; returns 0."""
    from BrainLandmarksLib.worker.server import serve

    serve()
    return 0
