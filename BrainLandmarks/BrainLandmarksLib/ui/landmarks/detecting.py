"""The section Detect: one button, where it runs, how long it takes, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import qt
import slicer.util

from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.mrml.landmarks.detection_run import DetectionRun, Found
from BrainLandmarksLib.mrml.landmarks.sample import load_sample_head
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.landmarks.views import look_at
from BrainLandmarksLib.network.model_files import load_shape
from BrainLandmarksLib.review.edits import is_implausible
from BrainLandmarksLib.ui.common.installing import Installer
from BrainLandmarksLib.ui.common.messages import DEVICES
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.running import RunSection
from BrainLandmarksLib.ui.landmarks.section import SessionPanel
from BrainLandmarksLib.worker.messages import Message

IMPLAUSIBLE = (
    "no head was recognised in this volume: its landmarks are implausible and mean nothing until "
    "you have corrected them."
)


class DetectSection(RunSection):
    """Input, options, Detect and Cancel."""

    CLOSED = "The volume was closed while its landmarks were being found."
    ANYWAY = "Show the landmarks all the same? They will be marked as implausible."

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self._estimate: float | None = None
        self._asked = ("", "", "")
        ui = self.ui
        ui.progressBar.setVisible(False)
        self._installer = Installer(
            panel, [ui.detectButton, ui.parcellateButton, ui.offlineButton], self._installed
        )
        self.on_click(
            {
                "sampleButton": self._load_sample,
                "detectButton": self.start_or_cancel,
                "offlineButton": self._install_from_folder,
            }
        )
        for combo in (ui.deviceCombo, ui.qualityCombo, ui.modelCombo):
            combo.connect("currentTextChanged(QString)", self.prepare)

    def enter(self, session: Session) -> None:
        """Say so if its landmarks are those of no head."""
        if is_implausible(session.source):
            self.show_error(IMPLAUSIBLE)

    def refresh(self, session: Session | None) -> None:
        """One button: it detects, or cancels."""
        running, free = self.run is not None, not self.panel.at_work
        self.ui.detectButton.setText("Cancel" if running else "Detect landmarks")
        self.ui.detectButton.setEnabled(running or free)
        for name in ("inputSelector", "sampleButton", "deviceCombo", "qualityCombo", "modelCombo"):
            getattr(self.ui, name).setEnabled(free)

    # Before --------------------------------------------------------------------------------------

    @heard
    def prepare(self, _text: str = "") -> None:
        """Start the worker and ask it what it would run on and how long a detection takes."""
        choice = (self.panel.model(), self._device(), self._quality())
        if self.run is not None or choice == self._asked:
            return
        self._asked = choice
        self._estimate = None
        if requirements.missing():
            self.ui.deviceInfoLabel.setText("Packages are missing; Detect installs them.")
            return
        self.ui.deviceInfoLabel.setText("Starting …")
        model, device, quality = choice
        worker = self.panel.host.worker
        worker.request("device", partial(self._device_known, choice), device=device)
        worker.request(
            "estimate",
            partial(self._estimate_known, choice),
            model=model,
            device=device,
            quality=quality,
        )
        self.panel.host.watch()

    @reports_errors
    def _load_sample(self) -> None:
        """Load the sample head and choose it."""
        volume = load_sample_head()
        self.panel.choose(volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)

    @heard
    def _device_known(self, choice: tuple[str, str, str], message: Message) -> None:
        if choice != self._asked:
            return
        if message["type"] == "error":
            self.ui.deviceInfoLabel.setText("")
            self.show_error(message["message"], message["detail"])
        elif message["type"] == "result":
            self.ui.deviceInfoLabel.setText(self._where(message))

    @heard
    def _estimate_known(self, choice: tuple[str, str, str], message: Message) -> None:
        if choice == self._asked and message["type"] == "result":
            self._estimate = float(message["seconds"])
            self.ui.deviceInfoLabel.setText(
                f"{self.ui.deviceInfoLabel.text} {self._how_long(self._estimate)}"
            )

    def _where(self, device: Message) -> str:
        if device["device"] == "cpu":
            threads = device["threads"]
            return f"Runs on the CPU ({threads} thread{'s' * (threads > 1)})."
        memory = f", {device['memory_gb']:.0f} GB" if device["memory_gb"] else ""
        return f"Runs on {device['name'] or DEVICES[device['device']]}{memory}."

    def _how_long(self, estimate: float) -> str:
        last = self.panel.preference(self._time_key())
        if last:
            return f"It took {_seconds(float(last))} the last time."
        return f"Takes about {_seconds(estimate)}."

    # The run -------------------------------------------------------------------------------------

    def _new_run(
        self, volume: Any, on_end: Callable[[Any], None], force: bool
    ) -> Callable[[], DetectionRun]:
        protocol = self.panel.protocol()
        return lambda: DetectionRun(
            self.panel.host.worker,
            volume,
            protocol,
            self._progress,
            on_end,
            model=self.panel.model(),
            device=self._device(),
            quality=self._quality(),
            force=force,
        )

    def _take(self, volume: Any, found: Found) -> None:
        self.panel.preference(self._time_key(), f"{found.seconds:.1f}")
        session = self._session_of(volume)
        if session is not None and session.protocol.hash != found.landmarks.protocol.hash:
            if not self._may_replace(session):
                self.panel.status("The new landmarks were not shown; the corrected ones stay.")
                return
            session = None
        count = int((~found.landmarks.missing).sum())
        text = (
            f"{count} of {len(found.landmarks)} landmarks in {found.seconds:.1f} s on "
            f"{DEVICES[found.source['device']]}."
        )
        for note in found.notes:
            text += f" {note[0].upper()}{note[1:]}."
        self.panel.status(text)
        shape = load_shape(found.source["model"], len(found.landmarks))
        if session is not None:
            session.renew(found.landmarks, found.source, shape, keep=self._keep(session))
            self.enter(session)
            return
        self.panel.leave()
        self.panel.enter(
            Session.begin(volume, found.landmarks, found.source, shape, self.panel.reviewer())
        )
        look_at(found.landmarks.points)

    def _session_of(self, volume: Any) -> Session | None:
        """The session, if it is this volume's and its lists are there."""
        session = self.session
        if session is None or session.volume is not volume or not session.nodes.complete:
            return None
        return session

    def _may_replace(self, session: Session) -> bool:
        return not session.review.corrected.any() or bool(
            slicer.util.confirmOkCancelDisplay(
                "The chosen model finds other landmarks. They replace those of this volume, which "
                "have corrections. Show them?"
            )
        )

    def _keep(self, session: Session) -> bool:
        return bool(session.review.corrected.any()) and bool(
            slicer.util.confirmYesNoDisplay(
                "You have corrected or confirmed landmarks of this volume. Keep them and update "
                "the others?"
            )
        )

    # Packages ------------------------------------------------------------------------------------

    @heard
    def _installed(self) -> None:
        self._asked = ("", "", "")

    @reports_errors
    def _install_from_folder(self) -> None:
        needed = requirements.missing()
        if not needed:
            self.panel.status("Everything is installed already.")
            return
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.offlineButton, "Folder with the Python wheels"
        )
        if folder:
            self._installer.install(needed, str(folder))

    # Choices -------------------------------------------------------------------------------------

    def _device(self) -> str:
        return str(self.ui.deviceCombo.currentText)

    def _quality(self) -> str:
        return str(self.ui.qualityCombo.currentText)

    def _time_key(self) -> str:
        return f"seconds/{self.panel.model()}/{self._device()}/{self._quality()}"


def _seconds(value: float) -> str:
    return f"{max(value, 1):.0f} s"
