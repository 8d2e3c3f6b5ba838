"""The form of a training: what to train, from which model, how, and where to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import qt

from BrainLandmarksLib import PROGRAM
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.model_files import summarise
from BrainLandmarksLib.ui.common.preferences import title_of, usable_models
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksTrainLib.augmentation import AugmentationConfig
from BrainLandmarksTrainLib.config.options import (
    TrainingOptions,
    arguments_of,
    keep_recipe,
    recipe_from,
    training_scans,
)
from BrainLandmarksTrainLib.config.recipe import Recipe, load_recipe

METHODS = {
    "fine-tune a model": "fine-tune",
    "new model, the paper's method": "paper",
    "new model, a quick trial": "quick",
    "recipe file": "file",
}
"""How the panel calls the methods of `TrainingOptions`."""

AS_METHOD = "the method's"
SIZES = (AS_METHOD, "16", "32", "48", "64", "80", "96", "128")


class TrainingForm(Section):
    """The widgets that say what to train; their values are in the panel's parameter node."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._filling = False
        self.on_click({"startFolderButton": self._choose_model})
        self.ui.methodCombo.connect("activated(int)", self._method_chosen)
        self.ui.startCombo.connect("currentIndexChanged(int)", self._model_chosen)

    def fill_models(self) -> None:
        """Offer the models that there are now."""
        combo, wanted = self.ui.startCombo, str(self.panel.parameters.startModel)
        models = usable_models()
        if wanted and wanted not in [model.key for model in models]:
            try:
                models.append(summarise(wanted))
            except UserError:
                wanted = ""
        keys = [model.key for model in models]
        self._filling = True
        try:
            combo.clear()
            for model in models:
                combo.addItem(title_of(model), model.key)
            combo.setCurrentIndex(keys.index(wanted) if wanted in keys else 0)
        finally:
            self._filling = False
        self._model_chosen(combo.currentIndex)

    @heard
    def _model_chosen(self, index: int) -> None:
        if not self._filling and self.panel.parameters is not None:
            self.panel.parameters.startModel = str(self.ui.startCombo.itemData(index) or "")

    @reports_errors
    def _choose_model(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.startFolderButton, "Folder of a model (it holds model.json)"
        )
        if folder:
            self.panel.parameters.startModel = summarise(str(folder)).key
            self.fill_models()

    @reports_errors
    def _method_chosen(self, _index: int) -> None:
        """A method brings the loss that goes with it."""
        method, parameters = self.method, self.panel.parameters
        if method == "fine-tune":
            usual = TrainingOptions(method)
            parameters.loss, parameters.alpha = usual.loss, usual.alpha
        elif method != "file":
            fine = load_recipe(method, None, "run", "dataset").fine
            assert fine is not None  # these methods train it
            parameters.loss, parameters.alpha = fine.coordinate_loss, fine.alpha

    def options(self) -> TrainingOptions:
        """What the panel says.

        Raises:
            UserError: a settings file of the augmentation is wrong.
        """
        p, path = self.panel.parameters, self.panel.path
        return TrainingOptions(
            self.method,
            dataset=path("dataset"),
            output=path("output"),
            model=str(p.startModel) or "brain88",
            file=path("recipe"),
            name=str(p.modelName).strip(),
            loss=str(p.loss),
            alpha=float(p.alpha),
            size=None if p.size == AS_METHOD else int(p.size),
            amount=int(p.amount),
            unit=str(p.unit),
            device=str(p.trainingDevice),
            augmentation=self._augmentation(),
        )

    def _augmentation(self) -> AugmentationConfig | None:
        if not self.panel.parameters.policies:
            return None
        config: AugmentationConfig = self.panel.augmentation.config()
        return config

    @property
    def method(self) -> str:
        """One of `config.options.METHODS`."""
        chosen = "" if self.panel.parameters is None else str(self.panel.parameters.method)
        return METHODS.get(chosen, "fine-tune")

    @property
    def folder(self) -> Path | None:
        """The folder of the run, as far as it is known before there is a recipe."""
        chosen, file = self.panel.path("output"), self.panel.path("recipe")
        if chosen is None and self.method == "file" and file is not None and file.is_file():
            try:
                return Path(recipe_from(TrainingOptions("file", file=file)).output)
            except UserError:
                return None
        return chosen

    def command(self) -> str:
        """The command line that does the same; empty while something is missing."""
        folder = self.folder
        if folder is None:
            return ""
        resume = self.panel.parameters is None or bool(self.panel.parameters.resume)
        return shlex.join([PROGRAM, *arguments_of(folder, resume=resume)])

    def data(self) -> str:
        """How many scans there are to train on, or why there are none."""
        folder, tab = self.panel.path("dataset"), getattr(self.panel, "dataset", None)
        if folder is None:
            return "As the file says." if self.method == "file" else "Choose it in Dataset."
        if tab is None or tab.dataset is None:
            return f"{folder.name} is no dataset."
        count = training_scans(tab.dataset)
        return f"{folder.name}: {count} of {len(tab.dataset)} cases to train on"

    def keep(self) -> Recipe:
        """Write the recipe into the folder of the run.

        Raises:
            UserError: something is missing, or the folder cannot be written to.
        """
        recipe = recipe_from(self.options())
        keep_recipe(recipe)
        return recipe
