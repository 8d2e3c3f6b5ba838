"""The section Join a federation: this site trains whenever a server asks, beside Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.worker.background_run import BackgroundRun
from BrainLandmarksTrainLib.federation.progress import read_progress

from .paths import NOWHERE

POLL_MS = 1000

_ENDED = {
    "finished": "This site has left the federation.",
    "stopped": "This site has left the federation; Join joins it again.",
    "failed": "The federation was left after an error; run.log in the folder says why.",
    "lost": "The process was ended from outside; Join joins again.",
}
_LEAVING = "Leaving the federation …"
_WAITING = "Connected, or trying to; the server has not asked for a round yet."

_FREE = (
    "federationServerEdit", "federationCertificatePath", "federationKeyPath",
    "federationAppPath", "federationOutputPath",
)  # fmt: skip
"""What can be changed while this site has not joined."""


class FederationSection(Section):
    """Runs `brainlandmarks federate site` in a process that outlives Slicer, and follows it."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.run: BackgroundRun | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)
        self.on_click({"joinButton": self.join, "leaveButton": self.leave})
        self.update()

    def bind(self) -> None:
        """Show what the scene's parameter node says, and a federation that this site is in."""
        self._attach()
        self.update()

    def close(self) -> None:
        """Stay in the federation."""
        self._timer.stop()
        self.run = None

    def changed_parameters(self, names: set[str]) -> None:
        """The parameter node has other values of these names."""
        if "federationOutput" in names:
            self._attach()
        self.update()

    def update(self) -> None:
        """Make what is shown fit the choices and the run."""
        ui, joined = self.ui, self.run is not None
        dataset = self.panel.path("dataset") if self.panel.parameters is not None else None
        for name in _FREE:
            getattr(ui, name).setEnabled(not joined)
        ui.federationDataInfoLabel.setText(
            "choose a dataset in the tab Dataset" if dataset is None else dataset.name
        )
        ui.joinButton.setEnabled(not joined and self._complete())
        ui.leaveButton.setEnabled(joined)
        ui.federationBar.setVisible(joined)

    def _complete(self) -> bool:
        """Whether all that joining needs is chosen."""
        parameters = self.panel.parameters
        if parameters is None or not str(parameters.federationServer).strip():
            return False
        paths = ("dataset", "federationCertificate", "federationOutput")
        return all(self.panel.path(name) not in (None, NOWHERE) for name in paths)

    def arguments(self) -> list[str]:
        """The arguments of the command that joins.

        Raises:
            UserError: something is not chosen.
        """
        if not self._complete():
            raise UserError("choose a dataset, a server, its root certificate and a folder first.")
        parameters, path = self.panel.parameters, self.panel.path
        chosen = [
            "federate", "site", "--server", str(parameters.federationServer).strip(),
            "--root-certificates", str(path("federationCertificate")),
            "--dataset", str(path("dataset")), "-o", str(path("federationOutput")),
            "--device", str(parameters.trainingDevice),
        ]  # fmt: skip
        for option, name in (("--key", "federationKey"), ("--app", "federationApp")):
            if path(name) is not None:
                chosen += [option, str(path(name))]
        if str(parameters.startModel):
            chosen += ["--model", str(parameters.startModel)]
        return chosen

    @reports_errors
    def join(self) -> None:
        """Join, or follow the process that has joined from this folder."""
        arguments = self.arguments()
        if self._attach() or not self.panel.ready(training=True, federated=True):
            return
        try:
            self.run = BackgroundRun.start(self.panel.path("federationOutput"), arguments)
        except OSError as error:
            raise UserError(f"Python cannot be started: {error}.") from None
        self._follow()

    @reports_errors
    def leave(self) -> None:
        """Leave after a checkpoint; the second time, at once."""
        if self.run is None:
            return
        if self.run.stopping:
            self.run.kill()
            self.poll()
        else:
            self.run.stop()
            self.ui.federationLabel.setText(_LEAVING)

    def _attach(self) -> bool:
        """Follow the process that has joined from the folder, if one has."""
        folder = self.panel.path("federationOutput")
        if self.run is not None or folder is None:
            return self.run is not None
        run = BackgroundRun.attach(folder)
        try:
            if run is None or run.state() != "running":
                return False
        except ImportError:  # packages are gone, as after an upgrade of Slicer
            return False
        self.run = run
        self._follow()
        return True

    def _follow(self) -> None:
        self._timer.start()
        self.ui.federationLabel.setText(_WAITING)
        self.update()

    @heard
    def poll(self) -> None:
        """Show what is new."""
        run = self.run
        if run is None:
            self._timer.stop()
            return
        state = run.state()
        self._show(run.folder, run.stopping)
        if state != "running":
            self._timer.stop()
            self.run = None
            self.ui.federationLabel.setText(_ENDED[state])
            self.update()

    def _show(self, folder: Path, leaving: bool) -> None:
        progress = read_progress(folder)
        if progress is None:
            return
        self.ui.federationBar.setMaximum(progress.rounds)
        self.ui.federationBar.setValue(progress.done)
        if not leaving:
            self.ui.federationLabel.setText(progress.sentence)
