"""``python -m BrainLandmarksTrainLib`` is the `brainlandmarks` command.

In Slicer's Python: ``PythonSlicer -m BrainLandmarksTrainLib train recipe.json``.
"""

from __future__ import annotations

import sys

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.worker import launcher

if __name__ == "__main__":
    sys.exit(launcher.run(main))
