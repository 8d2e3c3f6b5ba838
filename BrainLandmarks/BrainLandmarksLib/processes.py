"""Processes that share the work of a command.

Pools are for work that may fail as a whole; `share` is for jobs of which one may cost its process
its life.

>>> for job, result in share(jobs, 4, do):
...     print(job, "given up" if result is None else result)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")

CONTEXT = multiprocessing.get_context("spawn")
"""Fresh processes: a fork of one that has run PyTorch's threads may hang."""

ATTEMPTS = 3
"""A job of which so many processes have died is given up; most likely memory does not suffice."""


def process_pool(
    workers: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> ProcessPoolExecutor:
    """Fresh processes, each prepared by ``initializer``; by default one for each processor."""
    return ProcessPoolExecutor(workers or os.cpu_count(), CONTEXT, initializer, initargs)


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
                process = idle.pop() if idle else _JobProcess(work)
                number, job = waiting.popleft()
                with suppress(OSError):  # it has died, as its answer will show
                    process.pipe.send(job)
                busy[process.pipe] = process, number, job
            for pipe in wait(list(busy)):
                process, number, job = busy.pop(pipe)
                try:
                    result, error = process.pipe.recv()
                except (EOFError, OSError):
                    process.end()
                    deaths[number] += 1
                    if deaths[number] < ATTEMPTS:
                        waiting.appendleft((number, job))
                    else:
                        yield job, None
                    continue
                idle.append(process)
                if error is not None:
                    raise error
                yield job, result
    finally:
        for process in (*idle, *(process for process, _, _ in busy.values())):
            process.end()


class _JobProcess:
    """A process, and the pipe through which it gets jobs and answers.

    Not one of a pool: there the death of one process ends all of them, and does not say which job
    it was that the process died of.
    """

    def __init__(self, work: Callable[[J], R]) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> None:
        """End it, at once."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Any, work: Callable[[J], R]) -> None:
    """In a process: answer until the other end is closed, or its process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends us
    with suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                answer: tuple[R | None, Exception | None] = work(job), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)
