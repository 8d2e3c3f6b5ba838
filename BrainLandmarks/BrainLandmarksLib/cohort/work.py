"""One scan, from the image to its files; whoever does it, and however often, the result is one.

A job is a handful of texts, so that it can be sent to another process or machine. It first looks
whether its result is there: a job that is done again after a crash finds the work done or does it.
"""

from __future__ import annotations

import functools
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cohort.bids import BidsScan
from BrainLandmarksLib.cohort.derivatives import DEFAULT_QUALITY, Derivatives
from BrainLandmarksLib.errors import UserError, of_system

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detector

STATES = ("found", "kept", "failed")
"""What became of a job: landmarks were found, were there already, or could not be found."""


@dataclass(frozen=True)
class Job:
    """What a worker has to know to do one scan.

    Args:
        raw: The BIDS dataset.
        output: The folder of results, which `Derivatives.prepare` made.
        scan: The image.
        model: Name or folder of the model.
        model_name: What the model calls itself.
        model_sha256: Checksum of the model's files (`models.model_identity`).
        device: One of `DEVICES`.
        overwrite: Do it again, whatever is there.
        force: Keep what was found even where it is no head.
        threads: CPU threads to compute with; 0 leaves it to PyTorch.
        assume_orientation: As for `images.read_image`.
        quality: One of `detection.QUALITIES`.
    """

    raw: str
    output: str
    scan: BidsScan
    model: str
    model_name: str
    model_sha256: str
    device: str = "auto"
    overwrite: bool = False
    force: bool = False
    threads: int = 0
    assume_orientation: str | None = None
    quality: str = DEFAULT_QUALITY


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        scan: The image.
        state: One of STATES.
        sentence: Why it failed.
        bug: The traceback, if it was no fault of the image.
    """

    scan: BidsScan
    state: str
    sentence: str = ""
    bug: str = ""


def do(job: Job) -> Outcome:
    """Do one scan, unless it is done; nothing about an image is raised.

    Raises:
        UserError: the output cannot be written, so no scan can be done.
    """
    results = Derivatives.open(job.output)
    try:
        return Outcome(job.scan, _detect(job, results))
    except Exception as error:
        said = error if isinstance(error, UserError) else of_system(error)
        if said is not None:
            # Messages name files by their whole path; the dataset's own is enough.
            place = Path(job.raw) / job.scan.path
            outcome = Outcome(job.scan, "failed", str(said).replace(str(place), job.scan.path))
        else:
            kind = type(error).__name__
            sentence = f"the program failed ({kind}); please report this."
            outcome = Outcome(job.scan, "failed", sentence, traceback.format_exc())
    results.write_failure(job.scan, outcome.sentence)
    return outcome


def _detect(job: Job, results: Derivatives) -> str:
    import numpy as np

    from BrainLandmarksLib.io.checksum import file_sha256
    from BrainLandmarksLib.io.images import read_image

    if job.scan.problem:
        raise UserError(job.scan.problem)
    path = Path(job.raw) / job.scan.path
    if not path.exists():
        raise UserError(f"{path} does not exist; fetch the image, or mend the link to it.")
    source = file_sha256(path)
    if not job.overwrite:
        if results.is_done(job.scan, source, job.model_sha256, job.quality, job.assume_orientation):
            results.files(job.scan).failure.unlink(missing_ok=True)
            return "kept"
        results.need_uncorrected(job.scan)
    volume = read_image(path, assume_orientation=job.assume_orientation)
    detector = _detector(job.model, job.model_sha256, job.device, job.threads)
    detection = detector.detect(volume, quality=job.quality, force=job.force)
    shape = detector.model.shape
    points = detection.landmarks.points
    deviation = np.full(len(points), np.nan) if shape is None else shape.deviation(points)
    model = {"Name": job.model_name, "SHA256": job.model_sha256}
    results.write(job.scan, detection, deviation, source, model, job.quality, volume.assumed)
    return "found"


@functools.lru_cache(maxsize=1)
def _detector(model: str, sha256: str, device: str, threads: int) -> Detector:
    """The model, loaded once in each process and again only if it has changed."""
    import torch

    from BrainLandmarksLib.detection import Detector

    if threads:
        torch.set_num_threads(threads)
    return Detector(model, device)


def cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
