"""The `brainlandmarks` command: one module per subcommand, each with `add_parser` and `run`.

Only the chosen subcommand imports what it needs, so `brainlandmarks --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from BrainLandmarksLib import __version__
from BrainLandmarksLib.cli import (
    agreement,
    annotate,
    cohort_report,
    correct,
    dataset,
    detect,
    distance,
    explain,
    explain_compare,
    explain_sanity,
    models,
    protocol,
    serve,
)
from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.cli import (
    ablation,
    augment,
    evaluate,
    finetune,
    robustness,
    robustness_retest,
    train,
)

PROGRAM = "brainlandmarks"

_EXAMPLE = """\
examples:
  brainlandmarks detect head.nii.gz -o results    find the landmarks of a T1 image
  brainlandmarks explain head.nii.gz -o maps      what the network looked at
  brainlandmarks protocol                         what the landmarks are
  brainlandmarks COMMAND --help                   all options of a command, with examples
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of this program."""

    def error(self, message: str) -> NoReturn:
        report(f"{message}; see {self.prog} --help.")
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog=PROGRAM,
        description="Find anatomical landmarks in MRI of the head.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        detect,
        cohort_report,
        explain,
        explain_compare,
        explain_sanity,
        distance,
        protocol,
        annotate,
        correct,
        agreement,
        dataset,
        augment,
        train,
        finetune,
        ablation,
        evaluate,
        robustness,
        robustness_retest,
        models,
        serve,
    ):
        command.add_parser(subparsers)
    return parser


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments with a command of two words, such as `explain compare`, as one.

    An image that is called like the second word is given as ./compare.
    """
    first = " ".join(arguments[:2])
    if first in (explain_compare.NAME, explain_sanity.NAME, robustness_retest.NAME):
        return [first, *arguments[2:]]
    return list(arguments)


def report(sentence: object) -> None:
    """Print one error sentence on stderr, under the program's name."""
    print(f"{PROGRAM}: error: {sentence}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0 when all went well, 2 after an error the user can put right (reported in one sentence on
        stderr), 130 after Ctrl-C, 141 if the reader of the output went away.
    """
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
