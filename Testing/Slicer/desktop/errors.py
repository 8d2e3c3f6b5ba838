"""Exceptions that Slicer only prints: those raised in Qt slots and in VTK observers.

Both end in `sys.excepthook`, so a test sees nothing of them. Here they are collected; the `desktop`
fixture asserts at the end of every test that there are none.
"""

from __future__ import annotations

import sys

slotErrors: list[BaseException] = []


def report(error: BaseException) -> None:
    """Collect an exception and print it, as Slicer's console does."""
    slotErrors.append(error)
    sys.__excepthook__(type(error), error, error.__traceback__)


def collect() -> None:
    """From now on, keep what is raised where nobody can catch it."""
    sys.excepthook = lambda _kind, error, _traceback: report(error)
    sys.unraisablehook = lambda event: report(event.exc_value) if event.exc_value else None
