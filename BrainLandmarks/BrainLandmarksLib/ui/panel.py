"""The panel of the BrainLandmarks module: its widgets on one side, a session on the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
import slicer.util

from BrainLandmarksLib import measures, resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.formats import write_csv
from BrainLandmarksLib.landmarks import LandmarkSet
from BrainLandmarksLib.models import list_models, load_shape
from BrainLandmarksLib.mrml.dataset_run import add_to_dataset
from BrainLandmarksLib.mrml.detection_run import DetectionRun, Failure, Found
from BrainLandmarksLib.mrml.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.place import PlaceOnce
from BrainLandmarksLib.mrml.session import Session
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.review import read_review, write_review
from BrainLandmarksLib.ui import requirements
from BrainLandmarksLib.ui.host import WorkerHost
from BrainLandmarksLib.ui.table import LandmarkTable, tool_tip

KEYS = {
    "N": "nextButton",
    "Shift+N": "previousButton",
    "C": "confirmButton",
    "P": "placeButton",
    "M": "missingButton",
    "R": "revertButton",
    "G": "soloButton",
    "Ctrl+Z": "undoButton",
    "Ctrl+Y": "redoButton",
}
"""Key to button, so that a review needs no mouse but for dragging."""


def told(method: Callable[..., None]) -> Callable[..., None]:
    """Show what the user can put right in the panel instead of raising it into Qt."""

    @wraps(method)
    def call(self: Any, *arguments: Any) -> None:
        try:
            self.say("")
            method(self, *arguments)
        except UserError as error:
            self.say(str(error))

    return call


class Panel:
    """Wires the widgets of BrainLandmarks.ui to detection, review and files.

    Args:
        ui: The widgets by name (`slicer.util.childWidgetVariables`).
        root: The panel itself, for shortcuts.
        host: The worker.
        setting: Reads and writes a setting of the module: setting(name) or setting(name, value).
        pictures: Folder of the landmarks' pictures, one folder for each protocol.
    """

    def __init__(
        self,
        ui: Any,
        root: Any,
        host: WorkerHost,
        setting: Callable[..., Any],
        pictures: Path,
    ) -> None:
        self.ui = ui
        self.host = host
        self.session: Session | None = None
        self.run: DetectionRun | None = None
        self._setting = setting
        self._pictures = pictures
        self._place = PlaceOnce(self._placed)
        self._preview: dict[str, Any] | None = None
        self._visited: list[str] = []
        self._detail = ""
        self.table = LandmarkTable(ui.landmarkTree, self.activate, self._show_groups)
        self._connect(root)
        self._fill_models()
        ui.previewBar.setVisible(False)
        ui.progressBar.setVisible(False)
        self.say("")
        self.refresh()

    # Life ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the scene and of a detection that is under way."""
        if self.run is not None:
            self.run.cancel()
        self._leave()

    def set_volume(self, volume: Any) -> None:
        """Another volume was chosen: show its landmarks, if it has any."""
        if self.session is not None and self.session.volume is volume and volume is not None:
            return
        self._leave()
        nodes = LandmarkNodes.of_volume(volume) if volume is not None else None
        if nodes is not None:
            try:
                self._enter(Session.resume(nodes, self._shape(nodes), self._reviewer()))
            except UserError as error:
                self.say(str(error))
        self.refresh()

    # Detecting -----------------------------------------------------------------------------------

    @told
    def detect_or_cancel(self, _checked: bool = False) -> None:
        """The one button."""
        if self.run is not None:
            self.run.cancel()
            self.host.watch()
            return
        volume = self.ui.inputSelector.currentNode()
        if volume is None:
            raise UserError("choose the MRI of a head first, or load the sample head.")
        if not self._ready():
            return
        model = str(self.ui.modelCombo.currentText)
        self.ui.progressBar.setVisible(True)
        self.ui.progressBar.setValue(0)
        self.run = run = DetectionRun(
            self.host.worker,
            volume,
            self._protocol_of(model),
            self._progress,
            partial(self._ended, volume),
            model=model,
            device=str(self.ui.deviceCombo.currentText),
            quality=str(self.ui.qualityCombo.currentText),
        )
        if run.over:  # the volume could not even be written
            self.run = None
        self.host.watch()
        self.refresh()

    def _ready(self) -> bool:
        """Whether the packages are there; asks once and installs them if not."""
        needed = requirements.missing()
        if needed and slicer.util.confirmOkCancelDisplay(needed.sentence):
            self._install(needed, None)
        return not requirements.missing()

    def _install(self, needed: requirements.Missing, folder: str | None) -> None:
        self.ui.statusLabel.setText("Installing; this takes some minutes …")
        slicer.app.processEvents()
        try:
            requirements.install(needed, folder, log=self.ui.statusLabel.setText)
        except RuntimeError as error:
            self.say(str(error), str(error.__cause__ or ""))
        else:
            self.ui.statusLabel.setText("Installed.")
            self.host.stop()  # a worker that was started without them

    @told
    def _install_from_folder(self) -> None:
        needed = requirements.missing()
        if not needed:
            self.ui.statusLabel.setText("Everything is installed already.")
            return
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.offlineButton, "Folder with the Python wheels"
        )
        if folder:
            self._install(needed, str(folder))

    def _progress(self, words: str, fraction: float, seconds: float | None) -> None:
        self.ui.progressBar.setValue(round(1000 * fraction))
        left = "" if seconds is None else f", about {max(seconds, 1):.0f} s left"
        self.ui.statusLabel.setText(f"{words[0].upper()}{words[1:]}{left} …")

    def _ended(self, volume: Any, outcome: Found | Failure | None) -> None:
        self.run = None
        self.ui.progressBar.setVisible(False)
        if outcome is None:
            self.ui.statusLabel.setText("Cancelled.")
        elif isinstance(outcome, Failure):
            self.ui.statusLabel.setText("")
            self.say(outcome.sentence, outcome.detail or self.host.worker.diagnostics())
        elif volume.GetScene() is None:
            self.say("The volume was closed while its landmarks were being found.")
        else:
            self._take(volume, outcome)
        self.refresh()

    def _take(self, volume: Any, found: Found) -> None:
        self._setting(self._time_key(), f"{found.seconds:.1f}")
        device = {"cpu": "the CPU", "cuda": "the GPU"}.get(found.source["device"], "the GPU (MPS)")
        count = int((~found.landmarks.missing).sum())
        text = f"{count} of {len(found.landmarks)} landmarks in {found.seconds:.1f} s on {device}."
        for note in found.notes:
            text += f" {note[0].upper()}{note[1:]}."
        self.ui.statusLabel.setText(text)
        session = self.session
        if session is not None and session.volume is volume and session.nodes.complete:
            keep = False
            if session.review.corrected.any():
                keep = bool(
                    slicer.util.confirmYesNoDisplay(
                        "You have corrected or confirmed landmarks of this volume. Keep them and "
                        "update the others?"
                    )
                )
            session.renew(found.landmarks, found.source, keep=keep)
            return
        self._leave()
        shape = load_shape(found.source["model"], len(found.landmarks))
        self._enter(Session.begin(volume, found.landmarks, found.source, shape, self._reviewer()))

    # Reviewing -----------------------------------------------------------------------------------

    def activate(self, label: str) -> None:
        """Go to a landmark: views, table, definition, and it can be dragged."""
        if self.session is None:
            return
        self._place.stop()
        self.session.activate(label)
        self.table.select(label)
        landmark = self.session.protocol.by_label(label)
        self.ui.definitionLabel.setText(tool_tip(landmark))
        if self.ui.soloButton.checked:
            self._solo(True)
        self.refresh()

    def next_doubtful(self, _checked: bool = False) -> None:
        """To the most doubtful point that nobody has looked at, after the active one."""
        if self.session is None:
            return
        waiting = [label for label in self.session.doubtful() if label not in self._visited]
        if not waiting:
            self._visited.clear()
            waiting = self.session.doubtful()
        if not waiting:
            self.ui.statusLabel.setText("Every landmark has been looked at.")
            return
        self._visited.append(waiting[0])
        self.activate(waiting[0])

    def previous_doubtful(self, _checked: bool = False) -> None:
        """Back to the doubtful point before."""
        if len(self._visited) > 1:
            self._visited.pop()
            self.activate(self._visited[-1])

    def _solo(self, on: bool) -> None:
        if self.session is None:
            return
        protocol = self.session.protocol
        names = [group.name for group in protocol.groups]
        if on and self.session.active is not None:
            names = [protocol.group_of(self.session.active).name]
        self.table.tick(names)
        self.session.nodes.show_groups(names)

    def _show_groups(self, names: list[str]) -> None:
        if self.session is not None:
            self.session.nodes.show_groups(names)

    def _filter(self, _text: str = "") -> None:
        self.table.show_only(str(self.ui.searchEdit.text), str(self.ui.filterCombo.currentText))

    # Correcting ----------------------------------------------------------------------------------

    @told
    def _on_active(self, name: str, advance: bool = False) -> None:
        """Do something with the active landmark: confirm, mark_missing or revert."""
        session = self.session
        if session is None or session.active is None:
            raise UserError("choose a landmark in the table first.")
        getattr(session, name)(session.active)
        if advance:
            self.next_doubtful()

    @told
    def _on_group(self, name: str) -> None:
        """Do something with the group of the active landmark: respace or project."""
        session = self.session
        if session is None or session.active is None:
            raise UserError("choose a landmark of the group in the table first.")
        getattr(session, name)(session.protocol.group_of(session.active).name)

    def _on_session(self, name: str) -> None:
        if self.session is not None:
            getattr(self.session, name)()

    def _revert_all(self) -> None:
        if self.session is not None and slicer.util.confirmOkCancelDisplay(
            "Take all corrections of this volume back? Undo brings them back."
        ):
            self.session.revert(None)

    @told
    def _place_clicked(self, on: bool) -> None:
        if not on:
            self._place.stop()
            return
        if self.session is None or self.session.active is None:
            self.ui.placeButton.checked = False
            raise UserError("choose a landmark in the table first, then click where it is.")
        self._place.start(self.session.active)

    def _placed(self, label: str, point: Any | None) -> None:
        self.ui.placeButton.checked = False
        if point is not None and self.session is not None:
            self.session.move(label, point)

    @told
    def _offer_update(self) -> None:
        if self.session is None:
            raise UserError("detect the landmarks of a volume first.")
        preview = self.session.resolved()
        if not preview:
            raise UserError("every landmark has been corrected or confirmed already.")
        moves = [
            float(np.linalg.norm(p - self.session.review.current.point(label)))
            for label, p in preview.items()
        ]
        self._preview = preview
        self.session.preview(preview)
        self.ui.previewLabel.setText(
            f"{len(moves)} points would move, {np.mean(moves):.1f} mm on average and "
            f"{np.max(moves):.1f} mm at most."
        )
        self.ui.previewBar.setVisible(True)
        self.refresh()

    def _answer_update(self, accept: bool) -> None:
        preview, self._preview = self._preview, None
        self.ui.previewBar.setVisible(False)
        if preview is None or self.session is None:
            return
        if accept:
            self.session.resolve()
        else:
            self.session.preview(None)
        self.refresh()

    # Measuring -----------------------------------------------------------------------------------

    def _measure(self, _text: str = "") -> None:
        table = self.ui.measureTable
        rows: list[tuple[str, ...]] = []
        headers = ("Distance", "mm")
        if self.session is not None:
            landmarks = self.session.review.current
            if str(self.ui.measureCombo.currentText) == "distances":
                rows = [(m.distance.name, _number(m.mm)) for m in measures.measured(landmarks)]
            else:
                headers = ("Pair", "mm")
                rows = self._asymmetry(landmarks)
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels(list(headers))
        table.setRowCount(len(rows))
        for r, cells in enumerate(rows):
            for c, text in enumerate(cells):
                table.setItem(r, c, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()

    def _asymmetry(self, landmarks: LandmarkSet) -> list[tuple[str, ...]]:
        try:
            pairs = measures.asymmetries(landmarks)
        except UserError as error:
            self.say(str(error))
            return []
        protocol = landmarks.protocol
        return [
            (protocol.by_label(p.left).name.replace("left ", "", 1), _number(p.mm)) for p in pairs
        ]

    # Files ---------------------------------------------------------------------------------------

    @told
    def _save(self) -> None:
        session = self._need_session()
        path = qt.QFileDialog.getSaveFileName(
            self.ui.saveButton, "Save landmarks", "landmarks.mrk.json", "Landmarks (*.mrk.json)"
        )
        if not path:
            return
        target = str(path)
        if not target.endswith(".mrk.json"):
            target += ".mrk.json"
        write_review(target, session.review, session.source)
        write_csv(target.removesuffix(".mrk.json") + ".csv", session.review.current)
        self.ui.statusLabel.setText(f"Saved {Path(target).name} and its .csv.")

    @told
    def _load(self) -> None:
        volume = self.ui.inputSelector.currentNode()
        if volume is None:
            raise UserError("choose the volume that the landmarks belong to first.")
        path = qt.QFileDialog.getOpenFileName(
            self.ui.loadButton, "Load landmarks", "", "Landmarks (*.mrk.json *.json)"
        )
        if not path:
            return
        protocol = self._protocol_of(str(self.ui.modelCombo.currentText))
        review, source = read_review(str(path), protocol)
        self._leave()
        shape = load_shape(str(self.ui.modelCombo.currentText), len(protocol))
        session = Session.begin(volume, review.found, source, shape, self._reviewer())
        review.reviewer = self._reviewer()
        session.adopt(review)
        self._enter(session)
        self.refresh()

    @told
    def _add_to_dataset(self) -> None:
        session = self._need_session()
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.datasetButton, "Dataset folder (a new one is made in an empty folder)"
        )
        if not folder:
            return
        self.ui.statusLabel.setText("Adding to the dataset …")
        add_to_dataset(self.host.worker, session, str(folder), self._added)
        self.host.watch()

    def _added(self, outcome: int | Failure) -> None:
        if isinstance(outcome, Failure):
            self.ui.statusLabel.setText("")
            self.say(outcome.sentence, outcome.detail)
        else:
            heads = "1 head" if outcome == 1 else f"{outcome} heads"
            self.ui.statusLabel.setText(f"Added; the dataset has {heads} now.")

    # Messages ------------------------------------------------------------------------------------

    def say(self, sentence: str, detail: str = "") -> None:
        """One sentence at the top of the panel; an empty one takes it away."""
        text = sentence[:1].upper() + sentence[1:]
        self._detail = f"{text}\n{detail}" if detail else text
        self.ui.messageLabel.setText(text)
        self.ui.messageBar.setVisible(bool(text))

    def _copy_diagnostics(self) -> None:
        text = f"{self._detail}\n\n{self.host.worker.diagnostics()}"
        slicer.app.clipboard().setText(text)

    # Inside --------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """What can be clicked now."""
        ui, session = self.ui, self.session
        active = session is not None and session.active is not None and self._preview is None
        ui.detectButton.setText("Cancel" if self.run is not None else "Detect landmarks")
        for name in (
            "confirmButton", "placeButton", "missingButton", "revertButton", "respaceButton",
            "projectButton", "soloButton",
        ):  # fmt: skip
            getattr(ui, name).setEnabled(active)
        for name in (
            "nextButton", "previousButton", "revertAllButton", "resolveButton", "saveButton",
            "datasetButton",
        ):  # fmt: skip
            getattr(ui, name).setEnabled(session is not None and self._preview is None)
        review = session.review if session is not None else None
        ui.undoButton.setEnabled(review is not None and review.can_undo)
        ui.redoButton.setEnabled(review is not None and review.can_redo)

    def _enter(self, session: Session) -> None:
        self.session = session
        session.snap = str(self.ui.snapCombo.currentText)
        session.listeners.append(self._changed)
        session.on_error = self.say
        self._visited.clear()
        self.table.fill(session.protocol, self._pictures / session.protocol.name)
        self.table.update(session.review.current)
        self._filter()
        self._measure()

    def _leave(self) -> None:
        self._place.stop()
        self._preview = None
        self.ui.previewBar.setVisible(False)
        if self.session is not None:
            self.session.end()
            self.session = None
        self.table.clear()
        self.ui.definitionLabel.setText("")

    def _changed(self, labels: list[str]) -> None:
        assert self.session is not None
        self.table.update(self.session.review.current, labels)
        self._filter()
        self._measure()
        self.refresh()

    def _need_session(self) -> Session:
        if self.session is None:
            raise UserError("there are no landmarks yet; detect or load some first.")
        return self.session

    def _reviewer(self) -> str:
        return str(self.ui.reviewerEdit.text).strip()

    def _shape(self, nodes: LandmarkNodes) -> Any:
        _, source = nodes.restore()
        name = source.get("model")
        if name is None or name not in resources.model_names():
            return None
        return load_shape(str(name), len(nodes.protocol))

    def _protocol_of(self, model: str) -> Any:
        summary = next((m for m in list_models() if m.name == model), None)
        if summary is None:
            raise UserError("no model is installed; install BrainLandmarks again.")
        return load_protocol(summary.protocol)

    def _time_key(self) -> str:
        return f"seconds/{self.ui.deviceCombo.currentText}/{self.ui.qualityCombo.currentText}"

    def _estimate(self, _text: str = "") -> None:
        seconds = self._setting(self._time_key())
        if seconds and self.run is None:
            self.ui.statusLabel.setText(f"Took {float(seconds):.0f} s the last time.")

    def _fill_models(self) -> None:
        self.ui.modelCombo.clear()
        for summary in list_models():
            self.ui.modelCombo.addItem(summary.name)

    def _reviewer_changed(self) -> None:
        self._setting("reviewer", self._reviewer())
        if self.session is not None:
            self.session.review.reviewer = self._reviewer()

    def _snap_changed(self, text: str) -> None:
        if self.session is not None:
            self.session.snap = str(text)

    def _connect(self, root: Any) -> None:
        ui = self.ui
        clicks = {
            ui.detectButton: self.detect_or_cancel,
            ui.nextButton: self.next_doubtful,
            ui.previousButton: self.previous_doubtful,
        }
        for button, slot in clicks.items():
            button.connect("clicked(bool)", slot)
        plain = {
            ui.confirmButton: partial(self._on_active, "confirm", True),
            ui.missingButton: partial(self._on_active, "mark_missing", False),
            ui.revertButton: partial(self._on_active, "revert", False),
            ui.respaceButton: partial(self._on_group, "respace"),
            ui.projectButton: partial(self._on_group, "project"),
            ui.undoButton: partial(self._on_session, "undo"),
            ui.redoButton: partial(self._on_session, "redo"),
            ui.revertAllButton: self._revert_all,
            ui.resolveButton: self._offer_update,
            ui.acceptButton: partial(self._answer_update, True),
            ui.discardButton: partial(self._answer_update, False),
            ui.saveButton: self._save,
            ui.loadButton: self._load,
            ui.datasetButton: self._add_to_dataset,
            ui.diagnosticsButton: self._copy_diagnostics,
            ui.offlineButton: self._install_from_folder,
        }
        for button, action in plain.items():
            # clicked(bool) would pass its bool to a partial; the lambda swallows it.
            button.connect("clicked(bool)", lambda _checked, action=action: action())
        ui.placeButton.connect("toggled(bool)", self._place_clicked)
        ui.soloButton.connect("toggled(bool)", self._solo)
        ui.searchEdit.connect("textChanged(QString)", self._filter)
        ui.filterCombo.connect("currentTextChanged(QString)", self._filter)
        ui.measureCombo.connect("currentTextChanged(QString)", self._measure)
        ui.snapCombo.connect("currentTextChanged(QString)", self._snap_changed)
        ui.deviceCombo.connect("currentTextChanged(QString)", self._estimate)
        ui.qualityCombo.connect("currentTextChanged(QString)", self._estimate)
        ui.reviewerEdit.connect("editingFinished()", self._reviewer_changed)
        self._shortcuts = []
        for keys, name in KEYS.items():
            shortcut = qt.QShortcut(qt.QKeySequence(keys), root)
            shortcut.connect("activated()", getattr(ui, name).click)
            self._shortcuts.append(shortcut)


def _number(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "–"
