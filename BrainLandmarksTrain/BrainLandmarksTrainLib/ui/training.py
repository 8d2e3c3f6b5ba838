"""The tab Training: choose, start, follow, pause, stop; find a training that runs again."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import qt
import slicer

from BrainLandmarksLib import PROGRAM
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import summarise
from BrainLandmarksLib.ui.common.preferences import title_of, usable_models
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.worker.background_run import BackgroundRun
from BrainLandmarksTrainLib.augmentation import AugmentationConfig
from BrainLandmarksTrainLib.config.options import (
    TrainingOptions,
    arguments_of,
    keep_recipe,
    recipe_from,
    training_scans,
)
from BrainLandmarksTrainLib.config.recipe import Recipe, load_recipe
from BrainLandmarksTrainLib.mrml.plots import show_in_layout
from BrainLandmarksTrainLib.mrml.training_plots import TrainingPlots
from BrainLandmarksTrainLib.pipeline.progress import TrainingProgress, read_progress

POLL_MS = 500
LOG_LINES = 5000
LAST_RUN = "lastRun"

METHODS = {
    "fine-tune a model": "fine-tune",
    "new model, the paper's method": "paper",
    "new model, a quick trial": "quick",
    "recipe file": "file",
}
"""How the panel calls the methods of `choices`."""

AS_METHOD = "the method's"
SIZES = (AS_METHOD, "16", "32", "48", "64", "80", "96", "128")

_ENDED = {
    "finished": "Training has ended; the new model is measured below.",
    "stopped": "Stopped after a checkpoint; Start goes on from it.",
    "failed": "Training failed; the last line of the log says why.",
    "lost": "The training was ended from outside. Start goes on from its last checkpoint.",
}
_UNKNOWN = (
    "Packages are missing, so it cannot be seen whether a training runs here; Start installs them."
)
_PAUSED = "Paused after a checkpoint; Resume goes on from it."

_FREE = (
    "methodCombo", "startCombo", "startFolderButton", "recipePath", "outputPath", "nameEdit",
    "lossCombo", "alphaSpin", "sizeCombo", "amountSpin", "unitCombo", "trainingDeviceCombo",
    "policiesCheck", "resumeCheck",
)  # fmt: skip
"""What can be changed while nothing runs."""

_OF_FILE = (
    "nameEdit", "lossCombo", "alphaSpin", "sizeCombo", "amountSpin", "unitCombo",
)  # fmt: skip
"""What a recipe file says itself."""


class TrainingTab(Section):
    """Runs `brainlandmarks train` in a process that outlives Slicer, and follows it."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.run: BackgroundRun | None = None
        self.plots = TrainingPlots()
        self._paused = False
        self._filling = False
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
                "startFolderButton": self._choose_model,
            }
        )
        ui.methodCombo.connect("activated(int)", self._method_chosen)
        ui.startCombo.connect("currentIndexChanged(int)", self._model_chosen)
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
        self.fill_models()
        self._output_changed()
        self.update()

    def close(self) -> None:
        """Let a training go on by itself."""
        self._timer.stop()
        self.run = None

    def fill_models(self) -> None:
        """Offer the models that there are now."""
        combo, wanted = self.ui.startCombo, str(self.panel.parameters.startModel)
        models = usable_models()
        if wanted and wanted not in [model.key for model in models]:
            try:
                models.append(summarise(wanted))
            except UserError:
                wanted = ""
        keys = [model.key for model in models]
        self._filling = True
        try:
            combo.clear()
            for model in models:
                combo.addItem(title_of(model), model.key)
            combo.setCurrentIndex(keys.index(wanted) if wanted in keys else 0)
        finally:
            self._filling = False
        self._model_chosen(combo.currentIndex)

    @heard
    def _model_chosen(self, index: int) -> None:
        if not self._filling and self.panel.parameters is not None:
            self.panel.parameters.startModel = str(self.ui.startCombo.itemData(index) or "")

    @reports_errors
    def _choose_model(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.startFolderButton, "Folder of a model (it holds model.json)"
        )
        if folder:
            self.panel.parameters.startModel = summarise(str(folder)).key
            self.fill_models()

    @reports_errors
    def _method_chosen(self, _index: int) -> None:
        """A method brings the loss that goes with it."""
        method, parameters = self._method(), self.panel.parameters
        if method == "fine-tune":
            parameters.loss, parameters.alpha = (
                TrainingOptions(method).loss,
                TrainingOptions(method).alpha,
            )
        elif method != "file":
            fine = load_recipe(method, None, "run", "dataset").fine
            parameters.loss, parameters.alpha = fine.coordinate_loss, fine.alpha

    def changed_parameters(self, names: set[str]) -> None:
        """The parameter node has other values of these names."""
        if "startModel" in names:
            self.fill_models()
        if names & {"output", "recipe", "method"}:
            self._output_changed()
        self.update()

    @reports_errors
    def _output_changed(self) -> None:
        """A folder with a training that runs is followed; one with a finished one is shown."""
        if self.run is not None or self.panel.parameters is None:
            return
        folder = self._folder()
        if folder is not None and not self._attach(folder):
            self.panel.report.show(folder)
        self.update()

    # Choices -------------------------------------------------------------------------------------

    def choices(self) -> TrainingOptions:
        """What the panel says.

        Raises:
            UserError: a settings file of the augmentation is wrong.
        """
        p, path = self.panel.parameters, self.panel.path
        return TrainingOptions(
            self._method(),
            dataset=path("dataset"),
            output=path("output"),
            model=str(p.startModel) or "brain88",
            file=path("recipe"),
            name=str(p.modelName).strip(),
            loss=str(p.loss),
            alpha=float(p.alpha),
            size=None if p.size == AS_METHOD else int(p.size),
            amount=int(p.amount),
            unit=str(p.unit),
            device=str(p.trainingDevice),
            augmentation=self._augmentation(),
        )

    def _augmentation(self) -> AugmentationConfig | None:
        if not self.panel.parameters.policies:
            return None
        config: AugmentationConfig = self.panel.augmentation.config()
        return config

    def _method(self) -> str:
        chosen = "" if self.panel.parameters is None else str(self.panel.parameters.method)
        return METHODS.get(chosen, "fine-tune")

    def _folder(self) -> Path | None:
        """The folder of the run, as far as it is known before there is a recipe."""
        chosen, file = self.panel.path("output"), self.panel.path("recipe")
        if chosen is None and self._method() == "file" and file is not None and file.is_file():
            try:
                return Path(recipe_from(TrainingOptions("file", file=file)).output)
            except UserError:
                return None
        return chosen

    def command(self) -> str:
        """The command line that does the same; empty while something is missing."""
        folder = self._folder()
        if folder is None:
            return ""
        resume = self.panel.parameters is None or bool(self.panel.parameters.resume)
        return shlex.join([PROGRAM, *arguments_of(folder, resume=resume)])

    def update(self) -> None:
        """Make what is shown fit the choices and the run."""
        ui, method = self.ui, self._method()
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
        ui.dataInfoLabel.setText(self._data())
        ui.commandEdit.setText(self.command())
        ui.copyButton.setEnabled(bool(ui.commandEdit.text))
        ui.startButton.setEnabled(not running and bool(ui.commandEdit.text))
        ui.startButton.setText("Resume" if self._paused else "Start training")
        ui.pauseButton.setEnabled(running and not stopping)
        ui.stopButton.setEnabled(running or self._paused)
        ui.stopButton.setText("End at once" if stopping else "Stop")
        ui.plotsButton.setEnabled(any(chart is not None for chart in self.plots.charts))
        ui.trainingBar.setVisible(running or self._paused)

    def _data(self) -> str:
        folder, tab = self.panel.path("dataset"), getattr(self.panel, "dataset", None)
        if folder is None:
            return "As the file says." if self._method() == "file" else "Choose it in Dataset."
        if tab is None or tab.dataset is None:
            return f"{folder.name} is no dataset."
        count = training_scans(tab.dataset)
        return f"{folder.name}: {count} of {len(tab.dataset)} cases to train on"

    # Doing ---------------------------------------------------------------------------------------

    @reports_errors
    def copy(self) -> None:
        """Write the recipe and copy the command that runs it."""
        recipe = self._keep()
        resume = bool(self.panel.parameters.resume)
        command = shlex.join([PROGRAM, *arguments_of(Path(recipe.output), resume=resume)])
        slicer.app.clipboard().setText(command)
        self.panel.status("The settings file is written and the command copied.")

    @reports_errors
    def start(self) -> None:
        """Start, or go on after a pause; a training that runs in the folder is followed."""
        folder = self._folder()
        if folder is not None and self._attach(folder):
            return
        if not self.panel.ready(training=True):
            return
        if folder is not None and self._attach(folder):  # it could not be seen before
            return
        resume = self._paused or bool(self.panel.parameters.resume)
        output = Path(self._keep().output)
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

    def _keep(self) -> Recipe:
        recipe = recipe_from(self.choices())
        keep_recipe(recipe)
        return recipe

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
