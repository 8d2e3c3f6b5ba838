"""Messages of a panel: a sentence at its top, another below its buttons."""

from __future__ import annotations

from typing import Any

import slicer

from BrainLandmarksLib.ui.common.host import WorkerHost

DEVICES = {"cpu": "the CPU", "cuda": "the GPU", "mps": "the GPU (MPS)"}


class Messages:
    """The part of a panel that speaks.

    Args:
        ui: The widgets by name; messageBar, messageLabel, diagnosticsButton and statusLabel are
            used.
        host: The worker, whose last words belong to a diagnosis.
    """

    def __init__(self, ui: Any, host: WorkerHost) -> None:
        self.ui = ui
        self.host = host
        self._detail = ""
        ui.diagnosticsButton.connect("clicked(bool)", self._copy_diagnostics)

    def show_error(self, sentence: str, detail: str = "") -> None:
        """One sentence at the top of the panel; an empty one takes it away."""
        text = sentence[:1].upper() + sentence[1:]
        self._detail = f"{text}\n{detail}" if detail else text
        self.ui.messageLabel.setText(text)
        self.ui.messageBar.setVisible(bool(text))

    def status(self, sentence: str) -> None:
        """One sentence below the buttons: what goes on, or what was done."""
        self.ui.statusLabel.setText(sentence)

    def end_preview(self) -> None:
        """Take what is shown in the scene and waits for an answer out of it."""

    def _copy_diagnostics(self, _checked: bool = False) -> None:
        text = f"{self._detail}\n\n{self.host.worker.diagnostics()}"
        slicer.app.clipboard().setText(text)
