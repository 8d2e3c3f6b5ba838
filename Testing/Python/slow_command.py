"""Commands that take long, for tests: each stands in for `brainlandmarks` in a process of its own.

python slow_command.py WHAT                        as `BrainLandmarksLib.cli.child`
python -m slow_command --background FOLDER WHAT    as the same with this option
python slow_command.py plain WHAT                  as `PythonSlicer -m BrainLandmarksLib`
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

from BrainLandmarksLib.cli import child
from BrainLandmarksLib.worker import launcher
from BrainLandmarksLib.worker.process_tree import BACKGROUND

SAVING_S = 0.6
"""How long the checkpoint takes."""


def work(arguments) -> int:
    """Wait and save when it is interrupted, or die of what the last argument says."""
    try:  # the signal may come as soon as it is said that it waits
        print("waiting", os.getpid(), flush=True)
        if arguments[-1] == "crash":
            faulthandler._sigsegv()
        if arguments[-1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if arguments[-1] == "fail":
            return 2
        time.sleep(600)
    except KeyboardInterrupt:
        end = time.monotonic() + SAVING_S
        while time.monotonic() < end:
            time.sleep(0.05)
        Path(arguments[-1]).touch()
        print("saved", flush=True)
        return 130
    return 0


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "plain":
        sys.exit(launcher.run(lambda: work(rest)))
    child.main = work
    launcher.stop_once()
    if kind == BACKGROUND:
        sys.exit(child.run_in_background(Path(rest[0]), rest[1:]))
    sys.exit(child.run_with_parent([kind, *rest]))
