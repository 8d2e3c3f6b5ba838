"""What the worker can do: requests to library calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from BrainLandmarksLib.worker.memory import Memory
from BrainLandmarksLib.worker.messages import Message

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.gradcam.explanation import Explanation

Progress = Callable[[str, float, "float | None"], None]
"""Called with the stage, the fraction done (0 to 1) and the seconds left (None: not known yet); may
raise to end the job."""

STANDARD = "standard"
"""The quality whose detections are remembered, so that they can be explained."""

_LOADING_SHARE = 0.1

# Where the stages of an explanation end, as a share of the time with nothing remembered.
_DETECTED, _SEEN = 0.7, 0.95


class Jobs:
    """The library behind the worker; keeps the detector of the last model and device warm.

    What was last seen of the last image is kept as well, so that the maps of its landmarks follow
    one another at once.
    """

    def __init__(self) -> None:
        self._detector: Detector | None = None
        self._loaded: tuple[str, str] | None = None
        self._seconds: dict[tuple[object, ...], float] = {}
        self._memory = Memory()

    def do(self, message: Message, progress: Progress) -> dict[str, Any]:
        """Do what a request asks; returns the fields of its result.

        Raises:
            UserError: something the user can put right.
        """
        if message["type"] == "device":
            return self._device(message["device"])
        if message["type"] == "estimate":
            return self._estimate(message)
        if message["type"] == "add":
            return self._add(message, progress)
        if message["type"] == "explain":
            return self._explain(message, progress)
        return self._detect(message, progress)

    def _device(self, name: str) -> dict[str, Any]:
        """Which device a name means here; a GPU has run a kernel before it is named."""
        import torch

        from BrainLandmarksLib.detection import choose_device

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
        detector = self._warm(message["model"], message["device"])
        return {"seconds": round(detector.estimate(message["quality"]), 2)}

    def _detect(self, message: Message, progress: Progress) -> dict[str, Any]:
        start = time.monotonic()
        key = (message["model"], message["device"], message["quality"])
        usual = self._seconds.get(key)

        def tell(stage: str, fraction: float) -> None:
            passed = time.monotonic() - start
            left = None if usual is None else round(max(usual - passed, 0.0), 1)
            progress(stage, _LOADING_SHARE + (1 - _LOADING_SHARE) * fraction, left)

        progress("load", 0.0, None if usual is None else round(usual, 1))
        from BrainLandmarksLib.formats import write_landmarks
        from BrainLandmarksLib.images import read_image

        detector = self._warm(message["model"], message["device"])
        warm = time.monotonic()
        tell("read", 0.0)
        volume = read_image(message["image"])
        detection = detector.detect(volume, quality=message["quality"], progress=tell)
        write_landmarks(Path(message["output"]), detection.landmarks)
        if message["quality"] == STANDARD:
            self._memory.keep_detection(Path(message["image"]), detection)
        self._seconds[key] = time.monotonic() - warm
        return {
            "output": message["output"],
            "device": detection.device,
            "precision": detection.precision,
            "notes": list(detection.notes),
            "seconds": {name: round(s, 3) for name, s in detection.seconds.items()},
            "total_s": round(time.monotonic() - start, 3),
        }

    def _explain(self, message: Message, progress: Progress) -> dict[str, Any]:
        """Write the Grad-CAM maps of some landmarks; what is remembered of the image is reused."""
        start = time.monotonic()
        progress("load", 0.0, None)
        from BrainLandmarksLib.files import whole_files
        from BrainLandmarksLib.gradcam.explanation import check_layer, rows_of
        from BrainLandmarksLib.gradcam.maps import default_layer
        from BrainLandmarksLib.gradcam.output import entry_of, normalised, write_map

        detector = self._warm(message["model"], message["device"])
        rows = rows_of(detector.model.protocol, [str(name) for name in message["landmarks"]])
        check_layer(detector.model.network, message["layer"])
        layer = message["layer"] or default_layer(detector.model.network)
        image = Path(message["image"])
        warm = time.monotonic()
        kept = self._memory.kept(image, layer)
        key = ("explain", message["model"], message["device"], layer, kept, len(rows))
        usual = self._seconds.get(key)

        def tell(stage: str, fraction: float) -> None:
            left = None if usual is None else max(usual - (time.monotonic() - warm), 0.0)
            progress(stage, fraction, None if left is None else round(left, 1))

        explanation = self._explanation(detector, image, layer, tell)
        written = []
        with whole_files(message["output"]) as unfinished:
            for number, row in enumerate(rows):
                tell("map", _SEEN + (1 - _SEEN) * number / len(rows))
                maps, maxima = normalised(explanation.maps([row]))
                entry = entry_of(explanation, row, float(maxima[0]))
                name = f"{entry['label']}.nii"
                title = f"Grad-CAM {entry['label']}, {layer}"
                write_map(unfinished / name, maps[0], explanation.grid, title)
                written.append({"file": str(Path(message["output"]) / name), **entry})
        self._seconds[key] = time.monotonic() - warm
        return {
            "maps": written,
            "layer": layer,
            "device": explanation.seen.points.device.type,
            "notes": list(explanation.detection.notes) if kept != "map" else [],
            "remembered": kept,
            "total_s": round(time.monotonic() - start, 3),
        }

    def _explanation(
        self, detector: Detector, image: Path, layer: str, tell: Callable[[str, float], None]
    ) -> Explanation:
        """The explanation of an image, remembered or made."""
        from BrainLandmarksLib.gradcam.explanation import explain
        from BrainLandmarksLib.images import read_image

        known = self._memory.explanation(image, layer)
        if known is not None:
            return known
        detection = self._memory.detection(image)
        if detection is None:
            tell("read", _LOADING_SHARE)
            share = _DETECTED - _LOADING_SHARE
            detection = detector.detect(
                read_image(image),
                progress=lambda stage, done: tell(stage, _LOADING_SHARE + share * done),
            )
            self._memory.keep_detection(image, detection)
        self._memory.forget_explanation()  # the new one needs its memory
        made = explain(
            detector,
            detection,
            layer,
            progress=lambda done: tell("map", _DETECTED + (_SEEN - _DETECTED) * done),
        )
        self._memory.keep_explanation(image, made)
        return made

    def _add(self, message: Message, progress: Progress) -> dict[str, Any]:
        """Add an image and its review to a dataset folder, made if there is none."""
        from BrainLandmarksLib.dataset import Dataset
        from BrainLandmarksLib.images import read_image
        from BrainLandmarksLib.protocol import load_protocol
        from BrainLandmarksLib.review import read_review

        progress("read", 0.0, None)
        protocol = load_protocol(message["protocol"])
        volume = read_image(message["image"])
        review, source = read_review(message["landmarks"], protocol)
        progress("add", 0.3, None)
        dataset = Dataset.open_or_create(message["dataset"], protocol)
        entry = dataset.add(volume, review, source)
        return {"entry": entry.identity, "heads": len(dataset)}

    def _warm(self, model: str, device: str) -> Detector:
        if self._detector is None or self._loaded != (model, device):
            from BrainLandmarksLib.detection import Detector

            self._detector, self._loaded = None, None
            self._memory = Memory()
            self._detector = Detector(model, device)
            self._loaded = (model, device)
        return self._detector
