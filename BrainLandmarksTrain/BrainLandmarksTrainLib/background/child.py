"""A command in the background that nobody has to wait for: it outlives whoever started it.

``python -m BrainLandmarksTrainLib.background.child FOLDER train recipe.json`` is
``brainlandmarks train recipe.json``, and besides

* writes ``FOLDER/run.json``: which process it is, what it does, and in the end its exit code, so
  that another program can find it (:mod:`.run`);
* behaves as after Ctrl-C when the file ``FOLDER/run.stop`` appears: training writes a checkpoint
  first. A signal cannot do that from a Windows program without a console, and a file works
  everywhere;
* does the same on SIGTERM, at any time;
* keeps ``FOLDER/run.words``: that it lives, and what it died of (:mod:`~.last_words`);
* ends when its command has ended, and not before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.worker.last_words import BEAT_S, BUG, LastWords, exit_code, spoken
from BrainLandmarksLib.worker.launcher import interrupt_main, stop_once

from .run import RUN_FILE, STOP_FILE, WORDS_FILE, first_words, write_run

WATCH_S = 0.2


def run(folder: Path, arguments: Sequence[str]) -> int:
    """Do what `brainlandmarks` does with the arguments; returns its exit code."""
    # Processes that a training on several devices starts run this file, too; the first one tells.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return main(arguments)
    words = LastWords(folder / WORDS_FILE)
    return spoken(words, lambda: _run(folder, arguments, words))


def _run(folder: Path, arguments: Sequence[str], words: LastWords) -> int:
    about = first_words(os.getpid(), arguments)
    (folder / STOP_FILE).unlink(missing_ok=True)
    write_run(folder / RUN_FILE, about)
    threading.Thread(target=_watch, args=(folder / STOP_FILE, words), daemon=True).start()
    code = BUG
    try:
        code = exit_code(lambda: main(arguments))
    finally:
        (folder / STOP_FILE).unlink(missing_ok=True)
        write_run(folder / RUN_FILE, {**about, "exit": code})
    return code


def _watch(file: Path, words: LastWords) -> None:
    """Interrupt the main thread when it is asked to stop, once; show that the process lives."""
    asked, beat = False, 0.0
    while True:
        if not asked and file.exists():
            asked = True
            interrupt_main()
        if time.monotonic() - beat > BEAT_S:
            beat = time.monotonic()
            words.beat()
        time.sleep(WATCH_S)


if __name__ == "__main__":
    stop_once()
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
