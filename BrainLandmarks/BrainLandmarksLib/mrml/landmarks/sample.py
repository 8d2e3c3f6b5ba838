"""The sample head that comes with the extension."""

from __future__ import annotations

from typing import Any

import slicer.util

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError

NODE_NAME = "Colin27"


def load_sample_head() -> Any:
    """Load the sample head; returns its volume node.

    Raises:
        UserError: its file is damaged or gone.
    """
    try:
        return slicer.util.loadVolume(str(resources.sample_head()), {"name": NODE_NAME})
    except RuntimeError:
        raise UserError(
            "Slicer cannot read the sample head; install BrainLandmarks again."
        ) from None
