"""Parcellate, in the section Detect: structures of the brain as a segmentation over the volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.parcellation_run import ParcellationRun, Parcelled
from BrainLandmarksLib.mrml.landmarks.segmentation import (
    FollowingSegmentation,
    segmentation_of,
    show_parcellation,
)
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.ui.common.installing import Installer
from BrainLandmarksLib.ui.common.section import heard
from BrainLandmarksLib.ui.landmarks.running import RunSection
from BrainLandmarksLib.ui.landmarks.section import SessionPanel


class ParcellateSection(RunSection):
    """The button that parcellates, or cancels, and the box that shows and hides the result."""

    CLOSED = "The volume was closed while it was being parcellated."
    ANYWAY = "Show the parcellation all the same?"

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self._following: FollowingSegmentation | None = None
        ui = self.ui
        self._installer = Installer(panel, [ui.parcellateButton, ui.detectButton, ui.offlineButton])
        self.on_click({"parcellateButton": self.start_or_cancel})
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

    def _new_run(
        self, volume: Any, on_end: Callable[[Any], None], force: bool
    ) -> Callable[[], ParcellationRun]:
        if not self.panel.model():
            raise UserError("no model is installed; install BrainLandmarks again.")
        return lambda: ParcellationRun(
            self.panel.host.worker,
            volume,
            self._progress,
            on_end,
            model=self.panel.model(),
            device=str(self.ui.deviceCombo.currentText),
            force=force,
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
