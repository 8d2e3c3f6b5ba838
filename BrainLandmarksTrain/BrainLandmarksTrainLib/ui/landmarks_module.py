"""The module Brain Landmarks, which corrects the landmarks that this module loads."""

from __future__ import annotations

from typing import Any

import slicer
import slicer.util

NAME = "BrainLandmarks"


def release(volume: Any) -> None:
    """Let it go of a volume whose lists are about to change, or it would record that as edits."""
    panel = _panel()
    if panel is not None and panel.session is not None and panel.session.volume is volume:
        panel.leave()
        panel.refresh()


def end_preview() -> None:
    """Let it show nothing in the lists that waits for an answer; they are about to be read."""
    panel = _panel()
    if panel is not None:
        panel.end_preview()


def take_up(volume: Any) -> None:
    """Let it go on with a volume that it was working on."""
    panel = _panel()
    if panel is not None and panel.session is None and panel.volume() is volume:
        panel.set_volume(volume)


def correct(volume: Any) -> None:
    """Open it with a volume."""
    slicer.util.selectModule(NAME)  # first: it shows the scene's choice when it is entered
    slicer.util.getModuleWidget(NAME).panel.choose(volume)
    take_up(volume)


def _panel() -> Any:
    """Its panel; None where it was never shown."""
    widget = getattr(slicer.modules, f"{NAME}Widget", None)
    return None if widget is None else widget.panel
