"""The section Import: folders, single heads, label maps, and landmarks for the loaded case."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib.cli.terminal import ERROR
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.review import read_review
from BrainLandmarksLib.ui.common.section import Section, reports_errors
from BrainLandmarksLib.worker.command_run import CommandRun
from BrainLandmarksLib.worker.messages import Message

from . import landmarks_module
from .dataset import need_case

POLL_MS = 100
LANDMARKS = "Landmarks (*.mrk.json *.json *.csv *.fcsv)"
IMAGES = "Images (*.nii *.nii.gz *.mgz *.mgh *.nrrd *.nhdr *.mha *.mhd)"


class ImportSection(Section):
    """Brings heads into the open dataset."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.run: CommandRun | None = None
        self._lines: list[tuple[str, bool]] = []
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)
        self.on_click(
            {
                "importFolderButton": self.folder,
                "importFilesButton": self.files,
                "importLabelsButton": self.labels,
                "importLandmarksButton": self.landmarks,
            }
        )

    def close(self) -> None:
        """End an import of a folder; what it has added stays."""
        self._timer.stop()
        if self.run is not None:
            self.run.kill()
            self.run = None

    # A folder: `brainlandmarks dataset create --add` ---------------------------------------------

    @reports_errors
    def folder(self) -> None:
        """All images of a folder that have landmark files."""
        dataset = self.panel.dataset.need()
        if self.run is not None:
            raise UserError("a folder is being imported already; wait until it is done.")
        if not self.panel.ready():
            return
        source = qt.QFileDialog.getExistingDirectory(
            self.ui.importFolderButton, "Folder of images and landmark files"
        )
        if not source:
            return
        arguments = ["dataset", "create", str(source), "-o", str(dataset.folder), "--add"]
        self._lines.clear()
        try:
            self.run = CommandRun([*arguments, "--protocol", self._protocol()])
        except OSError as error:
            raise UserError(f"Python cannot be started: {error}.") from None
        self.ui.datasetInfoLabel.setText("Importing …")
        self._timer.start()

    def _protocol(self) -> str:
        dataset = self.panel.dataset.need()
        own = dataset.folder / "protocol.json"
        return str(own) if own.exists() else str(dataset.protocol.name)

    @reports_errors
    def _poll(self) -> None:
        if self.run is None:
            return
        code = self.run.poll(lambda line, error: self._lines.append((line, error)))
        if code is None:
            return
        self._timer.stop()
        self.run = None
        self.panel.dataset.open()
        errors = [line.removeprefix(ERROR) for line, _ in self._lines if line.startswith(ERROR)]
        ends = [line for line, error in self._lines if not error]
        self.ui.datasetInfoLabel.setText(f"{ends[-1]}." if ends else "Nothing was imported.")
        if errors:
            raise UserError(" ".join(errors))
        if code not in (0, 2):
            raise UserError(f"the import ended with code {code}.")

    # One head: the worker ------------------------------------------------------------------------

    @reports_errors
    def files(self) -> None:
        """An image and its landmark file."""
        if not self.panel.ready():
            return
        dataset = self.panel.dataset.need()
        image = self._ask("importFilesButton", "Image", IMAGES)
        landmarks = image and self._ask("importFilesButton", "Landmarks of the image", LANDMARKS)
        if landmarks:
            read_review(landmarks, dataset.protocol)  # refused here, before the image is read
            self._add(image, landmarks, None)

    @reports_errors
    def labels(self) -> None:
        """An image and a label map of it, whose landmarks are placed by rule."""
        if not self.panel.ready():
            return
        self.panel.dataset.need()
        image = self._ask("importLabelsButton", "Image", IMAGES)
        labels = image and self._ask("importLabelsButton", "Label map of the image", IMAGES)
        if not labels:
            return
        place = Path(tempfile.mkdtemp(prefix="brainlandmarks-"))
        self.ui.datasetInfoLabel.setText("Placing the landmarks by rule …")
        self.panel.host.worker.request(
            "annotate",
            lambda message: self._annotated(message, image, place),
            labels=labels,
            output=str(place / "landmarks.mrk.json"),
        )
        self.panel.host.watch()

    @reports_errors
    def _annotated(self, message: Message, image: str, place: Path) -> None:
        if message["type"] == "result":
            self._add(image, message["output"], place, message["notes"])
        elif message["type"] != "progress":
            self._ended(message, place)

    def _add(
        self, image: str, landmarks: str, place: Path | None, notes: Sequence[str] = ()
    ) -> None:
        dataset = self.panel.dataset.need()
        self.ui.datasetInfoLabel.setText("Adding to the dataset …")
        self.panel.host.worker.request(
            "add",
            lambda message: self._ended(message, place, notes),
            image=image,
            landmarks=landmarks,
            protocol=self._protocol(),
            dataset=str(dataset.folder.absolute()),
        )
        self.panel.host.watch()

    @reports_errors
    def _ended(self, message: Message, place: Path | None, so_far: Sequence[str] = ()) -> None:
        if message["type"] == "progress":
            return
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        self.panel.dataset.open()
        if message["type"] == "error":
            raise UserError(message["message"])
        if message["type"] == "result":
            notes = "".join(f" Note: {note}." for note in (*so_far, *message["notes"]))
            self.ui.datasetInfoLabel.setText(f"Added as case {message['entry']}.{notes}")

    # The loaded case -----------------------------------------------------------------------------

    @reports_errors
    def landmarks(self) -> None:
        """The landmarks of a file in place of the loaded case's."""
        case = need_case()
        path = self._ask("importLandmarksButton", "Landmarks of the loaded case", LANDMARKS)
        if not path:
            return
        review, source = read_review(path, case.nodes.protocol)
        self.panel.guidelines.end_preview()
        landmarks_module.release(case.volume)
        case.replace(review, source)
        landmarks_module.take_up(case.volume)
        self.panel.case_changed()
        self.ui.datasetInfoLabel.setText("Loaded; Save case writes them into the dataset.")

    def _ask(self, button: str, title: str, kinds: str) -> str:
        return str(qt.QFileDialog.getOpenFileName(getattr(self.ui, button), title, "", kinds))
