"""The tab Dataset: the table of cases; loading, saving, checking and splitting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.ratings import mean_distances, raters_of, ratings_of
from BrainLandmarksLib.dataset.split import split_dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import model_protocol
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.worker.messages import Message
from BrainLandmarksTrainLib.mrml.case import Case

from . import landmarks_module

CASE, ANNOTATOR, PLACED, CHECKS, SPLIT, AGREEMENT = range(6)
HEADERS = ("Case", "Annotator", "Placed", "Checks", "Split", "Raters, mm")
ROW_PX, SHOWN_ROWS = 26, 6


class DatasetTab(Section):
    """Shows a dataset folder and the case of it that is in the scene."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.dataset: Dataset | None = None
        self._found: dict[str, list[str]] = {}
        self._read: dict[Path, tuple[int, str, str]] = {}
        table = self.ui.caseTable
        table.setColumnCount(len(HEADERS))
        table.setHorizontalHeaderLabels(list(HEADERS))
        table.verticalHeader().setVisible(False)
        table.setMinimumHeight(ROW_PX * SHOWN_ROWS)
        table.horizontalHeader().setSectionResizeMode(CHECKS, qt.QHeaderView.Stretch)
        table.connect("cellDoubleClicked(int,int)", self._double_clicked)
        table.connect("itemSelectionChanged()", self.update)
        self.ui.raterEdit.connect("editingFinished()", self._rater_changed)
        self.on_click(
            {
                "createDatasetButton": self.create,
                "loadCaseButton": self.load_chosen,
                "saveCaseButton": self.save,
                "checkButton": self.check,
                "splitButton": self.split,
            }
        )
        self.update()

    def bind(self) -> None:
        """Show the dataset that the parameter node names."""
        self.open()

    def close(self) -> None:
        """Nothing to stop."""

    def changed_parameters(self, names: set[str]) -> None:
        """The parameter node has other values of these names."""
        if "dataset" in names:
            self.open()
        elif "blinded" in names:
            self.show()

    @heard
    def _rater_changed(self) -> None:
        self.show()

    # The folder ----------------------------------------------------------------------------------

    @reports_errors
    def open(self) -> None:
        """Read the chosen folder again and show it."""
        folder, before = self.panel.path("dataset"), self.dataset
        self.dataset = None
        if folder is not None and folder.exists():
            try:
                self.dataset = Dataset.open(folder)
            finally:
                if before is None or self.dataset is None or before.folder != self.dataset.folder:
                    self._found = {}
                self.show()
        else:
            self.show()

    @reports_errors
    def create(self) -> None:
        """An empty dataset for the landmarks of the model to start from."""
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.createDatasetButton, "New or empty folder for the dataset"
        )
        if folder:
            Dataset.create(str(folder), self.protocol())
            self.panel.parameters.dataset = Path(folder)
            self.open()

    def protocol(self) -> Protocol:
        """The landmarks of the dataset, or, before there is one, of the model to start from.

        Raises:
            UserError: no such model.
        """
        if self.dataset is not None:
            return self.dataset.protocol
        return model_protocol(str(self.panel.parameters.startModel))

    def need(self) -> Dataset:
        """The dataset.

        Raises:
            UserError: none is open.
        """
        if self.dataset is None:
            raise UserError("choose or make a dataset folder first.")
        return self.dataset

    # The table -----------------------------------------------------------------------------------

    def show(self) -> None:
        """Fill the table."""
        table, dataset = self.ui.caseTable, self.dataset
        entries = () if dataset is None else dataset.entries
        agreement = {} if dataset is None else self._agreement(dataset)
        chosen = self._chosen()
        table.setRowCount(len(entries))
        for row, entry in enumerate(entries):
            for column, (text, tip) in enumerate(self._cells(entry, agreement)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(tip)
                table.setItem(row, column, item)
            if chosen is not None and entry.identity == chosen.identity:
                table.selectRow(row)
        table.setColumnHidden(AGREEMENT, bool(self.ui.blindedCheck.checked) or not agreement)
        for column in (CASE, ANNOTATOR, PLACED, SPLIT, AGREEMENT):
            table.resizeColumnToContents(column)
        self.ui.datasetInfoLabel.setText(self._summary())
        self.update()
        self.panel.training.update()

    def _cells(self, entry: Entry, agreement: dict[str, float]) -> list[tuple[str, str]]:
        placed, trouble = self._placed(entry)
        mistakes = self._found.get(entry.identity)
        checks = "" if mistakes is None else "good" if not mistakes else f"{len(mistakes)} mistakes"
        apart = agreement.get(entry.identity)
        who = "" if self.ui.blindedCheck.checked else entry.who
        return [
            (entry.identity, f"subject {entry.subject}" if entry.subject else ""),
            (who or "–", f"added {entry.added}"),
            (placed, trouble),
            (checks, "\n".join(mistakes or ())),
            (entry.split or "–", ""),
            ("" if apart is None else f"{apart:.1f}", "mean distance between the raters"),
        ]

    def _placed(self, entry: Entry) -> tuple[str, str]:
        """How many landmarks are there, or what is wrong; a file is read once, and when it changes.

        Reading takes some milliseconds, which a thousand cases would make seconds of.
        """
        assert self.dataset is not None
        file = self.dataset.folder / entry.landmarks
        stamp = file.stat().st_mtime_ns if file.is_file() else 0
        if self._read.get(file, ())[:1] != (stamp,):
            try:
                missing = self.dataset.read_landmarks(entry).current.missing
                words = f"{int((~missing).sum())} of {len(missing)}", ""
            except UserError as error:
                words = "unreadable", str(error)
            self._read[file] = (stamp, *words)
        return self._read[file][1:]

    def _agreement(self, dataset: Dataset) -> dict[str, float]:
        """Distance between the raters per case: the one who is named, or the first there is."""
        names = raters_of(dataset)
        named = str(self.ui.raterEdit.text).strip()
        rater = named if named in names else (names[0] if names and not named else "")
        try:
            return mean_distances(ratings_of(dataset, rater)) if rater else {}
        except UserError:
            return {}

    def _summary(self) -> str:
        if self.dataset is None:
            return "No dataset is open."
        protocol = self.dataset.protocol
        case = Case.in_scene()
        text = f"{len(self.dataset)} cases with the landmarks of {protocol.name}."
        if case is not None:
            of = f" for {case.rater}" if case.rater else ""
            text += f" Case {case.identity} is loaded{of}."
        return text

    def _chosen(self) -> Entry | None:
        row = int(self.ui.caseTable.currentRow())
        entries = () if self.dataset is None else self.dataset.entries
        return entries[row] if 0 <= row < len(entries) else None

    @heard
    def update(self) -> None:
        """What can be clicked now."""
        case, there = Case.in_scene(), self.dataset is not None
        self.ui.loadCaseButton.setEnabled(self._chosen() is not None)
        self.ui.saveCaseButton.setEnabled(case is not None)
        for name in ("checkButton", "splitButton"):
            getattr(self.ui, name).setEnabled(there and len(self.dataset or ()) > 0)

    # Cases ---------------------------------------------------------------------------------------

    @reports_errors
    def _double_clicked(self, _row: int, _column: int) -> None:
        if self.load_case():
            case = Case.in_scene()
            assert case is not None
            landmarks_module.correct(case.volume)

    @reports_errors
    def load_chosen(self) -> None:
        """Load the chosen case and stay here."""
        self.load_case()

    def load_case(self) -> bool:
        """Load the chosen case in place of the one that is loaded; asks before changes are lost.

        Raises:
            UserError: none is chosen, or it cannot be loaded.
        """
        entry, dataset = self._chosen(), self.need()
        if entry is None:
            raise UserError("choose a case in the table first.")
        rater = ""
        if self.ui.blindedCheck.checked:
            rater = str(self.ui.raterEdit.text).strip()
            if not rater:
                raise UserError("write the second rater's name or initials first.")
        self.panel.guidelines.end_preview()
        old = Case.in_scene()
        if old is not None:
            if old.changed and not slicer.util.confirmOkCancelDisplay(
                f"Case {old.identity} has changes that are not saved. Load another case?"
            ):
                return False
            landmarks_module.release(old.volume)
        case = Case.load(dataset, entry, rater, str(self.panel.preference("reviewer")))
        slicer.util.setSliceViewerLayers(background=case.volume, fit=True)
        self.panel.case_changed()
        return True

    @reports_errors
    def save(self) -> None:
        """Write the loaded case back."""
        self.panel.guidelines.need_decided()
        sentence = need_case().save()
        self.open()
        self.panel.case_changed()
        self.ui.datasetInfoLabel.setText(sentence)

    @reports_errors
    def split(self) -> None:
        """Put every case into a split; those that are in one stay there."""
        counts = split_dataset(self.need())
        self.show()
        words = ", ".join(f"{count} {name}" for name, count in counts.items())
        self.ui.datasetInfoLabel.setText(f"Split by subject: {words}.")

    @reports_errors
    def check(self) -> None:
        """Let the worker check every file and landmark."""
        if not self.panel.ready():
            return
        dataset = self.need()
        self.ui.datasetInfoLabel.setText("Checking every file and landmark …")
        self.ui.checkButton.setEnabled(False)
        folder = str(dataset.folder.absolute())
        self.panel.host.worker.request("check", self._checked, dataset=folder)
        self.panel.host.watch()

    @reports_errors
    def _checked(self, message: Message) -> None:
        if message["type"] == "progress":
            return
        self._found = message["heads"] if message["type"] == "result" else {}
        self.show()
        if message["type"] == "error":
            raise UserError(message["message"])
        if message["type"] == "result":
            wrong = sum(1 for mistakes in self._found.values() if mistakes)
            whole = [*message["mistakes"], *message["notes"]]
            words = "All cases are good." if not wrong else f"{wrong} cases have mistakes."
            self.ui.datasetInfoLabel.setText(" ".join([words, *(f"{t}." for t in whole)]))


def need_case() -> Case:
    """The case in the scene.

    Raises:
        UserError: none is loaded.
    """
    case = Case.in_scene()
    if case is None:
        raise UserError("load a case first: double-click it in the table.")
    landmarks_module.end_preview()
    return case
