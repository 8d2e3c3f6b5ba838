"""A command that ends with the process that started it.

``python -m BrainLandmarksLib.worker.attached train recipe.json`` is ``brainlandmarks train
recipe.json``, but when standard input ends it behaves as after Ctrl-C: training writes a
checkpoint first. Standard input ends when `CommandRun.stop` closes it, or when Slicer is gone,
however it went; unlike a signal this works the same way on Windows.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading

from BrainLandmarksLib.cli import main


def stop_at_end_of_input() -> None:
    """Interrupt the main thread once standard input has ended."""
    # Not through sys.stdin: its lock would be in the way when Python ends.
    while os.read(0, 4096):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    # A process that was started in the background may have got "ignore Ctrl-C" with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    sys.exit(main())
