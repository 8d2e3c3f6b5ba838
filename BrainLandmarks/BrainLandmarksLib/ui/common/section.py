"""Sections of a panel, and slots that report errors to the user."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

import qt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml import requirements

_UNEXPECTED = (
    "something unexpected happened; copy the diagnostics and report it. Your landmarks are as they "
    "were."
)


def reports_errors(method: Callable[..., None]) -> Callable[..., None]:
    """Show in the panel what a slot raises; for what a user does.

    What the user can put right is one sentence, and so is a package that is not installed yet.
    Anything else is a mistake of ours: Qt would only print it, so the panel says so, too, and keeps
    the trace for the diagnostics.
    """
    return _reporting(method, anew=True)


def heard(method: Callable[..., None]) -> Callable[..., None]:
    """As `reports_errors`, for what happens by itself: an answer, a timer, a change in the scene.

    The sentence that is shown stays until there is another one.
    """
    return _reporting(method, anew=False)


def _reporting(method: Callable[..., None], *, anew: bool) -> Callable[..., None]:
    @wraps(method)
    def call(self: Any, *arguments: Any) -> None:
        show = self.show_error
        if anew:
            show("")
        try:
            method(self, *arguments)
        except UserError as error:
            show(str(error))
        except ModuleNotFoundError as error:
            sentence = requirements.lacking(error)
            if sentence is None:
                show(_UNEXPECTED, traceback.format_exc())
                raise
            show(sentence)
        except Exception:
            show(_UNEXPECTED, traceback.format_exc())
            raise

    return call


def later(function: Callable[[], None]) -> None:
    """Call a function when Qt and the scene are done with what goes on now."""
    qt.QTimer.singleShot(0, function)


class SectionPanel(Protocol):
    """What a section needs of its panel; `messages.Messages` has it."""

    ui: Any
    """The widgets by name."""

    def show_error(self, sentence: str, detail: str = "") -> None:
        """One sentence at the top of the panel; an empty one takes it away."""

    def status(self, sentence: str) -> None:
        """One sentence below the buttons."""


class Section:
    """A section of a panel: its widgets and what they do. Sections talk through the panel."""

    def __init__(self, panel: SectionPanel) -> None:
        self.panel: Any = panel
        self.ui = panel.ui
        self.show_error = panel.show_error

    def on_click(self, slots: dict[str, Callable[[], None]]) -> None:
        """Connect buttons by name; the slots take no arguments."""
        for name, slot in slots.items():
            # clicked(bool) would fill the first parameter of the slot; the lambda swallows it.
            getattr(self.ui, name).connect("clicked(bool)", lambda _checked, slot=slot: slot())
