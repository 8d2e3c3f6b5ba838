"""Processes that share the work of a command."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")
"""Fresh processes: a fork of one that has run PyTorch's threads may hang."""


def process_pool(
    workers: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> ProcessPoolExecutor:
    """Fresh processes, each prepared by ``initializer``; by default one for each processor."""
    return ProcessPoolExecutor(workers or os.cpu_count(), CONTEXT, initializer, initargs)
