"""`python -m BrainLandmarksLib` is the `brainlandmarks` command."""

import sys

from BrainLandmarksLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
