"""Asking for the packages that are missing, and installing them, from a panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import slicer
import slicer.util

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.ui.common.busy import installing, need_no_installation
from BrainLandmarksLib.ui.common.host import WorkerHost
from BrainLandmarksLib.ui.common.section import SectionPanel


class InstallingPanel(SectionPanel, Protocol):
    """What an installation needs of its panel."""

    host: WorkerHost


class Installer:
    """Sees to it that the worker can run.

    Args:
        panel: Shows what goes on.
        buttons: Those that would start an installation; none may start a second one.
        on_installed: Called when packages were installed.
    """

    def __init__(
        self,
        panel: InstallingPanel,
        buttons: list[Any],
        on_installed: Callable[[], None] = lambda: None,
    ) -> None:
        self._panel = panel
        self._buttons = buttons
        self._on_installed = on_installed
        self._ready: set[tuple[bool, bool]] = set()

    def ready(self, *, training: bool = False, federated: bool = False) -> bool:
        """Whether the packages are there; asks once and installs them if not.

        Args:
            training: Those for training as well.
            federated: Those for training with other sites as well.

        Raises:
            UserError: another panel is installing some.
        """
        if (
            training,
            federated,
        ) in self._ready:  # looking takes 30 ms, and nobody takes packages away
            return True
        need_no_installation()
        needed = requirements.missing(training=training, federated=federated)
        if needed and not self._possible(needed):
            return False
        if needed and slicer.util.confirmOkCancelDisplay(needed.sentence):
            self.install(needed, None)
        if requirements.missing(training=training, federated=federated):
            return False
        self._ready.add((training, federated))
        return True

    def _possible(self, needed: requirements.Missing) -> bool:
        """Whether it can be installed here; says so if not."""
        try:
            needed.need_possible()
        except UserError as error:
            self._panel.show_error(str(error))
            return False
        return True

    def install(self, needed: requirements.Missing, folder: str | None) -> None:
        """Install packages, from a folder of wheels if one is given.

        Raises:
            UserError: another panel is installing some.
        """
        if not self._possible(needed):
            return
        self._panel.status("Installing; this takes some minutes …")
        with installing(self._buttons):
            slicer.app.processEvents()
            try:
                requirements.install(needed, folder, log=self._panel.status)
            except requirements.InstallError as error:
                self._panel.status("")
                self._panel.show_error(str(error), error.detail)
            else:
                self._panel.status("Installed.")
                self._panel.host.worker.stop()  # one that was started without them
                self._on_installed()
