"""``python -m BrainLandmarksTrainLib RECIPE`` is the same as ``brainlandmarks train RECIPE``."""

from __future__ import annotations

import sys

from BrainLandmarksLib.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
