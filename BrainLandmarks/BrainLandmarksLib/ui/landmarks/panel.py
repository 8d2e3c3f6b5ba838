"""The panel of the BrainLandmarks module: its sections, and the session they work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.ui.common.host import WorkerHost
from BrainLandmarksLib.ui.common.messages import Messages
from BrainLandmarksLib.ui.common.preferences import title_of, usable_models
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.comparing import CompareSection
from BrainLandmarksLib.ui.landmarks.correcting import CorrectSection
from BrainLandmarksLib.ui.landmarks.detecting import DetectSection
from BrainLandmarksLib.ui.landmarks.measuring import MeasureSection
from BrainLandmarksLib.ui.landmarks.parcellating import ParcellateSection
from BrainLandmarksLib.ui.landmarks.planning import PlaneSection
from BrainLandmarksLib.ui.landmarks.reviewing import ReviewSection
from BrainLandmarksLib.ui.landmarks.saving import SaveSection
from BrainLandmarksLib.ui.landmarks.source_model import shape_of

KEYS = {
    "N": "nextButton",
    "Shift+N": "previousButton",
    "C": "confirmButton",
    "Shift+C": "confirmGroupButton",
    "P": "placeButton",
    "M": "missingButton",
    "R": "revertButton",
    "G": "soloButton",
    "Z": "zoomButton",
    "Ctrl+Z": "undoButton",
    "Ctrl+Y": "redoButton",
}
"""Key to button, so that a review needs no mouse but for dragging."""


class Panel(Messages):
    """Holds the session of the chosen volume, and notifies the sections when it changes.

    Args:
        ui: The widgets by name (`slicer.util.childWidgetVariables`).
        root: The panel itself, for shortcuts.
        host: The worker.
        preference: Reads what the user last chose, preference(name), or remembers it,
            preference(name, value).
        pictures: Folder of the landmarks' pictures, one folder for each protocol.
    """

    def __init__(
        self,
        ui: Any,
        root: Any,
        host: WorkerHost,
        preference: Callable[..., Any],
        pictures: Path,
    ) -> None:
        super().__init__(ui, host)
        self.preference = preference
        self.pictures = pictures
        self.session: Session | None = None
        self.fill_models()
        self.detecting = DetectSection(self)
        self.parcellating = ParcellateSection(self)
        self.reviewing = ReviewSection(self)
        self.correcting = CorrectSection(self)
        self.measuring = MeasureSection(self)
        self.planning = PlaneSection(self)
        self.comparing = CompareSection(self)
        self.saving = SaveSection(self)
        self._sections = (
            self.detecting,
            self.parcellating,
            self.reviewing,
            self.correcting,
            self.measuring,
            self.planning,
            self.comparing,
            self.saving,
        )
        ui.reviewerEdit.connect("editingFinished()", self._reviewer_changed)
        self._shortcuts = []
        for keys, name in KEYS.items():
            shortcut = qt.QShortcut(qt.QKeySequence(keys), root)
            shortcut.connect("activated()", getattr(ui, name).click)
            self._shortcuts.append(shortcut)
        self.show_error("")
        self.refresh()

    # The session ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the scene and of what is under way."""
        self.detecting.cancel()
        self.parcellating.cancel()
        self.parcellating.set_volume(None)
        self.comparing.set_volume(None)
        self.leave()

    @reports_errors
    def set_volume(self, volume: Any) -> None:
        """Another volume was chosen: show its landmarks, if it has any."""
        # Also of the same volume: a scene that was added to this one may have brought arrows.
        self.comparing.set_volume(volume)
        if self.session is not None and self.session.volume is volume and volume is not None:
            return
        self.leave()
        self.parcellating.set_volume(volume)
        nodes = LandmarkNodes.of_volume(volume) if volume is not None else None
        if nodes is not None:
            shape = shape_of(nodes.restore()[1], nodes.protocol)
            self.enter(Session.resume(nodes, shape, self.reviewer()))
        self.refresh()

    def enter(self, session: Session) -> None:
        """Work on a session; the one before is left."""
        self.leave()
        self.session = session
        session.listeners.append(self._changed)
        session.corrections.on_error = self.show_error
        session.selection.on_active = self.reviewing.activate
        for section in self._sections:
            section.enter(session)

    def leave(self) -> None:
        """Work on no session; the landmarks stay in the scene."""
        for section in self._sections:
            section.leave()
        if self.session is not None:
            self.session.end()
            self.session = None

    def need_session(self) -> Session:
        """The session.

        Raises:
            UserError: there is none.
        """
        if self.session is None:
            raise UserError("there are no landmarks yet; detect or load some first.")
        return self.session

    def refresh(self) -> None:
        """Bring what can be clicked up to date."""
        for section in self._sections:
            section.refresh(self.session)

    @heard
    def _changed(self, labels: list[str]) -> None:
        assert self.session is not None
        for section in self._sections:
            section.changed(self.session, labels)
        self.refresh()

    # What the sections ask of each other ---------------------------------------------------------

    @property
    def at_work(self) -> bool:
        """Whether a detection or a parcellation is under way."""
        return self.detecting.run is not None or self.parcellating.run is not None

    @property
    def previewing(self) -> bool:
        """Whether an update of the others waits for an answer."""
        return self.correcting.previewing

    def end_preview(self) -> None:
        """Show nothing in the lists that waits for an answer."""
        self.correcting.end_preview()

    def stop_placing(self) -> None:
        """Wait for no click."""
        self.correcting.stop_placing()

    def next_uncertain(self) -> None:
        """To the most uncertain point not reviewed yet, after the active one."""
        self.reviewing.next_uncertain()

    # Choices -------------------------------------------------------------------------------------

    def volume(self) -> Any:
        """The chosen volume node, or None."""
        return self.ui.inputSelector.currentNode()

    def choose(self, volume: Any) -> None:
        """Choose a volume node."""
        self.ui.inputSelector.setCurrentNode(volume)

    def model(self) -> str:
        """Name or folder of the chosen model; empty if none is installed."""
        return str(self.ui.modelCombo.itemData(self.ui.modelCombo.currentIndex) or "")

    def protocol(self) -> Protocol:
        """The landmarks of the chosen model.

        Raises:
            UserError: no model is installed.
        """
        summary = next((m for m in usable_models() if m.key == self.model()), None)
        if summary is None:
            raise UserError("no model is installed; install BrainLandmarks again.")
        return load_protocol(summary.protocol)

    def reviewer(self) -> str:
        """Initials for the record; may be empty."""
        return str(self.ui.reviewerEdit.text).strip()

    @heard
    def _reviewer_changed(self) -> None:
        self.preference("reviewer", self.reviewer())
        if self.session is not None:
            self.session.review.reviewer = self.reviewer()

    def fill_models(self) -> None:
        """Offer the models that there are now; one that was added last is chosen."""
        combo, models = self.ui.modelCombo, usable_models()
        keys = [model.key for model in models]
        if keys == [combo.itemData(n) for n in range(combo.count)]:
            return
        combo.clear()
        for model in models:
            combo.addItem(title_of(model), model.key)
        wanted = self.preference("model")
        combo.setCurrentIndex(keys.index(wanted) if wanted in keys else 0)
