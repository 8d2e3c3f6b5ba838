"""One part of this module's panel."""

from __future__ import annotations

from typing import Any

from BrainLandmarksLib.ui.slots import Section


class Part(Section):
    """A section as in the module Brain Landmarks; its panel is a `panel.TrainPanel`."""

    panel: Any
