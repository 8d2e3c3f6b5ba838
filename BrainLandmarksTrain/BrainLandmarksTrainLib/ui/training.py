"""Training in the background: choose the settings, start, follow, stop."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util

from BrainLandmarksLib.ui import requirements
from BrainLandmarksLib.worker.command import CommandRun

POLL_MS = 200
LOG_LINES = 5000


class TrainingSection:
    """Runs `brainlandmarks train` beside Slicer and shows what it prints.

    Args:
        ui: The widgets of BrainLandmarksTrain.ui.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self.run: CommandRun | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)
        ui.logView.maximumBlockCount = LOG_LINES
        ui.configPath.connect("currentPathChanged(QString)", self._changed)
        ui.copyButton.connect("clicked(bool)", self._copy)
        ui.startButton.connect("clicked(bool)", self._start_or_stop)
        self.refresh()

    @property
    def arguments(self) -> list[str]:
        """Those of the `brainlandmarks` command that is shown."""
        return ["train", str(self._ui.configPath.currentPath)]

    def refresh(self) -> None:
        """Make the command and the buttons fit the settings and the run."""
        chosen = Path(self._ui.configPath.currentPath).is_file()
        self._ui.commandEdit.text = (
            shlex.join(["brainlandmarks", *self.arguments]) if chosen else ""
        )
        self._ui.copyButton.enabled = chosen
        self._ui.configPath.enabled = self.run is None
        stopping = self.run is not None and self.run.stopping
        self._ui.startButton.enabled = (chosen or self.run is not None) and not stopping
        self._ui.startButton.text = "Start training" if self.run is None else "Stop"

    def close(self) -> None:
        """End a run at once; its last checkpoint stays."""
        self._timer.stop()
        if self.run is not None:
            self.run.kill()
            self.run = None

    def _changed(self, _path: str) -> None:
        self.refresh()

    def _copy(self, _checked: bool = False) -> None:
        slicer.app.clipboard().setText(self._ui.commandEdit.text)

    def _start_or_stop(self, _checked: bool = False) -> None:
        if self.run is not None:
            self.run.stop()
            self._ui.statusLabel.text = "Stopping after a checkpoint..."
        elif self._ready():
            self._ui.logView.clear()
            try:
                self.run = CommandRun(self.arguments)
            except OSError as error:
                self._ui.statusLabel.text = f"Python cannot be started: {error}."
            else:
                self._ui.statusLabel.text = "Training runs; Slicer can be used meanwhile."
                self._timer.start()
        self.refresh()

    def _ready(self) -> bool:
        """Whether the packages are there; asks once and installs them if not."""
        needed = requirements.missing(training=True)
        if not needed:
            return True
        if not slicer.util.confirmOkCancelDisplay(needed.sentence):
            return False
        try:
            requirements.install(needed, log=self._say)
        except RuntimeError as error:
            self._say(str(error))
            return False
        return not requirements.missing(training=True)

    def _say(self, sentence: str) -> None:
        self._ui.statusLabel.text = sentence

    def _poll(self) -> None:
        if self.run is None:
            return
        code = self.run.poll(self._show)
        if code is None:
            return
        self._timer.stop()
        stopped, self.run = self.run.stopping, None
        if code == 0:
            self._ui.statusLabel.text = "Training has ended."
        elif stopped:
            self._ui.statusLabel.text = "Stopped; Start goes on from the last checkpoint."
        else:
            self._ui.statusLabel.text = f"Training failed (exit code {code}); the log says why."
        self.refresh()

    def _show(self, line: str, _error: bool) -> None:
        self._ui.logView.appendPlainText(line)
