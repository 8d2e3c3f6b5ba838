"""Checksums of files and of what is stored in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from BrainLandmarksLib.errors import UserError


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Checksum of a file's bytes, as `sha256sum` prints it.

    Raises:
        UserError: the file cannot be read.
    """
    return sha256([Path(path)])


def sha256(parts: Iterable[bytes | str | Path]) -> str:
    """Checksum of bytes, of texts and of the bytes in files, one after the other.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            try:
                with part.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
            except OSError as error:
                raise UserError(f"cannot read {part}: {error.strerror}; check the path.") from None
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
