"""Writing files so that a reader never meets half a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from BrainLandmarksLib.errors import UserError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; it takes the place of `path` only on success.

    >>> with whole_file("landmarks.csv") as unfinished:
    ...     unfinished.write_text("index,label\\n", encoding="utf-8")

    The temporary name keeps the suffix of `path`, because many writers choose the format by it.

    Raises:
        UserError: If the folder does not exist or cannot be written to.
    """
    target = Path(path)
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"cannot write {target}: {reason}; choose a folder you can write to."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
