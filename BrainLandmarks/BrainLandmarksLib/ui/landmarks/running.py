"""A section with a button that lets the worker do something with the volume, or cancels it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure, VolumeRun
from BrainLandmarksLib.ui.common.installing import Installer
from BrainLandmarksLib.ui.common.section import heard, reports_errors
from BrainLandmarksLib.ui.landmarks.section import SessionPanel, SessionSection


class RunSection(SessionSection):
    """A run from the click to what it brings: progress, cancelling, and what is no head.

    A subclass makes its ``_installer``, and says what its run is (`_new_run`) and what is done with
    what it brings (`_take`).
    """

    CLOSED = ""
    """What is said where the volume was closed meanwhile."""

    ANYWAY = ""
    """The question whether what is no head is wanted all the same."""

    _installer: Installer

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)
        self.run: VolumeRun | None = None

    def _new_run(
        self, volume: Any, on_end: Callable[[Any], None], force: bool
    ) -> Callable[[], VolumeRun]:
        """What starts a run; raises what keeps it from being started."""
        raise NotImplementedError

    def _take(self, volume: Any, outcome: Any) -> None:
        """Show what a run has brought."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End a run that is under way."""
        if self.run is not None:
            self.run.cancel()
            self.panel.host.watch()

    @reports_errors
    def start_or_cancel(self) -> None:
        """The one button."""
        if self.run is not None:
            self.cancel()
        else:
            self._start(self.panel.volume())

    def _start(self, volume: Any, force: bool = False) -> None:
        """Start a run.

        Args:
            force: Bring what was found even where it is no head.
        """
        if volume is None:
            raise UserError("choose the MRI of a head first, or load the sample head.")
        start = self._new_run(volume, partial(self._ended, volume), force)
        if not self._installer.ready():
            return
        self.ui.progressBar.setVisible(True)
        self.ui.progressBar.setValue(0)
        self.run = run = start()
        if run.over:  # the volume could not even be written
            self.run = None
        self.panel.host.watch()
        self.panel.refresh()

    @heard
    def _progress(self, words: str, fraction: float, seconds: float | None) -> None:
        self.ui.progressBar.setValue(round(1000 * fraction))
        left = "" if seconds is None else f", about {max(seconds, 1):.0f} s left"
        self.panel.status(f"{words[0].upper()}{words[1:]}{left} …")

    @heard
    def _ended(self, volume: Any, outcome: Any) -> None:
        self.run = None
        self.ui.progressBar.setVisible(False)
        self.panel.status("")
        if outcome is None:
            self.panel.status("Cancelled.")
        elif isinstance(outcome, Failure):
            self.show_error(
                outcome.sentence, outcome.detail or self.panel.host.worker.diagnostics()
            )
            if outcome.implausible and self._wanted_all_the_same(volume, outcome.sentence):
                self.show_error("")
                self._start(volume, force=True)
                return
        elif volume.GetScene() is None:
            self.show_error(self.CLOSED)
        else:
            self._take(volume, outcome)
        self.panel.refresh()

    def _wanted_all_the_same(self, volume: Any, sentence: str) -> bool:
        return volume.GetScene() is not None and bool(
            slicer.util.confirmYesNoDisplay(f"{sentence[0].upper()}{sentence[1:]}\n\n{self.ANYWAY}")
        )
