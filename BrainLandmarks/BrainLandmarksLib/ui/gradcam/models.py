"""A box with the models that are installed, and those in folders that the user adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.network.model_files import model_protocol
from BrainLandmarksLib.ui.common.preferences import title_of, usable_models


class ModelBox:
    """Fills and reads a QComboBox.

    Args:
        combo: The widget.
        none: Text of a first entry that stands for no model; empty for no such entry.
    """

    def __init__(self, combo: Any, none: str = "") -> None:
        self._combo = combo
        combo.clear()
        if none:
            combo.addItem(none, "")
        for summary in usable_models():
            combo.addItem(title_of(summary), summary.key)

    @property
    def model(self) -> str:
        """Name or folder of the chosen model; empty for none."""
        index = self._combo.currentIndex
        return str(self._combo.itemData(index) or "") if index >= 0 else ""

    @property
    def title(self) -> str:
        """The chosen model as the user sees it."""
        return str(self._combo.currentText)

    def add_folder(self) -> None:
        """Ask for a folder with a model, and choose it.

        Raises:
            UserError: there is no model in it.
        """
        chosen = qt.QFileDialog.getExistingDirectory(self._combo, "Folder of a model")
        if not chosen:
            return
        folder = str(Path(str(chosen)).absolute())
        model_protocol(folder)  # is it one?
        index = self._combo.findData(folder)
        if index < 0:
            self._combo.addItem(Path(folder).name, folder)
            index = self._combo.count - 1
        self._combo.setCurrentIndex(index)
