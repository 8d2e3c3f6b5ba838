"""A command that ends with the process that started it.

``python -m BrainLandmarksLib.cli.child train recipe.json`` is ``brainlandmarks train
recipe.json``, but when standard input ends it behaves as after Ctrl-C: training writes a
checkpoint first. Standard input ends when `CommandRun.stop` closes it, or when Slicer is gone,
however it went; unlike a signal this works the same way on Windows. SIGTERM does the same. How the
command ended is kept for its parent (:mod:`.last_words`).
"""

from __future__ import annotations

import os
import sys
import threading

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.worker import last_words
from BrainLandmarksLib.worker.launcher import interrupt_main, stop_once


def stop_at_end_of_input() -> None:
    """Interrupt the main thread once standard input has ended."""
    # Not through sys.stdin: its lock would be in the way when Python ends.
    while os.read(0, 4096):
        pass
    interrupt_main()


if __name__ == "__main__":
    words = last_words.begin()
    stop_once()
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    sys.exit(last_words.spoken(words, main))
