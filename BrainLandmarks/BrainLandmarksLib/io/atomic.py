"""Writing files so that a reader never meets half a file, or half of the files of one result."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from BrainLandmarksLib.errors import UserError

# The process and the name that the file will have.
_UNFINISHED = re.compile(r"^\.\d+\..")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; it takes the place of `path` only on success.

    >>> with atomic_write("landmarks.csv") as unfinished:
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


@contextmanager
def atomic_writes(folder: str | os.PathLike[str], label: str = "") -> Iterator[Path]:
    """Give an empty folder for the files of one result; they move to `folder` only on success.

    >>> with atomic_writes("results") as unfinished:
    ...     write_landmarks(unfinished / "head.csv", landmarks)
    ...     draw_landmarks(volume, landmarks, unfinished / "head.png")

    `folder` is made if it is new; files in it that have the same names are replaced.

    Args:
        label: Name of the result, by which `unfinished_of` finds what a killed process left.

    Raises:
        UserError: If the folder cannot be made or written to.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".unfinished-{label}.", dir=target))
    except OSError as error:
        raise UserError(unwritable(target, error.strerror or "no permission")) from error
    try:
        yield unfinished
        for path in sorted(unfinished.iterdir()):
            os.replace(path, target / path.name)
    except OSError as error:
        raise UserError(unwritable(target, error.strerror or "no permission")) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfinished_of(folder: Path, label: str) -> list[Path]:
    """What `atomic_writes` left of one result when a process was killed; may be removed."""
    return sorted(folder.glob(f".unfinished-{label}.*"))


def need_writable(folder: Path) -> None:
    """Check before any work that results can be written to a folder, which may not exist yet.

    Raises:
        UserError: they cannot.
    """
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        is_file = existing.exists() and not existing.is_dir()
    except OSError as error:  # above it is a folder that may not be entered
        raise UserError(unwritable(folder, error.strerror or "no permission")) from error
    if is_file:
        raise UserError(unwritable(folder, f"{existing} is a file"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(unwritable(folder, f"no permission in {existing}"))


def need_absent(paths: Iterable[Path]) -> None:
    """Check that no result would be replaced; ``--overwrite`` skips this.

    Raises:
        UserError: one of the files exists.
    """
    for path in paths:
        if path.exists():
            raise UserError(f"{path} exists; add --overwrite to replace it.")


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what `atomic_write` left in a folder when a process was killed.

    Only for a folder into which no other process is writing.
    """
    path = Path(folder)
    for left in path.iterdir() if path.is_dir() else ():
        if _UNFINISHED.match(left.name):
            with suppress(OSError):
                left.unlink()


def unwritable(folder: Path, reason: str) -> str:
    """The sentence about a folder that cannot be written to."""
    return f"cannot write to the output folder {folder}: {reason}; choose another one."
