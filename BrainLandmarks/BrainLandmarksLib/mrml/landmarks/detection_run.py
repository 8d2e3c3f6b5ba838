"""One click on Detect: volume out, worker, landmarks in; temporary files gone whatever happens."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.landmarks.matching import PLAUSIBILITY
from BrainLandmarksLib.mrml.export.volume import export_volume
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import Message

STAGES = {
    "load": "loading the model",
    "read": "reading the volume",
    "prepare": "looking for the head",
    "locate": "finding the head",
    "detect": "placing the landmarks",
}
"""Stage of the worker to what it does, in words for the user."""


@dataclass(frozen=True)
class Found:
    """What a run brings: landmarks in world RAS mm, how they were made, and how long it took."""

    landmarks: LandmarkSet
    source: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why there is no result: one sentence, and what a diagnosis needs.

    Args:
        implausible: Whether there is one all the same, of what is no head; ``force`` brings it.
    """

    sentence: str
    detail: str = ""
    implausible: bool = False


WAIT_S = 0.02


def detect_and_wait(worker: Worker, volume: Any, protocol: Protocol, **options: Any) -> Found:
    """Find the landmarks of a volume and wait for them, as scripts do; no window is needed.

    Args:
        options: ``model``, ``device``, ``quality`` and ``force`` of `DetectionRun`.

    Raises:
        UserError: there is no result; the sentence says why.
    """
    outcomes: list[Found | Failure | None] = []
    run = DetectionRun(worker, volume, protocol, lambda *_: None, outcomes.append, **options)
    try:
        while not outcomes:
            worker.poll()
            time.sleep(WAIT_S)
    finally:
        run.cancel()  # where Ctrl-C ended the waiting
    outcome = outcomes[0]
    if isinstance(outcome, Found):
        return outcome
    raise UserError(outcome.sentence if outcome else "the detection was cancelled.")


class DetectionRun:
    """A detection that is under way; `Worker.poll` drives it.

    Args:
        worker: The process that does the work.
        volume: vtkMRMLScalarVolumeNode.
        protocol: The model's landmarks.
        on_progress: Called with a sentence, the fraction done and the seconds left (or None).
        on_end: Called once, with `Found`, `Failure`, or None after a cancellation.
        force: Bring what was found even where it is no head.
    """

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
        self._worker = worker
        self._protocol = protocol
        self._on_progress = on_progress
        self._on_end = on_end
        self._model = model
        self._started = time.monotonic()
        self._request: str | None = None
        # Nothing here is named after the volume: names of patients stay out of paths and logs.
        self._folder = Path(tempfile.mkdtemp(prefix="brainlandmarks-"))
        try:
            image = self._folder / "volume.nrrd"
            export_volume(volume, image)
        except UserError as error:
            self._end(Failure(str(error)))
            return
        self._request = worker.request(
            "detect",
            self._hear,
            image=str(image),
            output=str(self._folder / "landmarks.mrk.json"),
            model=model,
            device=device,
            quality=quality,
            force=force,
        )

    @property
    def folder(self) -> Path:
        """Where the temporary files are while it runs."""
        return self._folder

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._request is None

    def cancel(self) -> None:
        """Stop; `on_end` hears None within a second."""
        if self._request is not None:
            self._worker.cancel(self._request)

    def _hear(self, message: Message) -> None:
        kind = message["type"]
        if kind == "progress":
            words = STAGES.get(message["stage"], "working")
            self._on_progress(words, message["fraction"], message["eta_s"])
        elif kind == "cancelled":
            self._end(None)
        elif kind == "error":
            implausible = message["code"] == "implausible"
            self._end(Failure(message["message"], message["detail"], implausible))
        else:
            self._end(self._found(message))

    def _found(self, message: Message) -> Found | Failure:
        try:
            # The head lies as it does in the volume, whatever that is.
            landmarks = read_landmarks(
                message["output"], self._protocol, status="model", any_pose=True
            )
        except UserError as error:
            return Failure(str(error))
        source = {
            "model": self._model,
            "device": message["device"],
            "precision": message["precision"],
            PLAUSIBILITY: message["plausibility"],
        }
        seconds = time.monotonic() - self._started
        return Found(landmarks, source, tuple(message["notes"]), seconds)

    def _end(self, outcome: Found | Failure | None) -> None:
        self._request = None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._on_end(outcome)
