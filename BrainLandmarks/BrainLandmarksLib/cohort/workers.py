"""Workers of this machine: processes that do one job after another, and may die of one.

>>> for job, outcome in share(jobs, 4, do):
...     print(job.scan.path, "given up" if outcome is None else outcome.state)
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")

ATTEMPTS = 3
"""A job whose worker died this often is given up; most likely the memory does not suffice."""

_CONTEXT = multiprocessing.get_context("spawn")
"""Fresh processes: a fork of one that has run PyTorch's threads may hang."""


class _JobProcess:
    """A process, and the pipe through which it gets jobs and answers.

    Not a pool of `concurrent.futures`: there the death of one process ends all of them, and does
    not say which job it was that the process died of.
    """

    def __init__(self, work: Callable[[J], R]) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> None:
        """End it, at once."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def share(jobs: Sequence[J], count: int, work: Callable[[J], R]) -> Iterator[tuple[J, R | None]]:
    """Do all jobs in so many processes; gives each with its result, as they come.

    The result of a job of which `ATTEMPTS` processes have died is None. What ``work`` raises is
    raised here.

    Args:
        work: A function of a module, which travels to the processes by its name.
    """
    waiting = deque(enumerate(jobs))
    deaths: Counter[int] = Counter()
    idle: list[_JobProcess] = []
    busy: dict[Any, tuple[_JobProcess, int, J]] = {}  # by their pipes
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                worker = idle.pop() if idle else _JobProcess(work)
                number, job = waiting.popleft()
                with suppress(OSError):  # it has died, as its answer will show
                    worker.pipe.send(job)
                busy[worker.pipe] = worker, number, job
            for pipe in wait(list(busy)):
                worker, number, job = busy.pop(pipe)
                try:
                    result, error = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.end()
                    deaths[number] += 1
                    if deaths[number] < ATTEMPTS:
                        waiting.appendleft((number, job))
                    else:
                        yield job, None
                    continue
                idle.append(worker)
                if error is not None:
                    raise error
                yield job, result
    finally:
        for worker in (*idle, *(worker for worker, _, _ in busy.values())):
            worker.end()


def _serve(pipe: Any, work: Callable[[J], R]) -> None:
    """In a worker: answer until the other end is closed, or its process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends us
    with suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                answer: tuple[R | None, Exception | None] = work(job), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)
