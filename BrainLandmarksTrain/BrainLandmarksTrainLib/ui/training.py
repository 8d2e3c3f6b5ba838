"""The tab Training: start, follow, pause, stop; find a training that runs again."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import qt
import slicer

from BrainLandmarksLib import PROGRAM
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.worker.background_run import BackgroundRun
from BrainLandmarksTrainLib.config.options import arguments_of
from BrainLandmarksTrainLib.mrml.plots import show_in_layout
from BrainLandmarksTrainLib.mrml.training_plots import TrainingPlots
from BrainLandmarksTrainLib.pipeline.progress import TrainingProgress, read_progress

from .training_form import TrainingForm

POLL_MS = 500
LOG_LINES = 5000
LAST_RUN = "lastRun"

_ENDED = {
    "finished": "Training has ended; the new model is measured below.",
    "stopped": "Stopped after a checkpoint; Start resumes from it.",
    "failed": "Training failed; the last line of the log says why.",
    "lost": "The training was ended from outside. Start resumes from its last checkpoint.",
}
_UNKNOWN = (
    "Packages are missing, so it cannot be seen whether a training runs here; Start installs them."
)
_PAUSED = "Paused after a checkpoint; Resume continues from it."

_FREE = (
    "methodCombo", "startCombo", "startFolderButton", "recipePath", "outputPath", "nameEdit",
    "lossCombo", "alphaSpin", "sizeCombo", "amountSpin", "unitCombo", "trainingDeviceCombo",
    "policiesCheck", "resumeCheck",
)  # fmt: skip
"""What can be changed while nothing runs."""

_OF_FILE = (
    "nameEdit", "lossCombo", "alphaSpin", "sizeCombo", "amountSpin", "unitCombo", "policiesCheck",
)  # fmt: skip
"""What a recipe file says itself."""


class TrainingTab(Section):
    """Runs `brainlandmarks train` in a process that outlives Slicer, and follows it."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.run: BackgroundRun | None = None
        self.form = TrainingForm(panel)
        self.plots = TrainingPlots()
        self._paused = False
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)
        ui = self.ui
        ui.logView.maximumBlockCount = LOG_LINES
        self.on_click(
            {
                "startButton": self.start,
                "pauseButton": self.pause,
                "stopButton": self.stop,
                "copyButton": self.copy,
                "plotsButton": self.show_plots,
            }
        )
        self.update()

    # The parameter node --------------------------------------------------------------------------

    def bind(self) -> None:
        """Show what the scene's parameter node says, and a training that runs."""
        parameters = self.panel.parameters
        last = self.panel.preference(LAST_RUN)
        # A training that is followed or waits is shown in a new scene as well.
        if (last and self.panel.path("output") is None) and (
            self.run is not None or self._paused or self._attach(Path(last))
        ):
            parameters.output = Path(last)
        self.form.fill_models()
        self._output_changed()
        self.update()

    def close(self) -> None:
        """Let a training go on by itself."""
        self._timer.stop()
        self.run = None

    def changed_parameters(self, names: set[str]) -> None:
        """The parameter node has other values of these names."""
        if "startModel" in names:
            self.form.fill_models()
        if names & {"output", "recipe", "method"}:
            self._output_changed()
        self.update()

    @reports_errors
    def _output_changed(self) -> None:
        """A folder with a training that runs is followed; one with a finished one is shown."""
        if self.run is not None or self.panel.parameters is None:
            return
        folder = self.form.folder
        if folder is not None and not self._attach(folder):
            self.panel.report.show(folder)
        self.update()

    def update(self) -> None:
        """Make what is shown fit the choices and the run."""
        ui, method = self.ui, self.form.method
        running = self.run is not None
        stopping = self.run is not None and self.run.stopping
        for name in _FREE:
            getattr(ui, name).setEnabled(not running and not self._paused)
        if method == "file":
            for name in _OF_FILE:
                getattr(ui, name).setEnabled(False)
        for name in ("recipeLabel", "recipePath"):
            getattr(ui, name).setVisible(method == "file")
        for name in ("startLabel", "startRow"):
            getattr(ui, name).setVisible(method == "fine-tune")
        ui.dataInfoLabel.setText(self.form.data())
        ui.commandEdit.setText(self.form.command())
        ui.copyButton.setEnabled(bool(ui.commandEdit.text))
        ui.startButton.setEnabled(not running and bool(ui.commandEdit.text))
        ui.startButton.setText("Resume" if self._paused else "Start training")
        ui.pauseButton.setEnabled(running and not stopping)
        ui.stopButton.setEnabled(running or self._paused)
        ui.stopButton.setText("End at once" if stopping else "Stop")
        ui.plotsButton.setEnabled(any(chart is not None for chart in self.plots.charts))
        ui.trainingBar.setVisible(running or self._paused)

    # Doing ---------------------------------------------------------------------------------------

    @reports_errors
    def copy(self) -> None:
        """Write the recipe and copy the command that runs it."""
        recipe = self.form.keep()
        resume = bool(self.panel.parameters.resume)
        command = shlex.join([PROGRAM, *arguments_of(Path(recipe.output), resume=resume)])
        slicer.app.clipboard().setText(command)
        self.panel.status("The settings file is written and the command copied.")

    @reports_errors
    def start(self) -> None:
        """Start, or go on after a pause; a training that runs in the folder is followed."""
        folder = self.form.folder
        if folder is not None and self._attach(folder):
            return
        if not self.panel.ready(training=True):
            return
        if folder is not None and self._attach(folder):  # it could not be seen before
            return
        resume = self._paused or bool(self.panel.parameters.resume)
        output = Path(self.form.keep().output)
        self._forget_log()
        try:
            run = BackgroundRun.start(output, arguments_of(output, resume=resume))
        except OSError as error:
            raise UserError(f"Python cannot be started: {error}.") from None
        self._follow(run)
        self.panel.status("Training starts; Slicer can be used, or closed, meanwhile.")

    @reports_errors
    def pause(self) -> None:
        """End after a checkpoint, to go on later."""
        if self.run is not None:
            self._paused = True
            self.run.stop()
            self.panel.status("Pausing after a checkpoint …")
            self.update()

    @reports_errors
    def stop(self) -> None:
        """End after a checkpoint; the second time, at once."""
        if self.run is None:
            self._paused = False
            self.panel.status(_ENDED["stopped"])
        elif self.run.stopping:
            self._paused = False
            self.run.kill()
            self.poll()
        else:
            self._paused = False
            self.run.stop()
            self.panel.status("Stopping after a checkpoint …")
        self.update()

    @reports_errors
    def show_plots(self) -> None:
        """Loss and error in Slicer's plot views."""
        show_in_layout(*self.plots.charts)

    # Following -----------------------------------------------------------------------------------

    def _attach(self, folder: Path) -> bool:
        """Follow the training that runs in a folder, if one does."""
        run = BackgroundRun.attach(folder)
        if run is None:
            return False
        try:
            state = run.state()
        except ImportError:  # packages are gone, as after an upgrade of Slicer
            self.panel.status(_UNKNOWN)
            return False
        if state != "running":
            if state == "lost":
                self.panel.status(_ENDED["lost"])
            return False
        self._forget_log()
        self._follow(run)
        since = datetime.fromisoformat(str(run.about["started"])).astimezone()
        self.panel.status(f"A training runs here since {since:%d %b %H:%M}.")
        return True

    def _follow(self, run: BackgroundRun) -> None:
        self.run, self._paused = run, False
        self.panel.preference(LAST_RUN, str(run.folder))
        self.panel.report.clear()
        self._timer.start()
        self.update()

    @heard
    def poll(self) -> None:
        """Show what is new."""
        run = self.run
        if run is None:
            self._timer.stop()
            return
        state = run.state()
        for line in run.new_lines():
            self.ui.logView.appendPlainText(line)
        progress = read_progress(run.folder)
        if progress:
            self._show_progress(progress)
        if state == "running":
            if bool(self.ui.pauseButton.enabled) == run.stopping:
                self.update()
            return
        self._timer.stop()
        self.run = None
        self._paused = self._paused and state == "stopped"
        self.panel.status(_PAUSED if self._paused else _ENDED[state])
        if state == "finished":
            self.panel.report.show(run.folder)
        if state == "failed":
            self.ui.logSection.collapsed = False
        self.update()

    def _show_progress(self, progress: list[TrainingProgress]) -> None:
        last = progress[-1]
        self.ui.trainingBar.setValue(round(1000 * last.share))
        if self.run is not None and not self.run.stopping:
            left = "measuring" if last.share >= 1 else f"about {duration(last.left_s)} left"
            self.panel.status(
                f"Training the {last.part} network: step {last.step}, {100 * last.share:.0f} %, "
                f"{left}."
            )
        known = None not in self.plots.charts
        self.plots.show(progress)
        if not known:
            self.update()

    def _forget_log(self) -> None:
        self.ui.logView.clear()


def duration(seconds: float) -> str:
    """A time in words, roughly."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{max(seconds, 1):.0f} s"
