"""Options that several commands have, each added to a parser in the same words."""

from __future__ import annotations

import argparse

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.device import DEVICES

DEFAULT_MODEL = "brain88"
DEFAULT_FORMATS = "mrk.json,csv"
"""Landmark files that `detect` writes."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the option --model."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help=f"a shipped model or a model folder (default: {DEFAULT_MODEL})",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option --device."""
    parser.add_argument(
        "--device",
        default="auto",
        choices=DEVICES,
        help="where the network runs; auto takes a working NVIDIA GPU, else the CPU",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option --seed."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all random choices (0)"
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add the option --workers of a command that computes in several processes."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (one for each processor)"
    )


def need_at_least(arguments: argparse.Namespace, **least: float) -> None:
    """Check numbers; an option that was not given is fine.

    >>> need_at_least(arguments, workers=1, seed=0)

    Raises:
        UserError: a number is smaller.
    """
    for name, smallest in least.items():
        value = getattr(arguments, name)
        if value is not None and value < smallest:
            raise UserError(f"--{name} must be at least {smallest}, not {value}.")


def add_quality(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the quality level."""
    parser.add_argument(
        "--quality",
        default="standard",
        choices=("fast", "standard", "best"),
        help="quality level: fast makes one pass over the head; standard makes two, and combines "
        "them with landmarks by rule on a parcellation of the brain; best averages more passes and "
        "refines them in finer voxels as well, which takes longer (standard)",
    )


def force_hint(results: str) -> str:
    """What the option --force does, for the error without it; `results` as in "the maps"."""
    return f"With --force {results} are written all the same, marked as implausible."


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the choice to keep what is no head."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="write the result even if no head was recognised; it is marked as implausible",
    )
