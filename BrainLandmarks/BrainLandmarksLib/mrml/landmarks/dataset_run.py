"""One click on Add to dataset: image and landmarks to the worker, which writes the folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.export.volume import export_volume
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.review import write_review
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import Message


def add_to_dataset(
    worker: Worker, session: Session, folder: str, on_end: Callable[[int | Failure], None]
) -> None:
    """Add the session's volume and landmarks to a dataset folder, which is made if it is new.

    Compressing an image takes seconds, so the worker does it; `Worker.poll` drives it.

    Args:
        on_end: Called once, with the number of heads that the dataset now has, or a `Failure`.
    """
    place = Path(tempfile.mkdtemp(prefix="brainlandmarks-"))

    def hear(message: Message) -> None:
        if message["type"] == "progress":
            return
        shutil.rmtree(place, ignore_errors=True)
        if message["type"] == "result":
            on_end(message["heads"])
        elif message["type"] == "cancelled":
            on_end(Failure("Nothing was added: the worker was stopped."))
        else:
            on_end(Failure(message["message"], message["detail"]))

    image, landmarks = place / "volume.nrrd", place / "landmarks.mrk.json"
    try:
        export_volume(session.volume, image)
        write_review(landmarks, session.review, session.source)
    except UserError as error:
        shutil.rmtree(place, ignore_errors=True)
        on_end(Failure(str(error)))
        return
    worker.request(
        "add",
        hear,
        image=str(image),
        landmarks=str(landmarks),
        protocol=session.protocol.name,
        dataset=folder,
    )
