"""What would stop and wait for the user: recorded, and answered by the test beforehand.

    desktop.dialogs.answer(False)           # the next question is answered with No or Cancel
    desktop.dialogs.choose("a.nrrd")   # the next file dialog returns this path
    assert desktop.dialogs.texts("error") == []

Without an answer a question is confirmed, as Slicer does under --testing, and a file dialog is
cancelled. Any other modal dialog raises an exception.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field

import slicer.util
from PySide6 import QtWidgets

from .pythonqt import PythonQtError

BOX, DIALOG = QtWidgets.QMessageBox, QtWidgets.QDialog


@dataclass(frozen=True)
class Message:
    """A message box, a short message or a file dialog."""

    kind: str  # error, warning, info, delay, file
    text: str
    title: str = ""


@dataclass
class Dialogs:
    """All that was shown, and the answers still to be given."""

    shown: list[Message] = field(default_factory=list)
    answers: deque[bool] = field(default_factory=deque)
    files: deque = field(default_factory=deque)

    def answer(self, *values: bool) -> None:
        """Answer the next questions."""
        self.answers.extend(values)

    def choose(self, *paths) -> None:
        """Choose in the next file dialogs; several files at once are a tuple."""
        self.files.extend(paths)

    def texts(self, kind: str) -> list[str]:
        """The texts of one kind, in order."""
        return [message.text for message in self.shown if message.kind == kind]

    def clear(self) -> None:
        """Forget everything."""
        for part in (self.shown, self.answers, self.files):
            part.clear()

    # in place of slicer.util and Qt

    def message_box(self, text, parent=None, windowTitle="", standardButtons=None, **options):
        """`slicer.util.messageBox`."""
        return self._ask("info", text, windowTitle, standardButtons or BOX.Ok)

    def message_display(self, level, text, result, mainWindowNeeded=False, **options):
        """What infoDisplay, errorDisplay, confirmOkCancelDisplay and their kin call."""
        kind = logging.getLevelName(level).lower()
        return self._ask(kind, text, options.get("windowTitle"), options["standardButtons"])

    def delay_display(self, message, autoCloseMsec=1000, parent=None, **options):
        """`slicer.util.delayDisplay`, without the delay."""
        self.shown.append(Message("delay", message))
        slicer.app.processEvents()

    def _ask(self, kind, text, title, buttons):
        self.shown.append(Message(kind, str(text), title or ""))
        yes = [b for b in (BOX.Ok, BOX.Yes, BOX.Retry) if buttons & b]
        no = [b for b in (BOX.Cancel, BOX.No, BOX.Close) if buttons & b]
        if not no:
            return (yes or [buttons])[0]
        answer = self.answers.popleft() if self.answers else BOX.Retry not in yes
        return yes[0] if answer else no[0]

    def _file(self, name):
        def dialog(parent=None, caption="", folder="", filters="", *more):
            self.shown.append(Message("file", caption, name))
            several = name == "getOpenFileNames"
            path = self.files.popleft() if self.files else () if several else ""
            return tuple(map(str, path)) if several else str(path)

        return staticmethod(dialog)

    def install(self) -> None:
        """Put these in the place of everything that would open a window and wait."""
        slicer.util._messageDisplay = self.message_display
        slicer.util.messageBox = self.message_box
        slicer.util.delayDisplay = self.delay_display
        for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName"):
            setattr(QtWidgets.QFileDialog, name, self._file(name))
        QtWidgets.QFileDialog.getExistingDirectory = self._file("getExistingDirectory")

        def modal(*values, **options):
            raise PythonQtError("a modal dialog would wait for the user")

        for cls in (DIALOG, BOX, *DIALOG.__subclasses__(), QtWidgets.QMenu):
            cls.exec = cls.exec_ = modal
        for name in ("question", "information", "warning", "critical", "about"):
            setattr(BOX, name, staticmethod(modal))
        for name in ("getText", "getInt", "getDouble", "getItem"):
            setattr(QtWidgets.QInputDialog, name, staticmethod(modal))
