"""A picture of the desktop: the module panel beside the four views."""

from __future__ import annotations

from pathlib import Path

from PySide6 import QtCore, QtGui

from .views import SLICES

BAR, GAP = 18, 4
BACKGROUND = "#2b2b2b"


def screenshot(panel, views: dict, path: str | Path, width: int = 420) -> Path:
    """Save the whole panel, as it is laid out at `width` pixels, and the views, two by two.

    `panel` may be None. `views` are what `LayoutManager.views` returns: View by name.
    """
    pictures = {name: _image(view.grab()) for name, view in views.items()}
    columns = [list(pictures)[0::2], list(pictures)[1::2]]
    sides = [max((pictures[n].width() for n in names), default=0) for names in columns]
    right = sum(sides) + 3 * GAP
    below = max(sum(pictures[n].height() + BAR + GAP for n in names) for names in columns)
    shot = None
    if panel is not None:
        if not panel.isVisible():
            panel.resize(width, max(panel.sizeHint().height(), 1))
        shot = panel.grab()
    left, high = (shot.width(), shot.height()) if shot else (0, 0)

    canvas = QtGui.QImage(left + right, max(below + GAP, high), QtGui.QImage.Format_RGB32)
    canvas.fill(QtGui.QColor(BACKGROUND))
    painter = QtGui.QPainter(canvas)
    if shot:
        painter.drawPixmap(0, 0, shot)
    x = left + GAP
    for names, side in zip(columns, sides):
        y = GAP
        for name in names:
            colour = [round(255 * c) for c in SLICES.get(name, ("", (0.5, 0.5, 0.8)))[1]]
            painter.fillRect(x, y, side, BAR, QtGui.QColor(*colour))
            painter.drawText(x + 6, y + BAR - 5, name)
            painter.drawImage(QtCore.QPoint(x, y + BAR), pictures[name])
            y += BAR + pictures[name].height() + GAP
        x += side + GAP
    painter.end()
    canvas.save(str(path))
    return Path(path)


def _image(pixels) -> QtGui.QImage:
    height, width, _ = pixels.shape
    kind = QtGui.QImage.Format_RGB888
    return QtGui.QImage(pixels.data, width, height, 3 * width, kind).copy()
