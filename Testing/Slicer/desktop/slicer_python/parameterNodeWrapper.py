"""`slicer.parameterNodeWrapper` for fields of int, float, str, bool, Path, Enum and nodes.

A value is kept in the parameter node as text or node reference, as the real wrapper keeps it, so
either can read the other's scenes. Values of another type are a TypeError (numpy's scalars too),
values that an annotation forbids a ValueError.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass
from pathlib import Path

import ctk
import qt
import slicer
import vtk

__all__ = ["Choice", "Default", "Maximum", "Minimum", "WithinRange", "parameterNodeWrapper"]

PROPERTY = "SlicerParameterName"


# ---- annotations --------------------------------------------------------------------------------


class Default:
    """The value of a new parameter node."""

    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


@dataclass(frozen=True)
class WithinRange:
    """Between two bounds, both included."""

    minimum: float
    maximum: float

    def allows(self, value):
        return self.minimum <= value <= self.maximum


@dataclass(frozen=True)
class Minimum:
    """Not less."""

    minimum: float

    def allows(self, value):
        return value >= self.minimum


@dataclass(frozen=True)
class Maximum:
    """Not more."""

    maximum: float

    def allows(self, value):
        return value <= self.maximum


@dataclass(frozen=True)
class Choice:
    """One of these."""

    choices: list

    def allows(self, value):
        return value in self.choices


# ---- a field ------------------------------------------------------------------------------------

ACCEPTED = {int: (int,), float: (int, float), str: (str,), bool: (bool,), Path: (Path,)}


class Field:
    """One typed value of a parameter node; basename, default and unalteredType as in Slicer."""

    def __init__(self, name, annotation, default=None):
        self.basename, self.unalteredType = name, annotation
        arguments = typing.get_args(typing.Annotated[annotation, None])
        self.kind, self.notes = arguments[0], arguments[1:-1]
        self.is_enum = isinstance(self.kind, type) and issubclass(self.kind, enum.Enum)
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        if not (self.is_enum or self.is_node or self.kind in ACCEPTED):
            raise TypeError(f"the stand-in does not know fields like '{name}: {annotation}'")
        defaults = [default] if default else [n for n in self.notes if isinstance(n, Default)]
        empty = next(iter(self.kind)) if self.is_enum else None if self.is_node else self.kind()
        self.default = defaults[0] if defaults else Default(empty)

    def note(self, *kinds):
        return next((n for n in self.notes if isinstance(n, kinds)), None)

    def check(self, value):
        if not (self.is_node and value is None):
            if not isinstance(value, ACCEPTED.get(self.kind, (self.kind,))):
                raise TypeError(f"'{self.basename}' is {self.kind.__name__}, not {type(value)}")
            for note in self.notes:
                if hasattr(note, "allows") and not note.allows(value):
                    raise ValueError(f"'{self.basename}' cannot be {value!r}: {note}")

    def is_in(self, node):
        return node.HasParameter(self.basename)

    def write(self, node, value):
        self.check(value)
        if self.is_node:
            node.SetParameter(self.basename, "")
            node.SetNodeReferenceID(self.basename, value.GetID() if value is not None else None)
        elif self.is_enum:
            node.SetParameter(self.basename, value.name)
        else:
            node.SetParameter(self.basename, str(self.kind(value)))

    def read(self, node):
        if not self.is_in(node):
            self.write(node, self.default.value)
        if self.is_node:
            return node.GetNodeReference(self.basename)
        text = node.GetParameter(self.basename)
        if self.is_enum:
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)


# ---- widgets ------------------------------------------------------------------------------------


class Binding:
    """One field and one widget; which property carries the value depends on the widget's class."""

    PROPERTIES: typing.ClassVar = {
        (bool, qt.QCheckBox): ("checked", "toggled(bool)"),
        (bool, ctk.ctkCheckBox): ("checked", "toggled(bool)"),
        (bool, qt.QPushButton): ("checked", "toggled(bool)"),
        (int, qt.QSpinBox): ("value", "valueChanged(int)"),
        (int, qt.QSlider): ("value", "valueChanged(int)"),
        (float, qt.QDoubleSpinBox): ("value", "valueChanged(double)"),
        (float, ctk.ctkSliderWidget): ("value", "valueChanged(double)"),
        (str, qt.QLineEdit): ("text", "textChanged(QString)"),
        (Path, ctk.ctkPathLineEdit): ("currentPath", "currentPathChanged(QString)"),
        (Path, ctk.ctkDirectoryButton): ("directory", "directoryChanged(QString)"),
    }

    def __init__(self, field, widget, changed):
        self.field, self.widget, self.choices = field, widget, None
        kind, options = type(widget), field.note(Choice)
        if kind in (qt.QComboBox, ctk.ctkComboBox) and (options or field.is_enum):
            self._fill(list(field.kind) if field.is_enum else list(options.choices))
            self.property, self.signal = "currentIndex", "currentIndexChanged(int)"
        elif kind is slicer.qMRMLNodeComboBox and field.is_node:
            widget.nodeTypes = [field.kind.__name__]
            self.property, self.signal = None, "currentNodeChanged(vtkMRMLNode*)"
        elif (field.kind, kind) in self.PROPERTIES:
            self.property, self.signal = self.PROPERTIES[field.kind, kind]
            if "value" in self.signal:
                self._bound(widget)
        else:
            raise RuntimeError(
                f"no way to show '{field.basename}: {field.unalteredType}' in {kind}"
            )
        self.changed = lambda: changed(field.basename, self.read())

    def _bound(self, widget):
        low, high = self.field.note(WithinRange, Minimum), self.field.note(WithinRange, Maximum)
        limit = 2**31 - 1 if self.field.kind is int else float("inf")
        if type(widget) in (qt.QSlider, ctk.ctkSliderWidget) and not (low and high):
            raise RuntimeError(f"a slider needs bounds, and '{self.field.basename}' has none")
        widget.setRange(low.minimum if low else -limit, high.maximum if high else limit)

    def _fill(self, choices):
        self.choices = choices
        self.widget.clear()
        for choice in choices:
            label = getattr(choice, "label", lambda c=choice: getattr(c, "name", str(c)))
            self.widget.addItem(label())

    def read(self):
        if self.property is None:
            return self.widget.currentNode()
        value = getattr(self.widget, self.property)
        if self.field.kind is Path:
            return Path(value)
        return self.choices[value] if self.choices else value

    def write(self, value):
        if self.property is None:
            self.widget.setCurrentNode(value)
        else:
            if self.choices:
                value = self.choices.index(value)
            value = str(value) if self.field.kind is Path else value
            # Writing a text moves the cursor, so Slicer asks first; of a path it does not.
            if self.property != "text" or value != self.widget.text:
                setattr(self.widget, self.property, value)

    def connect(self):
        self.widget.connect(self.signal, self.changed)

    def disconnect(self):
        self.widget.disconnect(self.signal, self.changed)


