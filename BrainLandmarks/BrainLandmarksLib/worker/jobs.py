"""What the worker can do: requests to library calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from BrainLandmarksLib.worker import dataset_jobs
from BrainLandmarksLib.worker.cache import ImageCache
from BrainLandmarksLib.worker.messages import JobProgress, Message

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.gradcam.explanation import Explanation

_OF_DATASETS = {
    "add": dataset_jobs.add,
    "check": dataset_jobs.check,
    "annotate": dataset_jobs.annotate,
}

STANDARD = "standard"
"""The quality whose detections are remembered, so that they can be explained."""

MODELS = 2
"""How many models are kept warm: as many as are compared."""

_LOADING_SHARE = 0.1

# Where the stages of an explanation end, as a share of the time with nothing remembered.
_DETECTED, _SEEN = 0.7, 0.95

_PARCELLATED = 0.75
"""Where the networks of a parcellation are done; then every voxel of the image gets its label."""


@dataclass
class _Warm:
    """A model that is loaded, and what it last saw."""

    detector: Detector
    cache: ImageCache = field(default_factory=ImageCache)


class Jobs:
    """The library behind the worker; keeps the detectors of the last models and devices warm.

    What each last saw of its last image is kept as well, so that the maps of its landmarks follow
    one another at once.
    """

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], _Warm] = {}  # the last used is the last
        self._seconds: dict[tuple[object, ...], float] = {}

    def do(self, message: Message, progress: JobProgress) -> dict[str, Any]:
        """Do what a request asks; returns the fields of its result.

        Raises:
            UserError: something the user can put right.
        """
        if message["type"] == "device":
            return self._device(message["device"])
        if message["type"] == "estimate":
            return self._estimate(message)
        if message["type"] in _OF_DATASETS:
            return _OF_DATASETS[message["type"]](message, progress)
        if message["type"] == "parcellate":
            return self._parcellate(message, progress)
        if message["type"] == "explain":
            return self._explain(message, progress)
        if message["type"] == "export":
            return self._export(message, progress)
        if message["type"] == "layers":
            return self._layers(message)
        return self._detect(message, progress)

    def _device(self, name: str) -> dict[str, Any]:
        """Which device a name means here; a GPU has run a kernel before it is named."""
        import torch

        from BrainLandmarksLib.network.device import choose_device

        device = choose_device(name)
        name, memory = "", 0
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            name, memory = properties.name, properties.total_memory
        return {
            "device": device.type,
            "name": name,
            "memory_gb": round(memory / 2**30, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def _estimate(self, message: Message) -> dict[str, Any]:
        """How long a detection takes here; the model is warm afterwards."""
        detector = self._warm(message["model"], message["device"]).detector
        return {"seconds": round(detector.estimate(message["quality"]), 2)}

    def _detect(self, message: Message, progress: JobProgress) -> dict[str, Any]:
        start = time.monotonic()
        key = (message["model"], message["device"], message["quality"])
        report = self._reporter(key, progress)
        from BrainLandmarksLib.io.images import read_image
        from BrainLandmarksLib.io.landmarks import write_landmarks

        model = self._warm(message["model"], message["device"])
        warm = time.monotonic()
        report("read", 0.0)
        volume = read_image(message["image"])
        detection = model.detector.detect(
            volume,
            quality=message["quality"],
            force=message.get("force", False),
            progress=report,
        )
        write_landmarks(
            Path(message["output"]), detection.landmarks, plausibility=detection.plausibility
        )
        if message["quality"] == STANDARD:
            model.cache.keep_detection(Path(message["image"]), detection)
        self._seconds[key] = time.monotonic() - warm
        return {
            "output": message["output"],
            "device": detection.device,
            "precision": detection.precision,
            "plausibility": round(detection.plausibility, 4),
            "notes": list(detection.notes),
            "seconds": {name: round(s, 3) for name, s in detection.seconds.items()},
            "total_s": round(time.monotonic() - start, 3),
        }

    def _parcellate(self, message: Message, progress: JobProgress) -> dict[str, Any]:
        """Write the label map of an image, on the image's own voxels."""
        start = time.monotonic()
        key = (message["type"], message["model"], message["device"])
        report = self._reporter(key, progress)
        from BrainLandmarksLib.annotation.label_files import structure_table, write_label_map
        from BrainLandmarksLib.io.images import read_image

        detector = self._warm(message["model"], message["device"]).detector
        detector.need_parcellation()
        warm = time.monotonic()
        report("read", 0.0)
        volume = read_image(message["image"])
        found = detector.parcellate(
            volume,
            force=message.get("force", False),
            progress=lambda stage, done: report(stage, _PARCELLATED * done),
        )
        report("label", _PARCELLATED)
        grid = volume.file_grid
        labels = found.labels.labels_on(grid)
        write_label_map(message["output"], labels, grid)
        self._seconds[key] = time.monotonic() - warm
        table = structure_table(labels, grid)
        rows = [dict(zip(("number", *table.header[1:]), row)) for row in table.rows]
        return {
            "output": message["output"],
            "structures": [{**row, "volume_ml": round(row["volume_ml"], 3)} for row in rows],
            "device": found.device,
            "plausibility": round(found.plausibility, 4),
            "notes": list(found.notes),
            "total_s": round(time.monotonic() - start, 3),
        }

    def _reporter(
        self, key: tuple[object, ...], progress: JobProgress
    ) -> Callable[[str, float], None]:
        """What hears of a job's stages once the model is loaded, which is said now.

        Args:
            key: Of the job, by which it is known how long such a one takes.
        """
        start = time.monotonic()
        usual = self._seconds.get(key)

        def report(stage: str, fraction: float) -> None:
            passed = time.monotonic() - start
            left = None if usual is None else round(max(usual - passed, 0.0), 1)
            progress(stage, _LOADING_SHARE + (1 - _LOADING_SHARE) * fraction, left)

        progress("load", 0.0, None if usual is None else round(usual, 1))
        return report

    def _layers(self, message: Message) -> dict[str, Any]:
        """The layers of a model's fine network, in the order of the data."""
        from BrainLandmarksLib.gradcam.layers import LayerChain
        from BrainLandmarksLib.gradcam.maps import default_layer

        network = self._warm(message["model"], message["device"]).detector.model.network
        return {"layers": list(LayerChain(network).layers), "default": default_layer(network)}

    def _explain(self, message: Message, progress: JobProgress) -> dict[str, Any]:
        """Write the Grad-CAM maps of some landmarks; what is remembered of the image is reused."""
        from BrainLandmarksLib.gradcam.output import entry_of, normalised, write_map
        from BrainLandmarksLib.io.atomic import atomic_writes

        start = time.monotonic()
        seen = self._explained(message, progress)
        explanation, rows = seen.explanation, seen.rows
        written = []
        with atomic_writes(message["output"]) as unfinished:
            for number, row in enumerate(rows):
                seen.report("map", _SEEN + (1 - _SEEN) * number / len(rows))
                maps, maxima = normalised(explanation.maps([row]))
                entry = entry_of(explanation, row, float(maxima[0]))
                name = f"{entry['label']}.nii"
                title = f"Grad-CAM {entry['label']}, {explanation.seen.layer}"
                write_map(unfinished / name, maps[0], explanation.grid, title)
                written.append({"file": str(Path(message["output"]) / name), **entry})
        seen.over()
        return {
            "maps": written,
            "layer": explanation.seen.layer,
            "device": explanation.seen.points.device.type,
            "notes": list(explanation.detection.notes) if seen.kept != "map" else [],
            "remembered": seen.kept,
            "total_s": round(time.monotonic() - start, 3),
        }

    def _export(self, message: Message, progress: JobProgress) -> dict[str, Any]:
        """Write maps for the user, as `brainlandmarks explain` does, but for the picture."""
        from BrainLandmarksLib.gradcam.output import write_maps
        from BrainLandmarksLib.io.atomic import atomic_writes

        folder, name, sets = Path(message["output"]), message["name"], message["files"]
        seen = self._explained(message, progress)
        seen.report("map", _SEEN)
        with atomic_writes(folder) as unfinished:
            files = write_maps(unfinished, seen.explanation, seen.rows, image=name, sets=sets)
        seen.over()
        return {"files": [str(folder / file.name) for file in files]}

    def _explained(self, message: Message, progress: JobProgress) -> _Explained:
        """The explanation of a request's image, remembered or made, and which rows are wanted."""
        progress("load", 0.0, None)
        from BrainLandmarksLib.gradcam.explanation import check_layer, rows_of
        from BrainLandmarksLib.gradcam.maps import default_layer

        model = self._warm(message["model"], message["device"])
        network = model.detector.model.network
        rows = rows_of(model.detector.model.protocol, [str(name) for name in message["landmarks"]])
        check_layer(network, message["layer"])
        layer = message["layer"] or default_layer(network)
        image = Path(message["image"])
        warm = time.monotonic()
        kept = model.cache.kept(image, layer)
        key = (message["type"], message["model"], message["device"], layer, kept, len(rows))
        usual = self._seconds.get(key)

        def report(stage: str, fraction: float) -> None:
            left = None if usual is None else max(usual - (time.monotonic() - warm), 0.0)
            progress(stage, fraction, None if left is None else round(left, 1))

        def over() -> None:
            self._seconds[key] = time.monotonic() - warm

        return _Explained(_explanation(model, image, layer, report), rows, kept, report, over)

    def _warm(self, model: str, device: str) -> _Warm:
        from BrainLandmarksLib.detection import Detector

        warm = self._models.pop((model, device), None)
        if warm is None:
            while len(self._models) >= MODELS:
                self._models.pop(next(iter(self._models)))
            warm = _Warm(Detector(model, device))
        self._models[model, device] = warm
        return warm


@dataclass(frozen=True)
class _Explained:
    """An explanation, what of it is asked for, and who hears how far it is."""

    explanation: Explanation
    rows: list[int]
    kept: str
    report: Callable[[str, float], None]
    over: Callable[[], None]


def _explanation(
    model: _Warm, image: Path, layer: str, report: Callable[[str, float], None]
) -> Explanation:
    """The explanation of an image, remembered or made."""
    from BrainLandmarksLib.gradcam.explanation import explain
    from BrainLandmarksLib.io.images import read_image

    cache = model.cache
    known = cache.explanation(image, layer)
    if known is not None:
        return known
    detection = cache.detection(image)
    if detection is None:
        report("read", _LOADING_SHARE)
        share = _DETECTED - _LOADING_SHARE
        detection = model.detector.detect(
            read_image(image),
            progress=lambda stage, done: report(stage, _LOADING_SHARE + share * done),
        )
        cache.keep_detection(image, detection)
    cache.forget_explanation()  # the new one needs its memory
    made = explain(
        model.detector,
        detection,
        layer,
        progress=lambda done: report("map", _DETECTED + (_SEEN - _DETECTED) * done),
    )
    cache.keep_explanation(image, made)
    return made
