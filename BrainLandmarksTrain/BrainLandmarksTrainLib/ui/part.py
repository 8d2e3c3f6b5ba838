"""One part of this module's panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.ui.common.section import Section

MARGIN_PX, LEAST_PX = 70, 300
"""What is beside a picture in the panel, and the least width of one."""


class Part(Section):
    """A section as in the module Brain Landmarks; its panel is a `panel.TrainPanel`."""

    panel: Any

    def show_picture(self, label: Any, file: Path) -> None:
        """Show a picture file on a label, as wide as the panel is now."""
        width = max(int(self.ui.tabs.width) - MARGIN_PX, LEAST_PX)
        pixmap = qt.QPixmap(str(file)).scaledToWidth(width, qt.Qt.SmoothTransformation)
        label.setPixmap(pixmap)
        label.setMinimumHeight(pixmap.height())
        label.setVisible(True)
