"""The panel of the BrainLandmarksTrain module: its tabs, and what they share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.ui.common.host import WorkerHost
from BrainLandmarksLib.ui.common.installing import Installer
from BrainLandmarksLib.ui.common.messages import Messages
from BrainLandmarksLib.ui.common.preferences import preference
from BrainLandmarksLib.ui.common.section import heard

from .augmenting import AugmentationTab
from .dataset import DatasetTab
from .federation import FederationSection
from .guidelines import GuidelinesSection
from .importing import ImportSection
from .paths import NOWHERE, PathField
from .raters import RatersSection
from .reporting import ReportSection
from .training import TrainingTab

_PATHS = {
    "dataset": "datasetPath",
    "policyFile": "policyFile",
    "recipe": "recipePath",
    "output": "outputPath",
    "federationCertificate": "federationCertificatePath",
    "federationKey": "federationKeyPath",
    "federationApp": "federationAppPath",
    "federationOutput": "federationOutputPath",
}
"""Path of the parameter node to its field."""

MARGIN_PX, LEAST_PX = 70, 300
"""What is beside a picture in the panel, and the least width of one."""


class TrainPanel(Messages):
    """Holds the tabs; they talk through it.

    Args:
        ui: The widgets by name (`slicer.util.childWidgetVariables`).
        host: The worker.
    """

    def __init__(self, ui: Any, host: WorkerHost) -> None:
        super().__init__(ui, host)
        self.preference = preference
        self._installer = Installer(self, [ui.tabs])
        self.parameters: Any = None
        self._known: dict[str, Any] = {}
        self.report = ReportSection(self)
        self.training = TrainingTab(self)
        self.federation = FederationSection(self)
        self.augmentation = AugmentationTab(self)
        self.dataset = DatasetTab(self)
        self.importing = ImportSection(self)
        self.guidelines = GuidelinesSection(self)
        self.raters = RatersSection(self)
        self._tabs = (self.dataset, self.augmentation, self.training, self.federation)
        self._paths = {
            name: PathField(getattr(ui, field), partial(self._path_chosen, name))
            for name, field in _PATHS.items()
        }
        self.show_error("")

    def bind(self, parameters: Any) -> None:
        """Work with a parameter node, the wrapped one whose widgets are connected, or with none."""
        self.parameters = parameters
        if parameters is not None:
            self.guidelines.forget()
            self._known = self._values()
            self._show_paths()
            for tab in self._tabs:
                tab.bind()

    @heard
    def parameters_changed(self) -> None:
        """The parameter node has other values: from the widgets, a script or Undo."""
        if self.parameters is None:
            return
        before, self._known = self._known, self._values()
        changed = {name for name, value in self._known.items() if before.get(name) != value}
        if changed:
            self._show_paths()
            for tab in self._tabs:
                tab.changed_parameters(changed)

    @heard
    def _path_chosen(self, name: str, path: Path) -> None:
        if self.parameters is not None:
            self.parameters.setValue(name, path)

    def _show_paths(self) -> None:
        for name, field in self._paths.items():
            field.show(self.parameters.getValue(name))

    def _values(self) -> dict[str, Any]:
        names = self.parameters.allParameters
        return {name: self.parameters.getValue(name) for name in names}

    def close(self) -> None:
        """Stop listening; a training goes on."""
        for part in (*self._tabs, self.importing):
            part.close()

    def end_preview(self) -> None:
        """Show no moves of the guidelines that nobody has decided on."""
        self.guidelines.end_preview()

    def case_changed(self) -> None:
        """Another case is in the scene, or its landmarks are others."""
        self.guidelines.forget()
        self.dataset.show()
        self.augmentation.update()

    def show_picture(self, label: Any, file: Path) -> None:
        """Show a picture file on a label, as wide as the panel is now."""
        width = max(int(self.ui.tabs.width) - MARGIN_PX, LEAST_PX)
        pixmap = qt.QPixmap(str(file)).scaledToWidth(width, qt.Qt.SmoothTransformation)
        label.setPixmap(pixmap)
        label.setMinimumHeight(pixmap.height())
        label.setVisible(True)

    def path(self, name: str) -> Path | None:
        """A path of the parameter node; None where it is empty."""
        value = NOWHERE if self.parameters is None else self.parameters.getValue(name)
        return None if value == NOWHERE else value

    def ready(self, *, training: bool = False, federated: bool = False) -> bool:
        """Whether the packages are there; asks once and installs them if not.

        Args:
            training: Those for training as well.
            federated: Those for training with other sites as well.

        Raises:
            UserError: another panel is installing some.
        """
        return self._installer.ready(training=training, federated=federated)
