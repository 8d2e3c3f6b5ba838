"""Checksums of files and of what is stored in them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from BrainLandmarksLib.errors import UserError


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Checksum of a file's bytes, as `sha256sum` prints it.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the dataset.") from None
    return digest.hexdigest()
