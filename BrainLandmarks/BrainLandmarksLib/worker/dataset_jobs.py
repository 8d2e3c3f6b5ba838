"""What the worker does with datasets: add a head, check all, annotate a label map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from BrainLandmarksLib.worker.messages import JobProgress, Message


def add(message: Message, progress: JobProgress) -> dict[str, Any]:
    """Add an image and its review to a dataset folder, made if there is none."""
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.io.images import read_image
    from BrainLandmarksLib.protocol import load_protocol
    from BrainLandmarksLib.protocol.compliance import need_plausible
    from BrainLandmarksLib.review import read_review

    progress("read", 0.0, None)
    protocol = load_protocol(message["protocol"])
    review, source = read_review(message["landmarks"], protocol)
    need_plausible(protocol, review.current.points, "the head")
    volume = read_image(message["image"])
    progress("add", 0.3, None)
    dataset = Dataset.open_or_create(message["dataset"], protocol)
    entry = dataset.add(volume, review, source)
    return {"entry": entry.identity, "heads": len(dataset), "notes": list(volume.notes)}


def check(message: Message, progress: JobProgress) -> dict[str, Any]:
    """What is wrong with a dataset: with each head, by its number, and with all of it."""
    from BrainLandmarksLib.dataset import Dataset
    from BrainLandmarksLib.dataset.checks import check_dataset

    progress("check", 0.0, None)
    report = check_dataset(Dataset.open(message["dataset"]))
    return {
        "heads": {head.entry.identity: head.mistakes for head in report.heads},
        "mistakes": report.mistakes,
        "notes": report.notes,
    }


def annotate(message: Message, progress: JobProgress) -> dict[str, Any]:
    """Place the landmarks of a label map by rule and write them."""
    from BrainLandmarksLib.annotation import annotate as place
    from BrainLandmarksLib.io.images import read_image
    from BrainLandmarksLib.io.landmarks import write_landmarks

    progress("read", 0.0, None)
    labels = read_image(message["labels"])
    progress("annotate", 0.2, None)
    landmarks = place(labels)
    write_landmarks(Path(message["output"]), landmarks)
    return {
        "output": message["output"],
        "protocol": landmarks.protocol.name,
        "placed": int((~landmarks.missing).sum()),
        "notes": list(labels.notes),
    }
