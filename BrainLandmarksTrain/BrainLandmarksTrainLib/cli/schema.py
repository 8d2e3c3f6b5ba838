"""``--schema``: print the JSON schema of the file that a command reads, for an editor, and end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


def add_option(
    parser: argparse.ArgumentParser, file: str, make: Callable[[], dict[str, Any]]
) -> None:
    """Add the option to a command.

    Args:
        file: What the schema describes.
        make: Makes the schema; called on request only, so that it may import what is slow.
    """

    class Print(argparse.Action):
        def __call__(self, *_: object) -> None:
            print(json.dumps(make(), indent=2))
            parser.exit()

    parser.add_argument(
        "--schema", action=Print, nargs=0, default=argparse.SUPPRESS,
        help=f"print the JSON schema of {file}, for an editor, and stop",
    )  # fmt: skip
