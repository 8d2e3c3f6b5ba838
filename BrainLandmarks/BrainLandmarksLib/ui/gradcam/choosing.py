"""The part of the panel that says what is explained: model, layer, landmarks."""

from __future__ import annotations

from functools import partial
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.mrml.landmarks.active_landmark import Follower
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.network.model_files import model_protocol
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.ui.gradcam.models import ModelBox
from BrainLandmarksLib.ui.gradcam.tree import ChoiceTree
from BrainLandmarksLib.worker.messages import Message

DEFAULT_LAYER = "default"


class ChooseSection(Section):
    """Model, layer, device; the tree; following the landmark that another module looks at."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        ui = self.ui
        self._models = ModelBox(ui.modelCombo)
        self._asked = ("", "")
        self._filling = False
        self.tree = ChoiceTree(ui.landmarkTree, self._chosen)
        self.follower = Follower(self._followed)
        self._fill_layers([])
        self._fill_tree()
        self.on_click({"modelFolderButton": self._add_model})
        ui.modelCombo.connect("currentIndexChanged(int)", self._model_changed)
        ui.layerCombo.connect("currentTextChanged(QString)", self._layer_changed)
        ui.deviceCombo.connect("currentTextChanged(QString)", self._device_changed)
        ui.searchEdit.connect("textChanged(QString)", self._search)
        ui.followCheck.connect("toggled(bool)", self._follow)

    # What is chosen ------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """Name or folder of the model.

        Raises:
            UserError: none is installed.
        """
        if not self._models.model:
            raise UserError("no model is installed; install BrainLandmarks again.")
        return self._models.model

    @property
    def model_title(self) -> str:
        """The model as the user sees it."""
        return self._models.title

    @property
    def layer(self) -> str:
        """Name of the layer; empty for the model's default."""
        index = self.ui.layerCombo.currentIndex
        return "" if index <= 0 else str(self.ui.layerCombo.currentText)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self.ui.deviceCombo.currentText)

    @property
    def labels(self) -> tuple[str, ...]:
        """The landmarks that are explained together."""
        return self.tree.chosen

    @property
    def protocol(self) -> Protocol:
        """The model's landmarks.

        Raises:
            UserError: there is no model.
        """
        if self.tree.protocol is None:
            raise UserError("no model is installed; install BrainLandmarks again.")
        return self.tree.protocol

    # The volume ----------------------------------------------------------------------------------

    def enter(self, volume: Any) -> None:
        """A volume was chosen."""
        if self.ui.followCheck.checked:
            self.follower.start(volume)
        self.prepare()

    def leave(self) -> None:
        """There is no volume any more."""
        self.follower.stop()
        self.tree.select(())

    def prepare(self) -> None:
        """Ask the worker, which starts with it, for the layers of the model."""
        asked = (self._models.model, self.device)
        if asked == self._asked or not all(asked) or requirements.missing():
            return
        self._asked = asked
        self.panel.host.worker.request(
            "layers", partial(self._layers_known, asked), model=asked[0], device=asked[1]
        )
        self.panel.host.watch()

    @heard
    def _layers_known(self, asked: tuple[str, str], message: Message) -> None:
        if asked != self._asked:
            return
        if message["type"] == "result":
            self._fill_layers(message["layers"], message["default"])
        else:
            self._asked = ("", "")
            if message["type"] == "error":
                self.show_error(message["message"], message["detail"])

    def _fill_layers(self, layers: list[str], default: str = "") -> None:
        """The names for the box; the choice stays if it is among them."""
        chosen = self.layer
        combo = self.ui.layerCombo
        self._filling = True
        try:
            combo.clear()
            combo.addItem(f"{DEFAULT_LAYER} ({default})" if default else DEFAULT_LAYER)
            for layer in layers:
                combo.addItem(layer)
            combo.setCurrentIndex(layers.index(chosen) + 1 if chosen in layers else 0)
        finally:
            self._filling = False

    # Choosing ------------------------------------------------------------------------------------

    @reports_errors
    def choose(self, labels: tuple[str, ...]) -> None:
        """Explain these landmarks."""
        unknown = [label for label in labels if label not in self.protocol.labels]
        if unknown:
            raise UserError(f"this model has no landmark {unknown[0]}; choose another model.")
        self.tree.select(labels)
        self._chosen(labels)

    @reports_errors
    def _chosen(self, labels: tuple[str, ...]) -> None:
        if len(labels) == 1 and self.ui.followCheck.checked and self.panel.maps is not None:
            nodes = LandmarkNodes.of_volume(self.panel.maps.volume)
            if nodes is not None:
                nodes.active = labels[0]  # the other module goes along
        self.panel.mapping.show()

    @heard
    def _followed(self, label: str) -> None:
        if self.tree.chosen != (label,):
            self.choose((label,))

    @heard
    def _follow(self, on: bool) -> None:
        self.follower.stop()
        if on and self.panel.maps is not None:
            self.follower.start(self.panel.maps.volume)
            if self.follower.label is not None:
                self._followed(self.follower.label)

    @heard
    def _search(self, text: str) -> None:
        self.tree.show_only(str(text))

    @reports_errors
    def _add_model(self) -> None:
        self._models.add_folder()

    @reports_errors
    def _model_changed(self, _index: int) -> None:
        self._fill_layers([])
        self._fill_tree()
        self.prepare()
        self.panel.mapping.show()

    @reports_errors
    def _layer_changed(self, _text: str) -> None:
        if not self._filling:
            self.panel.mapping.show()

    @reports_errors
    def _device_changed(self, _text: str) -> None:
        self.prepare()

    def _fill_tree(self) -> None:
        """Rows of the model's landmarks; what was chosen stays if the model has it."""
        if not self._models.model:
            return
        protocol = model_protocol(self._models.model)
        known = self.tree.protocol
        if known is not None and known.hash == protocol.hash:
            return
        chosen = self.tree.chosen
        self.tree.fill(protocol, self.panel.pictures)
        self.tree.select(label for label in chosen if label in protocol.labels)
        self.tree.show_only(str(self.ui.searchEdit.text))
