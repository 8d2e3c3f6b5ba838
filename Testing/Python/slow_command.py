"""Commands that take long, for tests: each stands in for `brainlandmarks` in a process of its own.

python slow_command.py attached WHAT       as `BrainLandmarksLib.cli.child`
python -m slow_command FOLDER WHAT         as `BrainLandmarksTrainLib.background.child`
python slow_command.py plain WHAT          as `PythonSlicer -m BrainLandmarksLib`
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path

from BrainLandmarksLib.cli import child as attached
from BrainLandmarksLib.worker import last_words, launcher

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
    if kind == "attached":
        words = last_words.begin()
        launcher.stop_once()
        threading.Thread(target=attached.stop_at_end_of_input, daemon=True).start()
        sys.exit(last_words.spoken(words, lambda: work(rest)))
    if kind == "plain":
        sys.exit(launcher.run(lambda: work(rest)))
    from BrainLandmarksTrainLib.background import child as background

    background.main = work
    launcher.stop_once()
    sys.exit(background.run(Path(kind), rest))
