"""JSON files that may be missing, cut off or of another kind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """What a JSON file holds.

    Args:
        what: How an error sentence calls the file, such as "the protocol file".

    Raises:
        UserError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{what} {path} cannot be read: {reason}.") from error
    except ValueError as error:
        raise UserError(f"{what} {path} is not valid JSON: {error}.") from error


def json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object that a JSON file holds; empty if the file is missing, damaged or no object."""
    try:
        content = read_json(path, "")
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}
