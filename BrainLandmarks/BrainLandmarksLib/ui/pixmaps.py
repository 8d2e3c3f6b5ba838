"""Small pictures drawn in code: colour swatches and confidence bars."""

from __future__ import annotations

import functools
from typing import Any

import qt

SWATCH_PX = 12
BAR_PX = (64, 10)
BAR_STEPS = 20

_GOOD, _FAIR, _POOR = "#2e9e5b", "#e0a100", "#d4472f"
_TRACK = "#9a9a9a"
GOOD, FAIR = 0.75, 0.5
"""Confidence from which a bar is green, and from which it is yellow; below it is red."""


@functools.cache
def swatch(color: str) -> Any:
    """Icon of a filled square in a colour ``#rrggbb``."""
    pixmap = qt.QPixmap(SWATCH_PX, SWATCH_PX)
    pixmap.fill(qt.QColor(color))
    return qt.QIcon(pixmap)


def bar(confidence: float) -> Any:
    """Pixmap of a horizontal bar for a confidence from 0 to 1."""
    return _bar(round(min(max(confidence, 0.0), 1.0) * BAR_STEPS))


@functools.cache
def _bar(step: int) -> Any:
    share = step / BAR_STEPS
    width, height = BAR_PX
    pixmap = qt.QPixmap(width, height)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter()
    painter.begin(pixmap)
    track = qt.QColor(_TRACK)
    track.setAlpha(90)
    painter.fillRect(0, 2, width, height - 4, track)
    color = _GOOD if share >= GOOD else _FAIR if share >= FAIR else _POOR
    painter.fillRect(0, 2, round(share * width), height - 4, qt.QColor(color))
    painter.end()
    return pixmap
