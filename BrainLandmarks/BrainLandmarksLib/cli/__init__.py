"""The `brainlandmarks` command: one module or folder per subcommand,
each with `add_parser` and `run`.

Only the chosen subcommand imports what it needs, so `brainlandmarks --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import Any, NoReturn

from BrainLandmarksLib import PROGRAM, __version__
from BrainLandmarksLib.cli import (
    agreement,
    annotate,
    correct,
    dataset,
    detect,
    distance,
    follow,
    models,
    parcellate,
    planes,
    protocol,
    register,
    serve,
)
from BrainLandmarksLib.cli.cohort import report as cohort_report
from BrainLandmarksLib.cli.dataset import annotate as dataset_annotate
from BrainLandmarksLib.cli.gradcam import compare, explain, sanity
from BrainLandmarksLib.cli.terminal import report
from BrainLandmarksLib.errors import UserError, of_system

COMMANDS = (
    detect,
    parcellate,
    planes,
    cohort_report,
    explain,
    compare,
    sanity,
    register,
    follow,
    distance,
    protocol,
    annotate,
    correct,
    agreement,
    dataset,
    dataset_annotate,
    models,
    serve,
)
"""The commands of this library."""

ENTRY_POINTS = "brainlandmarks.commands"
"""Group of entry points with which other libraries register packages that have `COMMANDS`, too."""

_EXAMPLE = """\
examples:
  brainlandmarks detect head.nii.gz -o results    find the landmarks of a T1 image
  brainlandmarks explain head.nii.gz -o maps      what the answer is based on
  brainlandmarks protocol                         what the landmarks are
  brainlandmarks COMMAND --help                   all options of a command, with examples
"""


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, as every other error; keeps the lines of examples."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        report(f"{message}; see {self.prog} --help.")
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog=PROGRAM,
        description="Find anatomical landmarks in MRI of the head.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands():
        command.add_parser(subparsers)
    return parser


def commands() -> list[ModuleType]:
    """Every command: this library's, and those that other libraries register.

    >>> [command.__name__ for command in commands()][:1]
    ['BrainLandmarksLib.cli.detect']
    """
    packages = [point.value for point in metadata.entry_points(group=ENTRY_POINTS)]
    found = list(COMMANDS)
    for package in dict.fromkeys(packages or _beside()):
        found += importlib.import_module(package).COMMANDS
    return found


def _beside() -> list[str]:
    """Packages of commands on the path: an extension that Slicer installed has no entry points."""
    own = __name__.partition(".")[0]
    names = sorted(
        info.name
        for info in pkgutil.iter_modules()
        if info.ispkg and re.fullmatch(r"BrainLandmarks\w+Lib", info.name) and info.name != own
    )
    return [f"{name}.cli" for name in names if importlib.util.find_spec(f"{name}.cli")]


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments with a command of two words, such as `explain compare`, as one.

    An image that is called like the second word is given as ./compare.
    """
    first = " ".join(arguments[:2])
    if first in [getattr(command, "NAME", None) for command in commands()]:
        return [first, *arguments[2:]]
    return list(arguments)


def _print_anything() -> None:
    """Let names be printed that the output's encoding lacks, as "\\u982d", instead of an error.

    Windows takes the encoding of the country for an output that goes into a file.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0 when all went well, 2 after an error the user can put right (reported in one sentence on
        stderr), 130 after Ctrl-C, 141 if the reader of the output went away.
    """
    _print_anything()
    arguments = build_parser().parse_args(joined(sys.argv[1:] if argv is None else argv))
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        report(error)
        return 2
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        report("stopped.")
        return 130
    except (OSError, UnicodeEncodeError) as error:
        refused = of_system(error)
        if refused is None:
            raise
        report(refused)
        return 2
