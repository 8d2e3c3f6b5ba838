"""The section Before and after: what a finished training has brought, and using its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import summarise
from BrainLandmarksLib.ui.common.preferences import add_model
from BrainLandmarksLib.ui.common.section import Section, reports_errors

MODEL, REPORT = "model", "report"
NAMES = ("model_comparison", "before_after")
"""Of the page and the picture of a comparison, and what they were called formerly."""


class ReportSection(Section):
    """Shows the report in the folder of a run."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._folder: Path | None = None
        self.on_click({"useButton": self.use})
        self.clear()

    def clear(self) -> None:
        """Nothing to show."""
        self._folder = None
        self.ui.reportSection.setVisible(False)

    def show(self, folder: Path) -> None:
        """Show what a run has brought, if it has brought something."""
        self.clear()
        try:
            model = summarise(folder / MODEL)
        except UserError:
            return
        self._folder = folder
        pages = [folder / REPORT / f"{name}.md" for name in NAMES]
        page = next((path for path in pages if path.is_file()), pages[0])
        measured, picture = page.is_file(), page.with_suffix(".png")
        self.ui.reportLabel.setText(
            f"{model.name}: {model.landmarks} landmarks of {model.protocol}."
            + ("" if measured else " It started from no model, so there is nothing to compare.")
        )
        self.ui.reportView.setVisible(measured)
        self.ui.reportPicture.setVisible(False)
        if measured:
            self.ui.reportView.setMarkdown(page.read_text(encoding="utf-8"))
        if measured and picture.is_file():
            self.panel.show_picture(self.ui.reportPicture, picture)
        self.ui.useButton.setEnabled(True)
        self.ui.useButton.setText("Use this model")
        self.ui.reportSection.setVisible(True)
        self.ui.reportSection.collapsed = False

    @reports_errors
    def use(self) -> None:
        """Offer the model in the module Brain Landmarks and choose it there."""
        if self._folder is None:
            raise UserError("there is no new model; train one first.")
        add_model(self._folder / MODEL)
        self.ui.useButton.setText("Brain Landmarks uses this model")
        self.ui.useButton.setEnabled(False)
        self.panel.training.form.fill_models()
