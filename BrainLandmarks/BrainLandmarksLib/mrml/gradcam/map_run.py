"""One request for Grad-CAM maps: to the worker and back; temporary files gone whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.gradcam.output import read_map
from BrainLandmarksLib.imaging.volume import ImageArray
from BrainLandmarksLib.mrml.export.volume_export import temporary_folder
from BrainLandmarksLib.mrml.landmarks.volume_run import STAGES, Failure
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import Message

WORDS = {**STAGES, "map": "making the map"}
"""Stage of the worker to what it does, in words for the user."""


@dataclass(frozen=True)
class MapRequest:
    """What maps are asked for: landmarks of one model, in one layer."""

    labels: tuple[str, ...]
    model: str
    """Name of a shipped model, or the folder of another one."""
    layer: str = ""
    """Name of a layer of the network; empty for the default."""
    device: str = "auto"


@dataclass(frozen=True)
class LandmarkMap:
    """The map of one landmark, 0 to 1, on the cube that the network saw, world RAS mm."""

    label: str
    data: ImageArray
    grid: Grid
    raw_maximum: float
    """By what the map was divided; 0: it is empty, nothing spoke for the landmark."""
    read_at: FloatArray
    """(3,) where the heatmap was read."""
    landmark: FloatArray
    """(3,) where the network puts the landmark; NaN outside the image."""


@dataclass(frozen=True)
class Maps:
    """What a request brings."""

    maps: tuple[LandmarkMap, ...]
    layer: str
    device: str
    notes: tuple[str, ...]
    seconds: float

    def together(self) -> tuple[ImageArray, Grid]:
        """The largest value of all maps at each voxel, and where the voxels lie."""
        return np.max([m.data for m in self.maps], axis=0), self.maps[0].grid


class MapRun:
    """A request that is under way; `Worker.poll` drives it.

    Args:
        worker: The process that does the work.
        image: The scan, see `volume_export.VolumeExport`.
        request: What is asked for.
        on_progress: Called with a sentence, the fraction done and the seconds left (or None).
        on_end: Called once, with `Maps`, `Failure`, or None after a cancellation.

    Raises:
        UserError: there is no place for temporary files.
    """

    def __init__(
        self,
        worker: Worker,
        image: Path,
        request: MapRequest,
        on_progress: Callable[[str, float, float | None], None],
        on_end: Callable[[Maps | Failure | None], None],
    ) -> None:
        self._worker = worker
        self._on_progress = on_progress
        self._on_end = on_end
        self._folder = temporary_folder()
        self._request = worker.request(
            "explain",
            self._hear,
            image=str(image),
            output=str(self._folder),
            model=request.model,
            device=request.device,
            landmarks=list(request.labels),
            layer=request.layer,
        )

    def cancel(self) -> None:
        """Stop; `on_end` hears None within a second."""
        self._worker.cancel(self._request)

    def _hear(self, message: Message) -> None:
        kind = message["type"]
        if kind == "progress":
            words = WORDS.get(message["stage"], "working")
            self._on_progress(words, message["fraction"], message["eta_s"])
            return
        outcome: Maps | Failure | None = None
        try:
            if kind == "error":
                outcome = Failure(message["message"], message["detail"])
            elif kind == "result":
                outcome = _maps(message)
        except UserError as error:
            outcome = Failure(str(error))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._on_end(outcome)


def _maps(message: Message) -> Maps:
    made = []
    for entry in message["maps"]:
        data, grid = read_map(entry["file"])
        landmark = entry["landmark"]
        made.append(
            LandmarkMap(
                label=entry["label"],
                data=data,
                grid=grid,
                raw_maximum=entry["raw_maximum"],
                read_at=np.array(entry["read_at"], float),
                landmark=np.full(3, np.nan) if landmark is None else np.array(landmark, float),
            )
        )
    return Maps(
        tuple(made),
        message["layer"],
        message["device"],
        tuple(message["notes"]),
        message["total_s"],
    )
