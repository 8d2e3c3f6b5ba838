"""One click on Detect: volume out, worker, landmarks in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.landmarks.matching import PLAUSIBILITY
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure, VolumeRun, wait_for
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import Message


@dataclass(frozen=True)
class Found:
    """What a run brings: landmarks in world RAS mm, how they were made, and how long it took."""

    landmarks: LandmarkSet
    source: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float


def detect_and_wait(worker: Worker, volume: Any, protocol: Protocol, **options: Any) -> Found:
    """Find the landmarks of a volume and wait for them, as scripts do; no window is needed.

    Args:
        options: ``model``, ``device``, ``quality`` and ``force`` of `DetectionRun`.

    Raises:
        UserError: there is no result; the sentence says why.
    """
    found: Found = wait_for(
        worker,
        lambda on_end: DetectionRun(worker, volume, protocol, lambda *_: None, on_end, **options),
    )
    return found


class DetectionRun(VolumeRun):
    """A detection that is under way; `Worker.poll` drives it.

    Args:
        worker: The process that does the work.
        volume: vtkMRMLScalarVolumeNode.
        protocol: The model's landmarks.
        on_progress: Called with a sentence, the fraction done and the seconds left (or None).
        on_end: Called once, with `Found`, `Failure`, or None after a cancellation.
        force: Bring what was found even where it is no head.
    """

    REQUEST, ANSWER = "detect", "landmarks.mrk.json"

    def __init__(
        self,
        worker: Worker,
        volume: Any,
        protocol: Protocol,
        on_progress: Callable[[str, float, float | None], None],
        on_end: Callable[[Found | Failure | None], None],
        *,
        model: str,
        device: str = "auto",
        quality: str = "standard",
        force: bool = False,
    ) -> None:
        self._protocol = protocol
        self._model = model
        super().__init__(
            worker,
            volume,
            on_progress,
            on_end,
            model=model,
            device=device,
            quality=quality,
            force=force,
        )

    def found(self, message: Message) -> Found:
        """The landmarks of the answer's file."""
        # The head lies as it does in the volume, whatever that is.
        landmarks = read_landmarks(message["output"], self._protocol, status="model", any_pose=True)
        source = {
            "model": self._model,
            "device": message["device"],
            "precision": message["precision"],
            PLAUSIBILITY: message["plausibility"],
        }
        return Found(landmarks, source, tuple(message["notes"]), self.seconds)
