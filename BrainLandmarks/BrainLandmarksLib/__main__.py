"""`python -m BrainLandmarksLib` is the `brainlandmarks` command."""

import sys

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.worker import launcher

if __name__ == "__main__":
    sys.exit(launcher.run(main))
