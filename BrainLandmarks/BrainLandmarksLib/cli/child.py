"""A command in a process of its own, for a program that watches it from outside.

``python -m BrainLandmarksLib.cli.child train recipe.json`` is ``brainlandmarks train recipe.json``,
and ends with the process that started it: when standard input ends, it behaves as after Ctrl-C, and
training writes a checkpoint first. Standard input ends when `CommandRun.stop` closes it, or when
Slicer is gone, however it went; unlike a signal this works the same way on Windows. How the command
ended is kept for its parent (:mod:`~.worker.last_words`).

With ``--background FOLDER`` before the command it outlives whoever started it
(:class:`~.worker.background_run.BackgroundRun`). It

* writes ``FOLDER/run.json``: which process it is, what it does, and in the end its exit code, so
  that another program can find it;
* behaves as after Ctrl-C when the file ``FOLDER/run.stop`` appears. A signal cannot do that from a
  Windows program without a console, and a file works everywhere;
* keeps ``FOLDER/run.words``: that it lives, and what it died of;
* ends when its command has ended, and not before.

SIGTERM does the same as Ctrl-C to both, at any time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.worker.background_run import (
    RUN_FILE,
    STOP_FILE,
    WORDS_FILE,
    run_record,
    write_run,
)
from BrainLandmarksLib.worker.last_words import BEAT_S, BUG, LastWords, begin, exit_code, spoken
from BrainLandmarksLib.worker.launcher import interrupt_main, stop_once
from BrainLandmarksLib.worker.process_tree import BACKGROUND

WATCH_S = 0.2


def run_with_parent(arguments: Sequence[str]) -> int:
    """Do what `brainlandmarks` does, as long as standard input is open; returns its exit code."""
    words = begin()
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    return spoken(words, lambda: main(arguments))


def stop_at_end_of_input() -> None:
    """Interrupt the main thread once standard input has ended."""
    # Not through sys.stdin: its lock would be in the way when Python ends.
    while os.read(0, 4096):
        pass
    interrupt_main()


def run_in_background(folder: Path, arguments: Sequence[str]) -> int:
    """Do what `brainlandmarks` does and keep the run's files; returns its exit code."""
    # Processes that a training on several devices starts run this file, too; the first one tells.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return main(arguments)
    words = LastWords(folder / WORDS_FILE)
    return spoken(words, lambda: _recorded(folder, arguments, words))


def _recorded(folder: Path, arguments: Sequence[str], words: LastWords) -> int:
    about = run_record(os.getpid(), arguments)
    write_run(folder / RUN_FILE, about)
    watch = threading.Thread(target=_watch, args=(folder / STOP_FILE, words), daemon=True)

    def work() -> int:
        watch.start()  # it may have been asked to stop already, while Python was starting
        return main(arguments)

    code = BUG
    try:
        code = exit_code(work)
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
    if sys.argv[1:2] == [BACKGROUND]:
        sys.exit(run_in_background(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(run_with_parent(sys.argv[1:]))
