"""Many jobs: one after the other in this process, or on a Dask cluster.

Dask distributed is the engine because it runs on one machine, over SSH and under Slurm, PBS, LSF
and SGE alike, and sends a job to another worker when one dies. Everything it needs from us is that
a job can be done twice (`work`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from BrainLandmarksLib.cohort.derivatives import Derivatives
from BrainLandmarksLib.cohort.work import Job, Outcome, cores, do
from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

ATTEMPTS = 3
"""A scan whose worker died this often is given up; most likely the memory does not suffice."""


def run(jobs: Sequence[Job], workers: int = 1, scheduler: str = "") -> Iterator[Outcome]:
    """Do all jobs; gives the outcomes as they come.

    Args:
        workers: Processes on this machine; 1 does the work in this one.
        scheduler: Address or scheduler file of a Dask cluster that runs already.

    Raises:
        UserError: Dask is missing, the cluster does not answer, or the output cannot be written.
    """
    if workers < 1:
        raise UserError("--workers must be 1 or more.")
    workers = min(workers, len(jobs))
    if not scheduler and workers <= 1:
        yield from map(do, jobs)
        return
    with ExitStack() as stack:
        client = _connect(scheduler) if scheduler else _start(workers, stack)
        stack.callback(client.close)
        if not scheduler:
            jobs = [replace(job, threads=max(1, cores() // workers)) for job in jobs]
        yield from _on_cluster(client, jobs)


def _on_cluster(client: Client, jobs: Sequence[Job]) -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed

    # Every run has keys of its own: a shared cluster may remember those of the last one.
    futures = client.map(do, jobs, pure=False)
    by_key = {future.key: job for future, job in zip(futures, jobs, strict=True)}
    for future in as_completed(futures):
        try:
            outcome = future.result()
        except KilledWorker:
            job = by_key[future.key]
            outcome = Outcome(
                job.scan,
                "failed",
                "every process that worked on it died; use fewer workers, or more memory for each.",
            )
            Derivatives.open(job.output).write_failure(job.scan, outcome.sentence)
        except ModuleNotFoundError as error:
            raise UserError(
                f"the cluster's workers have no module {error.name}; install the same version of "
                "brainlandmarks where they run."
            ) from None
        future.release()
        yield outcome


def _start(workers: int, stack: ExitStack) -> Client:
    """A cluster of processes on this machine, which ends with the stack."""
    distributed = _dask()
    import dask

    stack.enter_context(
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": ATTEMPTS - 1,
                # What is sent is a few texts; a worker's memory is the network's.
                "distributed.worker.memory.target": False,
                "distributed.worker.memory.spill": False,
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.terminate": False,
            }
        )
    )
    cluster = stack.enter_context(
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs="ERROR",
        )
    )
    return distributed.Client(cluster)


def _connect(scheduler: str) -> Client:
    distributed = _dask()
    try:
        if Path(scheduler).is_file():
            return distributed.Client(scheduler_file=scheduler)
        return distributed.Client(scheduler)
    except (OSError, ValueError, TimeoutError):
        raise UserError(
            f"no Dask scheduler answers at {scheduler}; start one with dask scheduler, and workers "
            "with dask worker."
        ) from None


def _dask() -> ModuleType:
    try:
        import distributed
    except ImportError:
        raise UserError(
            "more than one worker needs Dask; run pip install 'brainlandmarks[cohort]'."
        ) from None
    return distributed