# ---- the wrapper --------------------------------------------------------------------------------


class _Methods:
    """What a wrapped class gains; none of these names can be a field."""

    def __init__(self, parameterNode, prefix=None):
        self.parameterNode, self._bindings, self._updating = parameterNode, {}, False
        for field in self.allParameters.values():
            if not field.is_in(parameterNode):
                field.write(parameterNode, field.default.value)

    def _field(self, name):
        if name not in self.allParameters:
            raise ValueError(f"no parameter '{name}'; there are {sorted(self.allParameters)}")
        return self.allParameters[name]

    def default(self, name):
        return self._field(name).default

    def dataType(self, name):
        return self._field(name).unalteredType

    def isCached(self, name):
        return not self._field(name).is_node

    def getValue(self, name):
        return self._field(name).read(self.parameterNode)

    def setValue(self, name, value):
        self._field(name).write(self.parameterNode, value)

    def connectGui(self, gui):
        inside = (
            gui.findChildren(qt.QWidget) if hasattr(gui, "findChildren") else vars(gui).values()
        )
        named = [w for w in inside if w.property(PROPERTY)]
        return self.connectParametersToGui({w.property(PROPERTY): w for w in named})

    def connectParametersToGui(self, mapping):
        changed = lambda name, value: None if self._updating else self.setValue(name, value)  # noqa: E731
        bindings = [Binding(self._field(n), widget, changed) for n, widget in mapping.items()]
        for binding in bindings:
            binding.write(self.getValue(binding.field.basename))
            binding.connect()
        tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._update())
        self._bindings[tag] = bindings
        return tag

    def disconnectGui(self, tag):
        for binding in self._bindings.pop(tag, ()):
            binding.disconnect()
        self.RemoveObserver(tag)

    def _update(self):
        if self._updating:
            return
        self._updating = True
        try:
            for binding in [b for group in self._bindings.values() for b in group]:
                binding.write(self.getValue(binding.field.basename))
        finally:
            self._updating = False

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, before):
        return self.parameterNode.EndModify(before)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()


def parameterNodeWrapper(cls=None):
    """Make the annotated fields of a class properties that live in a parameter node."""
    if cls is None:
        return parameterNodeWrapper
    gained = {n: m for n, m in vars(_Methods).items() if callable(m)}
    fields = {}
    for name, annotation in typing.get_type_hints(cls, include_extras=True).items():
        if name in gained or name in ("allParameters", "parameterNode"):
            raise ValueError(f"'{name}' is reserved and cannot be a field")
        default = Default(getattr(cls, name)) if hasattr(cls, name) else None
        fields[name] = Field(name, annotation, default)
        setattr(cls, name, _property(name))
    cls.allParameters = fields
    for name, method in gained.items():
        setattr(cls, name, method)
    return cls


def _property(name):
    return property(
        lambda self: self.getValue(name), lambda self, value: self.setValue(name, value)
    )
