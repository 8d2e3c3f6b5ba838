"""The section Second rater and agreement."""

from __future__ import annotations

from typing import Any

from BrainLandmarksLib.agreement.ratings import group_table
from BrainLandmarksLib.dataset.ratings import raters_of, ratings_of
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.ui.common.section import Section, reports_errors
from BrainLandmarksTrainLib.mrml.agreement_plots import plot_agreement
from BrainLandmarksTrainLib.mrml.plots import show_in_layout


class RatersSection(Section):
    """Compares the dataset's annotations with a second rater's."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.on_click({"agreementButton": self.plot})

    @reports_errors
    def plot(self) -> None:
        """Tables and charts of the agreement, as nodes of the scene."""
        dataset = self.panel.dataset.need()
        rater = str(self.ui.raterEdit.text).strip()
        if not rater:
            names = ", ".join(raters_of(dataset)) or "there is none yet"
            raise UserError(f"write the second rater's name first ({names}).")
        if self.ui.blindedCheck.checked:
            raise UserError("agreement would reveal the first annotation; end blinding first.")
        ratings = ratings_of(dataset, rater)
        charts = plot_agreement(ratings)
        show_in_layout(*charts)
        table = group_table(ratings)
        whole = dict(zip(table.header, table.rows[-1], strict=True))
        self.ui.agreementLabel.setText(
            f"{len(ratings.heads)} cases, {whole['points']} points: {whole['mean']:.2f} mm apart "
            f"on average, median {whole['median']:.2f}, 90 % within {whole['p90']:.2f}; "
            f"ICC(2,1) {whole['ICC(2,1)']:.2f}."
        )
        self.panel.dataset.show()
