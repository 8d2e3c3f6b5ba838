"""Parcellate, in the section Detect: structures of the brain as a segmentation over the volume."""

from __future__ import annotations

from functools import partial
from typing import Any

import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.parcellation_run import ParcellationRun, Parcelled
from BrainLandmarksLib.mrml.landmarks.segmentation import (
    FollowingSegmentation,
    segmentation_of,
    show_parcellation,
)
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.ui.common.installing import Installer
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection


class ParcellateSection(SessionSection):
    """The button that parcellates, or cancels, and the box that shows and hides the result."""

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self.run: ParcellationRun | None = None
        self._following: FollowingSegmentation | None = None
        ui = self.ui
        self._installer = Installer(panel, [ui.parcellateButton, ui.detectButton, ui.offlineButton])
        self.on_click({"parcellateButton": self.parcellate_or_cancel})
        ui.parcellationCheck.connect("toggled(bool)", self._shown_changed)

    def set_volume(self, volume: Any) -> None:
        """Another volume was chosen, or None: its parcellation follows it."""
        if self._following is not None:
            self._following.close()
        self._following = None if volume is None else FollowingSegmentation(volume)

    def refresh(self, session: Session | None) -> None:
        """One button: it parcellates, or cancels; the box says whether the result is seen."""
        ui, volume = self.ui, self.panel.volume()
        node = None if volume is None else segmentation_of(volume)
        display = None if node is None else node.GetDisplayNode()
        ui.parcellateButton.setText("Cancel" if self.run is not None else "Parcellate")
        ui.parcellateButton.setEnabled(self.run is not None or not self.panel.at_work)
        ui.parcellationCheck.setEnabled(display is not None)
        ui.parcellationCheck.checked = bool(display is not None and display.GetVisibility())

    # During --------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End a parcellation that is under way."""
        if self.run is not None:
            self.run.cancel()
            self.panel.host.watch()

    @reports_errors
    def parcellate_or_cancel(self) -> None:
        """The one button."""
        if self.run is not None:
            self.cancel()
        else:
            self._parcellate(self.panel.volume())

    def _parcellate(self, volume: Any, force: bool = False) -> None:
        """Start a parcellation; with ``force`` also of what is no head."""
        if volume is None:
            raise UserError("choose the MRI of a head first, or load the sample head.")
        if not self.panel.model():
            raise UserError("no model is installed; install BrainLandmarks again.")
        if not self._installer.ready():
            return
        self.ui.progressBar.setVisible(True)
        self.ui.progressBar.setValue(0)
        self.run = run = ParcellationRun(
            self.panel.host.worker,
            volume,
            self._progress,
            partial(self._ended, volume),
            model=self.panel.model(),
            device=str(self.ui.deviceCombo.currentText),
            force=force,
        )
        if run.over:  # the volume could not even be written
            self.run = None
        self.panel.host.watch()
        self.panel.refresh()

    @heard
    def _progress(self, words: str, fraction: float, seconds: float | None) -> None:
        self.ui.progressBar.setValue(round(1000 * fraction))
        left = "" if seconds is None else f", about {max(seconds, 1):.0f} s left"
        self.panel.status(f"{words[0].upper()}{words[1:]}{left} …")

    # After ---------------------------------------------------------------------------------------

    @heard
    def _ended(self, volume: Any, outcome: Parcelled | Failure | None) -> None:
        self.run = None
        self.ui.progressBar.setVisible(False)
        self.panel.status("")
        if outcome is None:
            self.panel.status("Cancelled.")
        elif isinstance(outcome, Failure):
            self.show_error(
                outcome.sentence, outcome.detail or self.panel.host.worker.diagnostics()
            )
            if outcome.implausible and self._wanted_all_the_same(volume, outcome.sentence):
                self.show_error("")
                self._parcellate(volume, force=True)
                return
        elif volume.GetScene() is None:
            self.show_error("The volume was closed while it was being parcellated.")
        else:
            self._take(volume, outcome)
        self.panel.refresh()

    def _wanted_all_the_same(self, volume: Any, sentence: str) -> bool:
        return volume.GetScene() is not None and bool(
            slicer.util.confirmYesNoDisplay(
                f"{sentence[0].upper()}{sentence[1:]}\n\nShow the parcellation all the same?"
            )
        )

    def _take(self, volume: Any, parcelled: Parcelled) -> None:
        show_parcellation(volume, parcelled)
        count = len(parcelled.structures)
        text = f"{count} structures in {parcelled.seconds:.1f} s."
        for note in parcelled.notes:
            text += f" {note[0].upper()}{note[1:]}."
        self.panel.status(text)

    @heard
    def _shown_changed(self, on: bool) -> None:
        node = segmentation_of(self.panel.volume()) if self.panel.volume() else None
        if node is not None:
            node.GetDisplayNode().SetVisibility(bool(on))
