"""Small pictures drawn in code: colour swatches and confidence bars."""

from __future__ import annotations

import functools
from typing import Any

import qt

SWATCH_PX = 12
BAR_PX = (48, 14)
DIGITS_PX = 10

_GOOD, _FAIR, _POOR = "#2e9e5b", "#e0a100", "#d4472f"
_TRACK, _DIGITS = "#c4c4c4", "#101010"
GOOD, FAIR = 0.75, 0.5
"""Confidence from which a bar is green, and from which it is yellow; below it is red."""


@functools.cache
def swatch(color: str) -> Any:
    """Icon of a filled square in a colour ``#rrggbb``."""
    pixmap = qt.QPixmap(SWATCH_PX, SWATCH_PX)
    pixmap.fill(qt.QColor(color))
    return qt.QIcon(pixmap)


def bar(confidence: float) -> Any:
    """Pixmap of a horizontal bar for a confidence from 0 to 1, with the number on it."""
    return _bar(round(100 * min(max(confidence, 0.0), 1.0)))


@functools.cache
def _bar(percent: int) -> Any:
    share = percent / 100
    width, height = BAR_PX
    pixmap = qt.QPixmap(width, height)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter()
    painter.begin(pixmap)
    painter.fillRect(0, 0, width, height, qt.QColor(_TRACK))
    color = _GOOD if share >= GOOD else _FAIR if share >= FAIR else _POOR
    painter.fillRect(0, 0, round(share * width), height, qt.QColor(color))
    font = qt.QFont()
    font.setPixelSize(DIGITS_PX)
    painter.setFont(font)
    painter.setPen(qt.QColor(_DIGITS))
    painter.drawText(4, height - 4, f"{share:.2f}")
    painter.end()
    return pixmap
