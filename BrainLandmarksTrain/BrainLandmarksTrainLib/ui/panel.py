"""The panel of the BrainLandmarksTrain module: its tabs, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.ui import requirements
from BrainLandmarksLib.ui.host import WorkerHost
from BrainLandmarksLib.ui.messages import Messages
from BrainLandmarksLib.ui.settings import setting
from BrainLandmarksTrainLib.ui.augmenting import AugmentationTab
from BrainLandmarksTrainLib.ui.dataset import DatasetTab
from BrainLandmarksTrainLib.ui.guidelines import GuidelinesSection
from BrainLandmarksTrainLib.ui.importing import ImportSection
from BrainLandmarksTrainLib.ui.raters import RatersSection
from BrainLandmarksTrainLib.ui.reporting import ReportSection
from BrainLandmarksTrainLib.ui.training import TrainingTab

_PATHS = ("datasetPath", "policyFile", "recipePath", "outputPath")


class TrainPanel(Messages):
    """Holds the tabs; they talk through it.

    Args:
        ui: The widgets by name (`slicer.util.childWidgetVariables`).
        host: The worker.
    """

    def __init__(self, ui: Any, host: WorkerHost) -> None:
        super().__init__(ui, host)
        self.setting = setting
        self.session = None
        self.parameters: Any = None
        self._known: dict[str, Any] = {}
        self.report = ReportSection(self)
        self.training = TrainingTab(self)
        self.augmentation = AugmentationTab(self)
        self.dataset = DatasetTab(self)
        self.importing = ImportSection(self)
        self.guidelines = GuidelinesSection(self)
        self.raters = RatersSection(self)
        self._tabs = (self.dataset, self.augmentation, self.training)
        for name in _PATHS:
            getattr(ui, name).connect("currentPathChanged(QString)", self._empty_paths)
        self.say("")

    def bind(self, parameters: Any) -> None:
        """Work with a parameter node, the wrapped one whose widgets are connected, or with none."""
        self.parameters = parameters
        if parameters is not None:
            self.guidelines.forget()
            self._known = self._values()
            for tab in self._tabs:
                tab.bind()

    def parameters_changed(self) -> None:
        """The parameter node has other values: from the widgets, a script or Undo."""
        if self.parameters is None:
            return
        before, self._known = self._known, self._values()
        changed = {name for name, value in self._known.items() if before.get(name) != value}
        if changed:
            for tab in self._tabs:
                tab.changed_parameters(changed)

    def _empty_paths(self, _written: str = "") -> None:
        """Show nothing where nothing is chosen; the parameter node's connector writes a dot."""
        for name in _PATHS:
            edit = getattr(self.ui, name)
            if edit.currentPath == str(Path()):
                edit.blockSignals(True)
                edit.currentPath = ""
                edit.blockSignals(False)

    def _values(self) -> dict[str, Any]:
        names = self.parameters.allParameters
        return {name: self.parameters.getValue(name) for name in names}

    def close(self) -> None:
        """Stop listening; a training goes on."""
        for part in (*self._tabs, self.importing):
            part.close()

    def case_changed(self) -> None:
        """Another case is in the scene, or its landmarks are others."""
        self.guidelines.forget()
        self.dataset.show()
        self.augmentation.update()

    # Choices -------------------------------------------------------------------------------------

    def path(self, name: str) -> Path | None:
        """A path of the parameter node; None where it is empty."""
        value = Path() if self.parameters is None else self.parameters.getValue(name)
        return None if value == Path() else value

    def need_dataset(self) -> Path:
        """The dataset folder.

        Raises:
            UserError: none is chosen.
        """
        folder = self.path("dataset")
        if folder is None:
            raise UserError("choose or make a dataset folder first, in the tab Dataset.")
        return folder

    # Packages ------------------------------------------------------------------------------------

    def ready(self, *, training: bool = False) -> bool:
        """Whether the packages are there; asks once and installs them if not.

        Args:
            training: Those for training as well.

        Raises:
            UserError: installing failed, or is not possible here.
        """
        needed = requirements.missing(training=training)
        if not needed:
            return True
        needed.need_possible()
        if not slicer.util.confirmOkCancelDisplay(needed.sentence):
            return False
        try:
            requirements.install(needed, log=self.status)
        except RuntimeError as error:
            raise UserError(str(error)) from error
        self.host.worker.stop()  # one that was started without them
        return not requirements.missing(training=training)
