"""The section Save: landmark files out and in, and datasets for training."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks.fcsv import write_fcsv
from BrainLandmarksLib.io.landmarks.table import write_csv
from BrainLandmarksLib.mrml.landmarks.dataset_run import add_to_dataset
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.protocol.compliance import turned_round
from BrainLandmarksLib.review import read_review, write_review
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection
from BrainLandmarksLib.ui.landmarks.source_model import shape_of

SUFFIX = ".mrk.json"


class SaveSection(SessionSection):
    """Save, load, add to a dataset."""

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self.on_click(
            {
                "saveButton": self.save,
                "loadButton": self.load,
                "datasetButton": self.add,
            }
        )

    def refresh(self, session: Session | None) -> None:
        """Without landmarks there is nothing to save."""
        free = session is not None and not self.panel.previewing
        self.ui.saveButton.setEnabled(free)
        self.ui.datasetButton.setEnabled(free)

    @reports_errors
    def save(self) -> None:
        """One .mrk.json with all lists and the record, a .csv, and on request an .fcsv."""
        session = self.panel.need_session()
        chosen = qt.QFileDialog.getSaveFileName(
            self.ui.saveButton, "Save landmarks", f"landmarks{SUFFIX}", f"Landmarks (*{SUFFIX})"
        )
        if not chosen:
            return
        base = str(chosen).removesuffix(SUFFIX)
        write_review(base + SUFFIX, session.review, session.source)
        write_csv(base + ".csv", session.review.current)
        others = [".csv"]
        if self.ui.fcsvCheck.checked:
            write_fcsv(base + ".fcsv", session.review.current)
            others.append(".fcsv")
        self.panel.status(f"Saved {Path(base).name}{SUFFIX} and its {' and '.join(others)}.")

    @reports_errors
    def load(self) -> None:
        """Landmarks of the chosen volume from a file, with their record."""
        volume = self.panel.volume()
        if volume is None:
            raise UserError("choose the volume that the landmarks belong to first.")
        chosen = qt.QFileDialog.getOpenFileName(
            self.ui.loadButton, "Load landmarks", "", f"Landmarks (*{SUFFIX} *.json)"
        )
        if not chosen:
            return
        protocol = self.panel.protocol()
        review, source = read_review(str(chosen), protocol, any_pose=True)
        turned = turned_round(protocol, review.current.points)
        if turned and not slicer.util.confirmOkCancelDisplay(
            f"{Path(str(chosen)).name}: {turned}. Load it?"
        ):
            return
        if self._would_lose() and not slicer.util.confirmOkCancelDisplay(
            "The landmarks of this volume have corrections that the file replaces. Load it?"
        ):
            return
        review.reviewer = self.panel.reviewer()
        # A file that does not say which model found its landmarks: the chosen one has to do.
        shape = shape_of({"model": self.panel.model(), **source}, protocol)
        self.panel.leave()
        session = Session.begin(volume, review.found, source, shape, review.reviewer)
        session.adopt(review)
        self.panel.enter(session)
        self.panel.refresh()

    def _would_lose(self) -> bool:
        return self.session is not None and bool(self.session.review.corrected.any())

    @reports_errors
    def add(self) -> None:
        """Image and landmarks to a dataset folder; the worker writes them."""
        session = self.panel.need_session()
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.datasetButton, "Dataset folder (a new one is made in an empty folder)"
        )
        if not folder:
            return
        self.panel.status("Adding to the dataset …")
        add_to_dataset(self.panel.host.worker, session, str(folder), self._added)
        self.panel.host.watch()

    @heard
    def _added(self, outcome: int | Failure) -> None:
        if isinstance(outcome, Failure):
            self.panel.status("")
            self.show_error(outcome.sentence, outcome.detail)
        else:
            heads = "1 head" if outcome == 1 else f"{outcome} heads"
            self.panel.status(f"Added; the dataset has {heads} now.")
