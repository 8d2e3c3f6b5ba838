"""Every picture is saved here: whole or not at all, names in any script legible."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.figures.fonts import make_legible
from BrainLandmarksLib.io.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Save a figure as PNG, or as JPEG if it is called ``.jpg``; no window is needed.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    make_legible(figure)
    canvas = FigureCanvasAgg(figure)
    with atomic_write(path) as unfinished:
        if Path(path).suffix == ".jpg":
            canvas.print_jpg(str(unfinished), pil_kwargs={"quality": 80, "optimize": True})
        else:
            canvas.print_png(str(unfinished))
