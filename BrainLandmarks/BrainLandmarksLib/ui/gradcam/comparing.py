"""The part of the panel that sets a second model's map beside the first one's."""

from __future__ import annotations

from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.gradcam.map_views import SideBySide
from BrainLandmarksLib.network.model_files import model_protocol
from BrainLandmarksLib.ui.common.section import Section, reports_errors
from BrainLandmarksLib.ui.gradcam.models import ModelBox
from BrainLandmarksLib.ui.gradcam.showing import RIGHT

NOBODY = "no comparison"


class CompareSection(Section):
    """The second model, and the plane in which both are looked at."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._models = ModelBox(self.ui.compareCombo, none=NOBODY)
        self.views = SideBySide()
        self.on_click({"compareFolderButton": self._add_model})
        self.ui.compareCombo.connect("currentIndexChanged(int)", self._changed)
        self.ui.planeCombo.connect("currentTextChanged(QString)", self._turn)

    @property
    def model(self) -> str:
        """Name or folder of the second model; empty for no comparison."""
        return self._models.model

    @property
    def model_title(self) -> str:
        """The second model as the user sees it."""
        return self._models.title

    @property
    def on(self) -> bool:
        """Whether two views stand side by side."""
        return self.views.on

    def enter(self) -> None:
        """A volume was chosen: arrange the views, if there is a second model."""
        if self.model:
            self.views.start(self._plane())

    def leave(self) -> None:
        """Put the views back."""
        self.views.stop()

    @reports_errors
    def _add_model(self) -> None:
        self._models.add_folder()

    @reports_errors
    def _changed(self, _index: int) -> None:
        if self.model:
            own, other = self.panel.choosing.protocol, model_protocol(self.model)
            if own.labels != other.labels:
                self.ui.compareCombo.setCurrentIndex(0)
                raise UserError("the two models have different landmarks; choose another one.")
            if self.panel.maps is not None:
                self.enter()
        else:
            self.views.stop()
            self.panel.showing.drop(RIGHT)
        self.panel.showing.draw()
        self.panel.mapping.show()

    @reports_errors
    def _turn(self, _text: str) -> None:
        if self.on:
            self.views.start(self._plane())
            self.panel.mapping.show()

    def _plane(self) -> str:
        return str(self.ui.planeCombo.currentText).capitalize()
