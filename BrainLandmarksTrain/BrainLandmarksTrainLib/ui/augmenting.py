"""The tab Augmentation: the policies and how often, and what they do to the loaded case."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer.util

from BrainLandmarksLib.cli.terminal import ERROR
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.worker.command_run import CommandRun
from BrainLandmarksTrainLib.augmentation import AugmentationConfig, Record, load_augmentation
from BrainLandmarksTrainLib.augmentation.config import SIDES, TRANSFORMS, Policy
from BrainLandmarksTrainLib.augmentation.policies import choose
from BrainLandmarksTrainLib.mrml.case import Case
from BrainLandmarksTrainLib.mrml.preview import dataset_of_case, remove_preview, show_variation

from .dataset import need_case

POLL_MS = 100
SHEET = 12
"""Variations on a contact sheet are of so many scans; it shows one of each kind."""
BY_CHANCE = "by chance"
POLICIES = ("DA1", "DA2", "DA3", "DA4", "DA5")
_ORIGIN, _SHEET_FILE = "augmentation", "contact_sheet.png"


class AugmentationTab(Section):
    """Policies and probabilities; previews are made by `brainlandmarks augment`."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.run: CommandRun | None = None
        self._folder: Path | None = None
        self._case: Case | None = None
        self._done: Callable[[Path], None] = lambda folder: None
        self._errors: list[str] = []
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)
        ui = self.ui
        ui.sheetPicture.setVisible(False)
        self.on_click(
            {
                "writePolicyButton": self.write,
                "previewButton": self.preview,
                "sheetButton": self.sheet,
                "removePreviewButton": self.remove,
            }
        )

    def bind(self) -> None:
        """Show what the parameter node says."""
        self.update()

    def close(self) -> None:
        """End a preview that is being made."""
        self._timer.stop()
        if self.run is not None:
            self.run.kill()
            self.run = None
        self._clean()

    def _spin(self, name: str) -> Any:
        return getattr(self.ui, f"p{name}Spin")

    # Settings ------------------------------------------------------------------------------------

    def config(self) -> AugmentationConfig:
        """Policies and ranges: those of the file or the paper's, with the panel's probabilities.

        Raises:
            UserError: the file is wrong, or the probabilities do not add up to 1.
        """
        base = self._base()
        if set(base.policies) != set(POLICIES):
            return base
        parameters = self.panel.parameters
        return replace(
            base,
            policies={
                name: Policy(
                    float(parameters.getValue(f"probability{name}")), base.policies[name].apply
                )
                for name in base.policies
            },
        )

    def _base(self) -> AugmentationConfig:
        file = self.panel.path("policyFile")
        return AugmentationConfig() if file is None else load_augmentation(file)

    def changed_parameters(self, names: set[str]) -> None:
        """The parameter node has other values of these names."""
        if "policyFile" in names:
            self._file_changed()
        self.update()

    @reports_errors
    def _file_changed(self) -> None:
        """A file brings its own probabilities."""
        file = self.panel.path("policyFile")
        if file is None or not file.is_file():
            return
        for name, policy in load_augmentation(file).policies.items():
            if name in POLICIES:
                self.panel.parameters.setValue(f"probability{name}", float(policy.probability))

    def update(self) -> None:
        """What the policies do, whether they add up, and what can be clicked."""
        ui = self.ui
        try:
            base, trouble = self._base(), ""
        except UserError as error:
            base, trouble = AugmentationConfig(), str(error)
        own = set(base.policies) != set(POLICIES)
        for name in POLICIES:
            policy = base.policies.get(name)
            getattr(ui, f"p{name}Text").setText("" if policy is None else _words(policy))
            self._spin(name).setEnabled(not own)
        if own and not trouble:
            trouble = f"The file has policies of its own: {', '.join(base.policies)}."
        elif not trouble and self.panel.parameters is not None:
            try:
                self.config()
            except UserError as error:
                trouble = str(error)
        ui.probabilityLabel.setText(trouble[:1].upper() + trouble[1:])
        there = Case.in_scene() is not None and self.run is None
        for name in ("previewButton", "sheetButton"):
            getattr(ui, name).setEnabled(there)

    @reports_errors
    def write(self) -> None:
        """All settings as a file, to change the ranges in it."""
        chosen = qt.QFileDialog.getSaveFileName(
            self.ui.writePolicyButton, "Save settings", "augmentation.json", "Settings (*.json)"
        )
        if chosen:
            _write(self.config(), Path(str(chosen)))
            self.panel.parameters.policyFile = Path(str(chosen))
            self.update()

    # Previews ------------------------------------------------------------------------------------

    @reports_errors
    def preview(self) -> None:
        """One variation of the loaded case, in the scene; the same seed gives the same one."""
        config, seed = self.config(), int(self.panel.parameters.seed)
        name = str(self.panel.parameters.previewPolicy)
        if name == BY_CHANCE:
            name = choose(config, np.random.default_rng([seed, 0]))
        if name not in config.policies:
            raise UserError(f"the settings file has no policy {name}; choose {BY_CHANCE}.")
        alone = replace(config, policies={name: Policy(1.0, config.policies[name].apply)})
        self._start(alone, seed, 1, self._show)

    @reports_errors
    def sheet(self) -> None:
        """One picture of many variations of the loaded case."""
        self._start(self.config(), int(self.panel.parameters.seed), SHEET, self._show_sheet)

    @reports_errors
    def remove(self) -> None:
        """Take the preview out of the scene."""
        remove_preview()
        case = Case.in_scene()
        if case is not None:
            slicer.util.setSliceViewerLayers(background=case.volume)
        self.ui.previewLabel.setText("")

    def _start(
        self, config: AugmentationConfig, seed: int, factor: int, done: Callable[[Path], None]
    ) -> None:
        case = need_case()
        self.panel.guidelines.need_decided()
        if not self.panel.ready(training=True):
            return
        self._clean()
        self._folder = folder = Path(tempfile.mkdtemp(prefix="brainlandmarks-"))
        source = dataset_of_case(case, folder / "case")
        settings = folder / "augmentation.json"
        _write(config, settings)
        arguments = ["augment", str(source.folder), "-o", str(folder / "varied"), "--split", "all"]
        arguments += ["--config", str(settings), "--seed", str(seed), "--factor", str(factor)]
        self._errors.clear()
        try:
            self.run = CommandRun([*arguments, "--workers", "1"])
        except OSError as error:
            raise UserError(f"Python cannot be started: {error}.") from None
        self._case, self._done = case, done
        self.ui.previewLabel.setText("Varying the case …")
        self._timer.start()
        self.update()

    @reports_errors
    def _poll(self) -> None:
        if self.run is None or self._folder is None:
            return
        code = self.run.poll(lambda line, error: self._errors.append(line) if error else None)
        if code is None:
            return
        self._timer.stop()
        self.run = None
        try:
            self.ui.previewLabel.setText("")
            if code != 0:
                last = self._errors[-1] if self._errors else f"exit code {code}"
                raise UserError(last.removeprefix(ERROR))
            self._done(self._folder / "varied")
        finally:
            self._clean()
            self.update()

    @heard
    def _show(self, folder: Path) -> None:
        case = Case.in_scene()
        if case is None or self._case is None or case.volume is not self._case.volume:
            return  # the case was closed meanwhile
        varied = Dataset.open(folder)
        volume = show_variation(case, varied)
        slicer.util.setSliceViewerLayers(background=volume)
        record = Record.from_dict(varied.entries[0].origin[_ORIGIN])
        steps = ", ".join(
            f"{TRANSFORMS[s.transform].title} ({TRANSFORMS[s.transform].brief(s.parameters)})"
            for s in record.steps
        )
        lost = len(record.outside) + len(record.folded) + len(record.gone)
        gone = f" {lost} landmarks are missing now." if lost else ""
        self.ui.previewLabel.setText(f"{record.policy}: {' '.join(steps.split())}.{gone}")

    @heard
    def _show_sheet(self, folder: Path) -> None:
        self.panel.show_picture(self.ui.sheetPicture, folder / _SHEET_FILE)

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _words(policy: Policy) -> str:
    steps = [f"one of the {s} side" if s in SIDES else TRANSFORMS[s].title for s in policy.apply]
    return ", then ".join(steps)


def _write(config: AugmentationConfig, path: Path) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
