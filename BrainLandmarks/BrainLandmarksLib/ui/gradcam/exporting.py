"""The part of the panel that writes maps to files, as `brainlandmarks explain` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.gradcam import SETS
from BrainLandmarksLib.gradcam.output import file_names
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.worker.messages import Message

NAME = "head"
"""Files' names begin with it; the volume's own name may be a patient's."""


class ExportSection(Section):
    """Which landmarks, in which files, where."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.on_click({"exportButton": self.export})

    @reports_errors
    def export(self) -> None:
        """Ask for a folder and let the worker write the files."""
        volume = self.panel.need_volume()
        choosing = self.panel.choosing
        protocol = choosing.protocol
        labels = protocol.labels if self.ui.everyCheck.checked else choosing.labels
        if not labels:
            raise UserError("choose landmarks first, or tick the box for all of them.")
        sets = SETS[self.ui.filesCombo.currentIndex]
        chosen = qt.QFileDialog.getExistingDirectory(self.ui.exportButton, "Folder for the maps")
        if not chosen:
            return
        folder = Path(str(chosen))
        rows = [protocol.by_label(label).index - 1 for label in labels]
        there = [n for n in file_names(NAME, protocol, rows, sets) if (folder / n).exists()]
        if there and not slicer.util.confirmOkCancelDisplay(
            f"The folder has {there[0]} already. Replace files of the same names?"
        ):
            return
        if not self.panel.installer.ready():
            return
        self.panel.status("Saving maps …")
        self.panel.host.worker.request(
            "export",
            self._hear,
            image=str(self.panel.scan.of(volume)),
            output=str(folder),
            name=NAME,
            model=choosing.model,
            device=choosing.device,
            landmarks=list(labels),
            layer=choosing.layer,
            files=sets,
        )
        self.panel.host.watch()

    @heard
    def _hear(self, message: Message) -> None:
        if message["type"] == "result":
            count = len(message["files"]) - 1
            record = Path(message["files"][-1])
            files = f"{count} map file{'s' * (count > 1)}"
            self.panel.status(f"Saved {files} and {record.name} to {record.parent}.")
        elif message["type"] == "cancelled":
            self.panel.status("Nothing was saved: the worker was stopped.")
        elif message["type"] == "error":
            self.panel.status("")
            self.show_error(message["message"], message["detail"])
