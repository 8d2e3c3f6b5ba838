"""Every `brainlandmarks` command from a Slicer without a window.

    Slicer --no-main-window --no-splash --python-script BrainLandmarksTrain.py -- train recipe.json

Arguments, output and exit code are those of `brainlandmarks`, and where a command expects an image,
landmarks or folders of them it also takes Slicer scenes (.mrb, .mrml), which are read here. The
command itself runs in a process of its own, as everything heavy does: Slicer never imports PyTorch.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import slicer

from BrainLandmarksLib import PROGRAM
from BrainLandmarksLib.cli import build_parser, joined
from BrainLandmarksLib.cli.terminal import report
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.mrml.landmarks.scene_files import SEPARATOR, export_scene, is_scene
from BrainLandmarksLib.worker.command_run import CommandRun
from BrainLandmarksLib.worker.launcher import Launcher

from .c_output import flush

EXPECTED = {
    "images": "image",
    "image": "image",
    "labelmap": "labels",
    "annotation": "landmarks",
    "found": "landmarks",
    "reference": "landmarks",
    "sources": "heads",
    "predictions": "heads",
    "truth": "heads",
    "folders": "heads",
    "corrected": "heads",
}
"""Argument of a command to what it takes from a scene; other arguments take no scene."""

TRAINING = ("train", "finetune", "ablation", "augment")
"""Commands that need more packages than the others."""

POLL_S = 0.05


def run(arguments: Sequence[str]) -> int:
    """Do what `brainlandmarks` does with these arguments; returns its exit code, whatever happens.

    Ctrl-C and SIGTERM stop the command as Ctrl-C stops `brainlandmarks`, a second one ends it.
    SIGTERM is mostly sent to Slicer's launcher, which ends and passes nothing on: its end stops the
    command as well.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="brainlandmarks-") as folder:
            return _run_command(_with_files(list(arguments), Path(folder)))
    except UserError as error:
        report(error)
        return 2
    except SystemExit as error:  # the parser has said why
        return error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        report("stopped.")
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        flush()


def _run_command(arguments: Sequence[str]) -> int:
    training = bool(arguments) and arguments[0] in TRAINING
    missing = requirements.missing(training=training)
    if missing:
        print(f"{PROGRAM}: note: {_note(missing, training)}", file=sys.stderr)
    launcher = Launcher(*_launcher_names())
    command = CommandRun(arguments)
    with _stopped_by_signals(command):
        try:
            while (code := command.poll(_show)) is None:
                if launcher.gone and not command.stopping:
                    command.stop()
                time.sleep(POLL_S)
        finally:
            command.kill()
    cause = command.ending.cause("command") if command.ending is not None else ""
    if cause:
        report(f"{cause}.")
    return code


def _note(missing: requirements.Missing, training: bool) -> str:
    """What to do about packages that are missing; the command may not even need them."""
    try:
        missing.need_possible()
    except UserError as error:
        return str(error)
    names = [*missing.packages, *["PyTorch"] * missing.pytorch]
    button = (
        "Start training in Brain Landmarks Training"
        if training
        else "Detect landmarks in Brain Landmarks"
    )
    return f"Slicer's Python lacks {', '.join(names)}; click {button} once, which installs them."


def _show(line: str, error: bool) -> None:
    # A terminal or a pipe that is gone is no reason to end what runs.
    with suppress(OSError):
        print(line, file=sys.stderr if error else sys.stdout)
        flush()


def _launcher_names() -> list[str]:
    """What Slicer's launcher is called here; an application made of Slicer has another name."""
    application = getattr(slicer, "app", None)  # there is none without Slicer's program
    path = str(getattr(application, "launcherExecutableFilePath", ""))
    return [Path(path).stem] if path else []


@contextmanager
def _stopped_by_signals(command: CommandRun) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on; Slicer has given both back to the system, which would end it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if command.stopping:
            command.kill()
        else:
            command.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_files(arguments: list[str], folder: Path) -> list[str]:
    """The arguments with files in place of scenes."""
    if not any(is_scene(part) for argument in arguments for part in argument.split("=")):
        return arguments
    parsed = vars(build_parser().parse_args(joined(arguments)))
    files: dict[str, str] = {}
    for name, value in parsed.items():
        for given in map(str, value if isinstance(value, list) else [value]):
            if is_scene(given) and name in EXPECTED and given not in files:
                place = folder / str(len(files))
                place.mkdir()
                files[given] = str(export_scene(given, EXPECTED[name], place))
    return [_replaced(argument, files) for argument in arguments] + _beside_scene(parsed)


def _replaced(argument: str, files: dict[str, str]) -> str:
    """An argument, or the value of an --option=value, with the file in place of the scene."""
    if argument in files:
        return files[argument]
    option, equals, value = argument.partition("=")
    return f"{option}={files[value]}" if equals and value in files else argument


def _beside_scene(parsed: dict[str, Any]) -> list[str]:
    """`correct` writes beside its input by default: beside the scene, not its copy."""
    annotation = str(parsed.get("annotation", ""))
    if not is_scene(annotation) or parsed["output"] is not None or parsed["dry_run"]:
        return []
    scene = Path(annotation.partition(SEPARATOR)[0])
    return ["-o", str(scene.with_name(f"{scene.stem}_corrected.mrk.json"))]
