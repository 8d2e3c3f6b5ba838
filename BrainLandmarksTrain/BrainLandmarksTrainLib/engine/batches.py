"""Samples to batches: the same whoever makes them, and when.

Every random number of a sample comes from the run's seed, the step and the sample's place in the
step alone. So a resumed run, more processes or more workers see the very same samples.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from BrainLandmarksLib.errors import UserError

#: Makes one sample: (step, generator) -> cube (1, D, H, W) float32, ijk points (K, 3), NaN missing,
#: and for the refinement network where each point is guessed to be, (K, 3). For the parcellation
#: network: cube, classes (D, H, W), and what a class of this map may be (`.segmentation`).
Sampler = Callable[[int, np.random.Generator], tuple[Tensor, ...]]
#: Cubes (B, 1, D, H, W) of one shape, and what else the samples hold, each stacked.
Batch = tuple[Tensor, ...]
#: Steps and their batches, in order.
_Source = Generator[tuple[int, list[Batch]], None, None]

Of = TypeVar("Of")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Mixture(Generic[Of, Made]):
    """Makes what either of two makes.

    Args:
        share: Of the first one.
    """

    one: Callable[[Of, np.random.Generator], Made]
    other: Callable[[Of, np.random.Generator], Made]
    share: float

    def __call__(self, of: Of, rng: np.random.Generator) -> Made:
        """What the one makes that chance decides."""
        return (self.one if rng.random() < self.share else self.other)(of, rng)


def sample_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """The random generator of sample ``index`` of step ``step``: a function of the three alone."""
    return np.random.default_rng([seed, step, index])


def make_batches(sampler: Sampler, seed: int, step: int, indices: Sequence[int]) -> list[Batch]:
    """The samples of one step, stacked by cube shape (one batch when all shapes agree).

    Args:
        indices: places in the step, this process' share of them.
    """
    groups: dict[tuple[int, ...], list[tuple[Tensor, ...]]] = {}
    for index in indices:
        sample = sampler(step, sample_rng(seed, step, index))
        groups.setdefault(tuple(sample[0].shape), []).append(sample)
    return [tuple(torch.stack(parts) for parts in zip(*group)) for group in groups.values()]


@dataclass(frozen=True)
class Maker:
    """Makes the batches of a step; travels to other processes."""

    sampler: Sampler
    seed: int
    indices: Sequence[int]

    def __call__(self, step: int) -> list[Batch]:
        """Batches of this process' share of a step."""
        return make_batches(self.sampler, self.seed, step, self.indices)


class Loader:
    """Makes the batches of coming steps, ahead of time where that helps.

    >>> with Loader(maker, range(10), depth=2) as batches:
    ...     for step, batch in batches:
    ...         ...
    >>> batches.waited
    0.8

    Args:
        make: step to batches.
        steps: the steps to make.
        depth: how many steps may wait; 0 makes each one when it is asked for.
        workers: processes that make them; with 0 one thread does.
    """

    def __init__(self, make: Maker, steps: Sequence[int], depth: int, workers: int = 0) -> None:
        self._source: _Source
        if workers:
            self._source = _by_workers(make, steps, max(depth, 1), workers)
        elif depth:
            self._source = _by_thread(make, steps, depth)
        else:
            self._source = ((step, make(step)) for step in steps)
        self.waited = 0.0
        """Seconds that the training loop has waited for samples."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def __iter__(self) -> _Source:
        while True:
            started = time.perf_counter()
            try:
                item = next(self._source)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield item


def _by_thread(make: Maker, steps: Sequence[int], depth: int) -> _Source:
    """PyTorch's own loader makes nothing ahead without processes of its own."""
    pool = ThreadPoolExecutor(1)
    waiting: deque[tuple[int, Future[list[Batch]]]] = deque()
    try:
        for step in steps:
            waiting.append((step, pool.submit(make, step)))
            if len(waiting) > depth:
                first, made = waiting.popleft()
                yield first, made.result()
        for step, made in waiting:
            yield step, made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _by_workers(make: Maker, steps: Sequence[int], depth: int, workers: int) -> _Source:
    """New processes: a fork of a process that has run PyTorch's threads may hang."""
    loader = DataLoader(
        _Steps(make),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=depth,
        multiprocessing_context="spawn",
    )
    with lost_worker_told():
        for step, made in zip(steps, loader):
            if isinstance(made, UserError):
                raise made
            yield step, made


@contextmanager
def lost_worker_told() -> Iterator[None]:
    """One sentence for a lost worker, of which PyTorch tells wherever the program is just then.

    Raises:
        UserError: a process that makes samples has died.
    """
    try:
        yield
    except RuntimeError as error:
        # An error inside a worker is told as "Caught ... in DataLoader worker process 0".
        if "DataLoader worker (pid" not in str(error):
            raise
        raise UserError(
            "a process that makes training samples has died, perhaps for lack of memory; the "
            "last checkpoint is untouched: give the same command again, or fewer 'workers'."
        ) from None


class _Steps(Dataset[Any]):
    def __init__(self, make: Maker) -> None:
        self._make = make

    def __getitem__(self, step: int) -> list[Batch] | UserError:
        torch.set_num_threads(1)
        try:
            return self._make(step)
        except UserError as error:
            # As a value: PyTorch would put the text of a traceback around the sentence.
            return UserError(str(error))
