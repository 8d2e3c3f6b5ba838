"""The part of the panel that has maps made: for what is chosen, and for all landmarks."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.mrml.gradcam.map_queue import MapQueue
from BrainLandmarksLib.mrml.gradcam.map_run import MapRequest, Maps
from BrainLandmarksLib.mrml.landmarks.views import jump_to, look_at
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.ui.common.messages import DEVICES
from BrainLandmarksLib.ui.common.section import Section, heard, reports_errors
from BrainLandmarksLib.ui.gradcam.showing import LEFT, RIGHT

PATIENCE_S = 0.3
"""What takes longer shows a bar; another landmark's map is there before."""


class MapSection(Section):
    """Requests, their progress, and what becomes of their maps."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._since = 0.0
        self.queue = MapQueue(
            lambda: panel.host.worker,
            lambda: panel.scan.of(panel.need_volume()),
            self._progress,
            self._changed,
        )
        self._bar(False)
        self.on_click({"allButton": self.all, "cancelButton": self.cancelled})

    def refresh(self) -> None:
        """All landmarks at once need a volume and no such list under way."""
        free = self.panel.maps is not None and not self.queue.collecting
        self.ui.allButton.setEnabled(free)

    # Asking --------------------------------------------------------------------------------------

    @reports_errors
    def show(self) -> None:
        """Ask for the maps of what is chosen, by one model or by both that are compared."""
        labels = self.panel.choosing.labels
        if not labels or self.panel.maps is None:
            return
        self.panel.need_volume()
        if not self.panel.showing.shown:  # later ones come at once, and the views move with them
            self._go_to(self.panel.known_points(labels))
        if not self.panel.installer.ready():
            return
        choosing, compared = self.panel.choosing, self.panel.comparing.model
        self.queue.show(
            [
                (
                    MapRequest(labels, model, choosing.layer, choosing.device),
                    partial(self._take, slot),
                )
                for slot, model in ((LEFT, choosing.model), (RIGHT, compared))
                if model
            ]
        )
        self.panel.host.watch()

    @reports_errors
    def all(self) -> None:
        """Ask for a map of each landmark of the model; each gets a node of its own."""
        self.panel.need_volume()
        if not self.panel.installer.ready():
            return
        choosing = self.panel.choosing
        protocol = choosing.protocol
        groups = [tuple(m.label for m in protocol.members(group)) for group in protocol.groups]
        self.queue.collect(
            [
                (MapRequest(g, choosing.model, choosing.layer, choosing.device), self._keep)
                for g in groups
            ]
        )
        self.panel.host.watch()

    def cancel(self) -> None:
        """Give up what is under way."""
        self.queue.cancel()
        self._bar(False)
        self.panel.host.watch()

    @reports_errors
    def cancelled(self) -> None:
        """The user gives up what is under way."""
        self.cancel()
        self.panel.status("Cancelled.")
        self.refresh()

    # Hearing -------------------------------------------------------------------------------------

    @heard
    def _progress(self, words: str, fraction: float, seconds: float | None) -> None:
        listing = self.queue.collecting
        if not listing and time.monotonic() - self._since < PATIENCE_S:
            return
        self._bar(True)
        self.ui.progressBar.setValue(round(1000 * (self.queue.done if listing else fraction)))
        left = "" if seconds is None or listing else f", about {max(seconds, 1):.0f} s left"
        self.panel.status(f"{words[0].upper()}{words[1:]}{left} …")

    @heard
    def _changed(self) -> None:
        self._since = time.monotonic()
        if not self.queue.busy:
            self._bar(False)
        self.refresh()

    def _bar(self, on: bool) -> None:
        self.ui.progressBar.setVisible(on)
        self.ui.cancelButton.setVisible(on)

    @reports_errors
    def _take(self, slot: str, request: MapRequest, outcome: Maps | Failure) -> None:
        """Show a map that was wished for."""
        if not self._arrived(outcome):
            return
        assert isinstance(outcome, Maps)
        title = self._title(request)
        data, grid = outcome.together()
        model = self.panel.choosing if slot == LEFT else self.panel.comparing
        compared = bool(self.panel.comparing.model)
        node = self.panel.maps.put(
            data,
            grid,
            name=f"Grad-CAM {title}" + (f" ({model.model_title})" if compared else ""),
            labels=request.labels,
            model=request.model,
            layer=outcome.layer,
            slot=slot,
        )
        legend = f"{title}\n{model.model_title}" if compared else title
        self.panel.showing.take(slot, node, legend)
        if slot == LEFT:
            self.panel.status(self._what(title, outcome))
            self._go_to(self._places(request, outcome))

    @reports_errors
    def _keep(self, request: MapRequest, outcome: Maps | Failure) -> None:
        """Give each map of a list a node."""
        if not self._arrived(outcome):
            return
        assert isinstance(outcome, Maps)
        for one in outcome.maps:
            node = self.panel.maps.put(
                one.data,
                one.grid,
                name=f"Grad-CAM {one.label}",
                labels=(one.label,),
                model=request.model,
                layer=outcome.layer,
            )
            self.panel.showing.dress(node)
        if self.queue.done >= 1.0:
            folder = f"{self.panel.maps.volume.GetName()} landmarks"
            count = len(self.panel.choosing.protocol)
            self.panel.status(f"{count} maps, in the folder {folder}.")

    def _arrived(self, outcome: Maps | Failure) -> bool:
        """Whether there is a map, and a volume to put it over; says so if not."""
        if isinstance(outcome, Failure):
            self.panel.status("")
            self.show_error(
                outcome.sentence, outcome.detail or self.panel.host.worker.diagnostics()
            )
            return False
        maps = self.panel.maps
        if maps is None or maps.volume.GetScene() is None:
            self.show_error("The volume was closed while its maps were being made.")
            return False
        for note in outcome.notes:
            self.show_error(f"{note}.")
        return True

    # Words ---------------------------------------------------------------------------------------

    def _title(self, request: MapRequest) -> str:
        """Label of one landmark; name of a group; how many."""
        labels = request.labels
        if len(labels) == 1:
            return labels[0]
        protocol = self.panel.choosing.protocol
        for group in protocol.groups:
            if labels == tuple(m.label for m in protocol.members(group)):
                return str(group.name)
        return f"{len(labels)} landmarks"

    def _what(self, title: str, outcome: Maps) -> str:
        text = f"{title}, layer {outcome.layer}, {outcome.seconds:.2f} s on "
        text += f"{DEVICES.get(outcome.device, outcome.device)}."
        empty = [m.label for m in outcome.maps if not m.raw_maximum]
        if len(empty) == len(outcome.maps):
            text += " The map is empty: in this layer nothing spoke for the point."
        elif empty:
            text += f" {len(empty)} of {len(outcome.maps)} maps are empty."
        elif len(outcome.maps) > 1:
            text += f" At each voxel the largest of {len(outcome.maps)} maps."
        return text

    def _places(self, request: MapRequest, outcome: Maps) -> FloatArray:
        """Where each landmark is: in the scene, else by this model, else where it was read."""
        places = self.panel.known_points(request.labels)
        own = {m.label: m for m in outcome.maps}
        for row, label in enumerate(request.labels):
            for place in (own[label].landmark, own[label].read_at):
                if np.isnan(places[row]).any():
                    places[row] = place
        return places

    def _go_to(self, points: FloatArray) -> None:
        points = points[np.isfinite(points).all(1)]
        if len(points) == 1:
            jump_to(points[0])
        elif len(points):
            look_at(points)
