"""One installation at a time, whichever panel started it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from BrainLandmarksLib.errors import UserError

_under_way: list[bool] = []


def need_no_installation() -> None:
    """Go on only while nothing is being installed.

    Raises:
        UserError: a panel is at it; showing its progress lets other clicks in.
    """
    if _under_way:
        raise UserError("packages are being installed; wait until that is done.")


@contextmanager
def installing(widgets: Sequence[Any]) -> Iterator[None]:
    """Meanwhile widgets cannot be used, and nobody may install anything else.

    Raises:
        UserError: somebody does already.
    """
    need_no_installation()
    before = [bool(widget.enabled) for widget in widgets]
    _under_way.append(True)
    try:
        for widget in widgets:
            widget.setEnabled(False)
        yield
    finally:
        _under_way.clear()
        for widget, enabled in zip(widgets, before, strict=True):
            widget.setEnabled(enabled)
