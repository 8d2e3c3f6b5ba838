"""Getting out of Slicer at once what was printed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_C_LIBRARY = "ucrtbase" if os.name == "nt" else None
"""None: the one of this program."""


def flush() -> None:
    """Write out what Python, C and C++ hold back.

    Slicer's sys.stdout hands each text to std::cout and has nothing to flush itself. Where that is
    a file or a pipe it keeps some kilobytes back: the lines of an hour's training, and the last
    ones for ever if the process is killed.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with contextlib.suppress(OSError, AttributeError):  # a system that calls it otherwise
        ctypes.CDLL(_C_LIBRARY).fflush(None)
