"""Many jobs: one after the other in this process, in several of this machine, or on a Dask cluster.

Dask distributed runs over SSH and under Slurm, PBS, LSF and SGE alike, and sends a job to another
worker when one dies, as `processes.share` does. Everything they need from us is that a job can be
done twice (`work`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cohort.derivatives import Derivatives
from BrainLandmarksLib.cohort.work import Job, Outcome, cores, do
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.processes import share

if TYPE_CHECKING:
    from distributed import Client


def run(jobs: Sequence[Job], workers: int = 1, scheduler: str = "") -> Iterator[Outcome]:
    """Do all jobs; gives the outcomes as they come.

    Args:
        workers: Processes on this machine; 1 does the work in this one.
        scheduler: Address or scheduler file of a Dask cluster that runs already.

    Raises:
        UserError: the cluster does not answer, Dask is missing, or the output cannot be written.
    """
    if workers < 1:
        raise UserError("--workers must be 1 or more.")
    workers = min(workers, len(jobs))
    if scheduler:
        with closing(_connect(scheduler)) as client:
            yield from _on_cluster(client, jobs)
    elif workers <= 1:
        yield from map(do, jobs)
    else:
        shared = [replace(job, threads=max(1, cores() // workers)) for job in jobs]
        for job, outcome in share(shared, workers, do):
            yield outcome or _given_up(job)


def _given_up(job: Job) -> Outcome:
    """What becomes of a scan of which one worker after the other has died."""
    sentence = "every process that worked on it died; use fewer workers, or more memory for each."
    Derivatives.open(job.output).write_failure(job.scan, sentence)
    return Outcome(job.scan, "failed", sentence)


def _on_cluster(client: Client, jobs: Sequence[Job]) -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed

    # Every run has keys of its own: a shared cluster may remember those of the last one.
    futures = client.map(do, jobs, pure=False)
    by_key = {future.key: job for future, job in zip(futures, jobs, strict=True)}
    for future in as_completed(futures):
        try:
            outcome = future.result()
        except KilledWorker:
            outcome = _given_up(by_key[future.key])
        except ModuleNotFoundError as error:
            raise UserError(
                f"the cluster's workers have no module {error.name}; install the same version of "
                "brainlandmarks where they run."
            ) from None
        future.release()
        yield outcome


def _connect(scheduler: str) -> Client:
    try:
        import distributed
    except ImportError:
        raise UserError(
            "--scheduler needs Dask; run pip install 'brainlandmarks[cohort]'."
        ) from None
    try:
        if Path(scheduler).is_file():
            return distributed.Client(scheduler_file=scheduler)
        return distributed.Client(scheduler)
    except (OSError, ValueError, TimeoutError):
        raise UserError(
            f"no Dask scheduler answers at {scheduler}; start one with dask scheduler, and workers "
            "with dask worker."
        ) from None
