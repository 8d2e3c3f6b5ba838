"""A command in the background that nobody has to wait for: it outlives whoever started it.

``python -m BrainLandmarksTrainLib.background FOLDER train recipe.json`` is ``brainlandmarks train
recipe.json``, and besides

* writes ``FOLDER/run.json``: which process it is, what it does, and in the end its exit code, so
  that another program can find it (:mod:`.background_run`);
* behaves as after Ctrl-C when the file ``FOLDER/run.stop`` appears: training writes a checkpoint
  first. A signal cannot do that from a Windows program without a console, and a file works
  everywhere;
* ends when its command has ended, and not before.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from BrainLandmarksLib.cli import main

from .background_run import RUN_FILE, STOP_FILE, first_words, write_run

WATCH_S = 0.2
_BUG = 1


def run(folder: Path, arguments: Sequence[str]) -> int:
    """Do what `brainlandmarks` does with the arguments; returns its exit code."""
    # Processes that a training on several devices starts run this file, too; the first one tells.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return main(arguments)
    about = first_words(os.getpid(), arguments)
    (folder / STOP_FILE).unlink(missing_ok=True)
    write_run(folder / RUN_FILE, about)
    threading.Thread(target=_interrupt_when_asked, args=(folder / STOP_FILE,), daemon=True).start()
    code = _BUG
    try:
        code = main(arguments)
    except SystemExit as error:  # the parser has said why
        code = error.code if isinstance(error.code, int) else _BUG
    finally:
        (folder / STOP_FILE).unlink(missing_ok=True)
        write_run(folder / RUN_FILE, {**about, "exit": code})
    return code


def _interrupt_when_asked(file: Path) -> None:
    while not file.exists():
        time.sleep(WATCH_S)
    _thread.interrupt_main()


if __name__ == "__main__":
    # A process that was started in the background may have got "ignore Ctrl-C" with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
