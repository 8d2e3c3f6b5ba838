"""A field for a path, tied to a path of the parameter node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

NOWHERE = Path()
"""The value of a path that is not chosen."""


class PathField:
    """A ctkPathLineEdit: a file or a folder, chosen or typed; an empty one is `NOWHERE`.

    Slicer's own connector of such a field writes every change back into it at once. The cursor
    jumps to the end, and a dot at the beginning or a slash at the end is gone before the rest of
    the path can be typed. Nor does it hear when the field is emptied: CTK reports the paths that
    it accepts, and of an empty one only that it is none.

    Args:
        edit: The widget; without name filters, or it would keep paths to itself that do not fit.
        on_change: Called with the path when a person has chosen or typed another one.
    """

    def __init__(self, edit: Any, on_change: Callable[[Path], None]) -> None:
        self._edit = edit
        self._on_change = on_change
        self._known = self.path
        edit.connect("currentPathChanged(QString)", self._written)
        edit.connect("validInputChanged(bool)", self._written)

    @property
    def path(self) -> Path:
        """What is written."""
        return Path(str(self._edit.currentPath).strip())

    def show(self, path: Path) -> None:
        """Write a path; what a person is typing is left alone while it says the same."""
        self._known = path
        if path != self.path:
            self._edit.currentPath = "" if path == NOWHERE else str(path)

    def _written(self, _what: Any = None) -> None:
        path = self.path
        if path != self._known:
            self._known = path
            self._on_change(path)
