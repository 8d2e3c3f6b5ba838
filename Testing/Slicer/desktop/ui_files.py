"""Qt Designer's files: a QUiLoader that knows the custom widgets and forgives nothing.

Qt passes over a class, property or connection that it does not know, and reads a value that is none
as 0; here each of them is an error.
"""

from __future__ import annotations

import inspect
import re
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools

from .pythonqt import PythonQtError
from .widgets import WIDGETS

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def _is_ours(kind: str, name: str) -> bool:
    member = inspect.getattr_static(WIDGETS.get(kind, object), name, None)
    return isinstance(member, QtCore.Property)


class UiLoader(QtUiTools.QUiLoader):
    """`qt.QUiLoader`."""

    def createWidget(self, kind, parent=None, name=""):
        if kind not in WIDGETS:
            return super().createWidget(kind, parent, name)
        widget = WIDGETS[kind](parent)
        widget.setObjectName(name)
        return widget

    def load(self, device, parent=None):
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        elements = {w.get("name"): w for w in root.iter("widget")}
        if len(elements) < len(list(root.iter("widget"))):
            raise PythonQtError("two widgets have one name")
        known = {*WIDGETS, *self.availableWidgets()}
        unknown = {w.get("class") for w in root.iter("widget")} - known
        if unknown:
            raise PythonQtError(f"no such widgets: {sorted(unknown)}")
        for number in (*root.iter("number"), *root.iter("double")):
            if not NUMBER.fullmatch(number.text or ""):
                raise PythonQtError(f"'{number.text}' is no number")
        for flag in root.iter("bool"):
            if flag.text not in ("true", "false"):
                raise PythonQtError(f"'{flag.text}' is neither true nor false")
        links = [c for group in root.iter("connections") for c in group]
        for group in root.findall("connections"):
            root.remove(group)
        flags = [
            (name, entry)
            for name, element in elements.items()
            for entry in element.findall("property")
            if entry[0].tag in ("enum", "set") and _is_ours(element.get("class"), entry.get("name"))
        ]
        for name, entry in flags:
            elements[name].remove(entry)

        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QBuffer.ReadOnly)
        form = super().load(buffer, parent)
        made = {child.objectName: child for child in form.findChildren(QtCore.QObject)}
        made[form.objectName] = form
        for name, element in elements.items():
            self._check(made[name], element)
        for name, entry in flags:
            values = [
                getattr(made[name], part.split("::")[-1]) for part in entry[0].text.split("|")
            ]
            setattr(made[name], entry.get("name"), sum(values))
        for link in links:
            sender, receiver = (made.get(link.findtext(end)) for end in ("sender", "receiver"))
            if sender is None or receiver is None:
                raise PythonQtError(f"a connection names a widget that is not there: {list(link)}")
            sender.connect(link.findtext("signal"), receiver, link.findtext("slot"))
        return form

    @staticmethod
    def _check(widget, element) -> None:
        for entry in element.findall("property"):
            name = entry.get("name")
            if entry.get("stdset") != "0" and widget.metaObject().indexOfProperty(name) < 0:
                raise PythonQtError(f"{element.get('class')} has no property '{name}'")
