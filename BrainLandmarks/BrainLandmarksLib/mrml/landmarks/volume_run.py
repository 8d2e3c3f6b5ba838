"""A request about one volume: it goes out, the worker works, and no temporary file stays."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.export.volume import export_volume
from BrainLandmarksLib.mrml.export.volume_export import temporary_folder
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import Message

STAGES = {
    "load": "loading the model",
    "read": "reading the volume",
    "prepare": "looking for the head",
    "locate": "finding the head",
    "detect": "placing the landmarks",
    "label": "naming every voxel",
}
"""Stage of the worker to what it does, in words for the user."""

WAIT_S = 0.02


@dataclass(frozen=True)
class Failure:
    """Why there is no result: one sentence, and what a diagnosis needs.

    Args:
        implausible: Whether there is one all the same, of what is no head; ``force`` brings it.
    """

    sentence: str
    detail: str = ""
    implausible: bool = False


class VolumeRun:
    """A request that is under way; `Worker.poll` drives it.

    Args:
        worker: The process that does the work.
        volume: vtkMRMLScalarVolumeNode.
        on_progress: Called with a sentence, the fraction done and the seconds left (or None).
        on_end: Called once, with what `found` made of the answer, `Failure`, or None after a
            cancellation.
    """

    REQUEST, ANSWER = "", ""
    """Type of the request, and name of the file that answers it."""

    def __init__(
        self,
        worker: Worker,
        volume: Any,
        on_progress: Callable[[str, float, float | None], None],
        on_end: Callable[[Any], None],
        **fields: Any,
    ) -> None:
        self._worker = worker
        self._on_progress = on_progress
        self._on_end = on_end
        self._started = time.monotonic()
        self._request: str | None = None
        # Nothing here is named after the volume: names of patients stay out of paths and logs.
        self._folder = temporary_folder()
        try:
            image = self._folder / "volume.nrrd"
            export_volume(volume, image)
        except UserError as error:
            self._end(Failure(str(error)))
            return
        self._request = worker.request(
            self.REQUEST,
            self._hear,
            image=str(image),
            output=str(self._folder / self.ANSWER),
            **fields,
        )

    def found(self, message: Message) -> Any:
        """What the answer brings.

        Raises:
            UserError: its file cannot be read.
        """
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where the temporary files are while it runs."""
        return self._folder

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._request is None

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._started

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
            try:
                outcome = self.found(message)
            except UserError as error:
                outcome = Failure(str(error))
            self._end(outcome)

    def _end(self, outcome: Any) -> None:
        self._request = None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._on_end(outcome)


def wait_for(worker: Worker, start: Callable[[Callable[[Any], None]], VolumeRun]) -> Any:
    """Start a run and wait for what it brings, as scripts do; no window is needed.

    Args:
        start: Makes the run; what it is given is its ``on_end``.

    Raises:
        UserError: there is no result; the sentence says why.
    """
    outcomes: list[Any] = []
    run = start(outcomes.append)
    try:
        while not outcomes:
            worker.poll()
            time.sleep(WAIT_S)
    finally:
        run.cancel()  # where Ctrl-C ended the waiting
    outcome = outcomes[0]
    if outcome is None or isinstance(outcome, Failure):
        raise UserError(outcome.sentence if outcome else "it was cancelled.")
    return outcome
