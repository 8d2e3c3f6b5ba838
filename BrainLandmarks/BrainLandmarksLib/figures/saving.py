"""Every picture is saved here: whole or not at all, names in any script legible."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from BrainLandmarksLib.figures.fonts import make_legible
from BrainLandmarksLib.io.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Save a figure as PNG; no window is needed.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    make_legible(figure)
    with atomic_write(path) as unfinished:
        FigureCanvasAgg(figure).print_png(str(unfinished))
