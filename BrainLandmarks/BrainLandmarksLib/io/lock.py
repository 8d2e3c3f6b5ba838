"""A lock on a file that programs take turns with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import unwritable


@contextmanager
def file_lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Wait until no other process holds this lock file, and hold it; a killed process lets go.

    Written out here, and not taken from a library, because Slicer writes datasets before any
    package is installed.

    Raises:
        UserError: the file cannot be made, or its file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(unwritable(Path(path).parent, error.strerror or "no lock")) from error
    try:
        try:
            _wait_for(descriptor)
        except OSError as error:  # of some network and cluster file systems
            raise UserError(
                f"the file system of {Path(path).parent} has no locks ({error.strerror}), so two "
                "programs could write there at once; choose a folder on another one."
            ) from error
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    import msvcrt

    while True:
        with suppress(OSError):  # it gives up after ten seconds
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            return
