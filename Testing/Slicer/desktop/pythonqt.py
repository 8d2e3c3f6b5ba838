"""PySide6 with the manners of PythonQt, as far as a module can notice them.

In Slicer a Qt property is a value and hides the getter of its name (`button.text`, never
`button.text()`); its setter works both ways. Signals are connected by signature or by attribute; a
slot gets as many arguments as it has positional parameters, those with defaults included. A name
that C++ lacks can be neither read nor set. Importing this module changes PySide6 for the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import inspect
import re
import sys

import shiboken6
from PySide6 import QtCore, QtGui, QtTest, QtUiTools, QtWidgets

from . import errors

if sys.version_info < (3, 12):
    # PySide6 6.12 releases None once too often in every call that returns it. Since Python 3.12
    # None is immortal; before, some ten thousand calls end the process, unless None has references
    # to spare.
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40

MODULES = (QtCore, QtGui, QtWidgets, QtUiTools, QtTest)
QObject, SignalInstance = QtCore.QObject, QtCore.SignalInstance
_get, _set = QObject.__getattribute__, QObject.__mro__[1].__setattr__
_connect_native, _disconnect_native = QObject.connect, QObject.disconnect


class PythonQtError(RuntimeError):
    """What PythonQt only prints to the console, such as connecting to an unknown signal."""


def cpp(cls):
    """Mark a class written here as the stand-in for a C++ class of the same name.

    Its CPP_SIGNALS are the true signatures of its signals. Each is the Python signal of that name;
    an overload of one named before it is the Python signal with an underscore in front.
    """
    table = dict(getattr(cls.__base__, "CPP_SIGNALS", {}))
    for signature in vars(cls).get("CPP_SIGNALS", ()):
        name = signature.partition("(")[0]
        table[signature] = "_" + name if name in table.values() else name
    cls.CPP_SIGNALS = table
    _refuse_keywords(cls)
    return cls


def _is_cpp(obj) -> bool:
    kind = type(obj)
    return kind.__module__.startswith("PySide6.") or "CPP_SIGNALS" in vars(kind)


# ---- properties ---------------------------------------------------------------------------------


class QtProperty:
    """A Q_PROPERTY as an attribute."""

    def __init__(self, meta):
        self.meta, self.name = meta, meta.name()

    def __get__(self, obj, owner=None):
        if obj is None:
            return self
        value = self.meta.read(obj)
        return tuple(value) if isinstance(value, list) else value

    def __set__(self, obj, value):
        kind = self.meta.typeName()
        if not self.meta.isWritable():
            raise AttributeError(f"property '{self.name}' of {type(obj).__name__} is read-only")
        empty = value is None and not kind.endswith("*") and kind != "QVariant"
        if empty or not self.meta.write(obj, value):
            raise AttributeError(f"property '{self.name}' ({kind}) does not accept {value!r}")


ACCEPTED = {bool: (bool, int), int: (int,), float: (float, int), str: (str,)}


def stored(name: str, kind, default, changed=None):
    """A property of a stand-in that is only remembered; `changed(widget)` hears of a new value."""
    key = "_" + name

    def read(self):
        return self.__dict__.get(key, default)

    def write(self, value):
        if kind == "QStringList":
            good = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
            value = tuple(value) if good else value
        else:
            good = isinstance(value, ACCEPTED.get(kind, object))
        if not good:
            raise AttributeError(f"property '{name}' of {type(self).__name__} refuses {value!r}")
        if value != read(self):
            self.__dict__[key] = value
            if changed:
                changed(self)

    return QtCore.Property(kind, read, write)


def _set_attribute(self, name, value):
    if isinstance(value, SignalInstance):  # PySide6 remembering a bound signal
        return _set(self, name, value)
    own, kind = _is_cpp(self), type(self).__name__
    if own and isinstance(value, QObject) and QObject.objectName.__get__(value) == name:
        return None  # QUiLoader naming the children of a form; they are found by name anyway
    member = inspect.getattr_static(type(self), name, None)
    if isinstance(member, QtCore.Property):
        if member.fset is None:
            raise AttributeError(f"property '{name}' of {kind} is read-only")
        return member.fset(self, value)
    if hasattr(type(member), "__set__"):
        return member.__set__(self, value)
    if own and not name.startswith("_"):
        if member is None and name.encode() in map(bytes, self.dynamicPropertyNames()):
            self.setProperty(name, value)
            return None
        raise AttributeError(f"'{name}' of {kind} cannot be set: no such property in C++")
    return _set(self, name, value)


def _missing_attribute(self, name):
    constant = getattr(type(self), name, None) if name[:1].isupper() else None
    if isinstance(constant, enum.Enum):
        return constant
    if not name.startswith("__") and shiboken6.isValid(self):
        if name.encode() in map(bytes, QObject.dynamicPropertyNames(self)):
            return QObject.property(self, name)
        for child in QObject.children(self):
            if child.objectName == name:
                return child
    raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")


# ---- signals ------------------------------------------------------------------------------------

_links: dict[tuple, list] = {}  # PythonQt, too, keeps what is connected alive


def _wanted(target) -> int | None:
    """How many arguments PythonQt hands to `target`; None for all there are."""
    function = getattr(target, "__func__", target)
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - (function is not target)


def _relay(target):
    wanted = _wanted(target)

    def relay(*values):
        try:
            target(*(tuple(v) if isinstance(v, list) else v for v in values[:wanted]))
        except Exception as error:
            errors.report(error)

    return relay


def _slot(receiver):
    """The callable of `connect(signal, callable)` or `connect(signal, object, "slot(type)")`."""
    target = receiver[0]
    if len(receiver) > 1:
        name, _, types = re.sub(r"^\d", "", receiver[1]).partition("(")
        method, count = getattr(target, name), len([t for t in types.rstrip(")").split(",") if t])
        return lambda *values: method(*values[:count])
    if not callable(target):
        raise TypeError(f"cannot connect to {target!r}: not callable")
    return target


def _remember(owner, name, signature, target, undo):
    key = shiboken6.getCppPointer(owner)[0], name
    _links.setdefault(key, []).append((signature, target, undo))
    return True


def _normal(signal: str) -> tuple[str, str]:
    signature = bytes(QtCore.QMetaObject.normalizedSignature(re.sub(r"^\d", "", signal)).data())
    return signature.decode().partition("(")[0], signature.decode()


def _connect(self, signal, *receiver):
    name, signature = _normal(signal)
    target = _slot(receiver)
    relay = _relay(target)
    own = getattr(type(self), "CPP_SIGNALS", {}).get(signature)
    if own:
        instance = _get(self, own)
        instance.connect(relay)
        return _remember(self, name, signature, target, lambda: instance.disconnect(relay))
    if self.metaObject().indexOfSignal(signature) < 0:
        raise PythonQtError(f"{type(self).__name__} has no signal '{signal}'")
    _connect_native(self, "2" + signature, relay)
    undo = functools.partial(_disconnect_native, self, "2" + signature, relay)
    return _remember(self, name, signature, target, undo)


def _disconnect(self, signal=None, *receiver):
    pointer = shiboken6.getCppPointer(self)[0]
    wanted, signature = _normal(signal) if signal else (None, None)
    signature = signature if signal and "(" in signal else None
    target, found = receiver[0] if receiver else None, False
    for (owner, name), links in list(_links.items()):
        if owner != pointer or (wanted and name != wanted):
            continue
        for link in list(links):
            if signature in (None, link[0]) and target in (None, link[1]):
                links.remove(link)
                found = True
                with contextlib.suppress(RuntimeError):  # an earlier object at the same address
                    link[2]()
    return found


class BoundSignal:
    """A signal as an attribute of its object: `button.clicked.connect(f)`."""

    def __init__(self, owner, name, signal):
        self._owner, self._name, self._signal = owner, name, signal

    def connect(self, target):
        """Connect; of overloaded signals PythonQt would choose one, so the slot must not care."""
        table = getattr(type(self._owner), "CPP_SIGNALS", {})
        own = [s for s in table if s.startswith(self._name + "(")]
        if len(own) > 1 and _wanted(target) != 0:
            raise PythonQtError(f"'{self._name}' is overloaded: connect one of {', '.join(own)}")
        return _connect(self._owner, own[0] if own else self._longest(), target)

    def _longest(self) -> str:
        """The signature with all arguments, those with defaults included."""
        meta = self._owner.metaObject()
        methods = [meta.method(index) for index in range(meta.methodCount())]
        own = [m for m in methods if bytes(m.name()).decode() == self._name]
        longest = max(own, key=lambda method: method.parameterCount())
        return bytes(longest.methodSignature()).decode()

    def disconnect(self, *target):
        return _disconnect(self._owner, self._name, *target)

    def emit(self, *values):
        self._signal.emit(*values)

    __call__ = emit


def _reader(get):
    """Attribute access around a class's own."""

    def _get_attribute(self, name):
        if name == "connect":
            return functools.partial(_connect, self)
        if name == "disconnect":
            return functools.partial(_disconnect, self)
        value = get(self, name)
        return BoundSignal(self, name, value) if type(value) is SignalInstance else value

    return _get_attribute


# ---- what differs class by class ----------------------------------------------------------------

TUPLES = {  # methods that return a QStringList or another list
    QObject: ("children", "findChildren"),
    QtCore.QSettings: ("allKeys", "childKeys", "childGroups"),
    QtCore.QItemSelectionModel: ("selectedIndexes", "selectedRows"),
    QtWidgets.QTableWidget: ("selectedItems", "findItems"),
    QtWidgets.QTreeWidget: ("selectedItems", "findItems"),
    QtWidgets.QListWidget: ("selectedItems", "findItems"),
}
UNPATCHED = ("sizeHint", "minimumSizeHint")  # virtual: PySide6 itself calls them as methods


def _refuse_keywords(cls):
    construct = cls.__init__

    def __init__(self, *values, **keywords):
        if keywords:
            raise PythonQtError(f"{cls.__name__}() takes no keyword arguments: {list(keywords)}")
        construct(self, *values)

    cls.__init__ = __init__


def _returning_tuples(cls, name):
    method = getattr(cls, name)
    setattr(cls, name, lambda self, *values: tuple(method(self, *values)))


def _setting(self, *values, read=QtCore.QSettings.value):
    """What a settings file gives back after a restart: numbers and booleans as text."""
    value = read(self, *values)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def _install() -> None:
    kinds = [getattr(module, name) for module in MODULES for name in dir(module)]
    for cls in dict.fromkeys(k for k in kinds if isinstance(k, type) and issubclass(k, QObject)):
        meta = cls.staticMetaObject
        for index in range(meta.propertyOffset(), meta.propertyCount()):
            entry = meta.property(index)
            timer = cls is QtCore.QTimer and entry.name() == "singleShot"
            if not timer and entry.name() not in UNPATCHED:
                setattr(cls, entry.name(), QtProperty(entry))
        cls.__setattr__ = _set_attribute
        if "__getattribute__" in vars(cls):
            cls.__getattribute__ = _reader(cls.__getattribute__)
        _refuse_keywords(cls)
    for cls, names in TUPLES.items():
        for name in names:
            _returning_tuples(cls, name)
    QtCore.QSettings.value = _setting
    QObject.name = vars(QObject)["objectName"]
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = shiboken6.delete
    QObject.__getattr__ = _missing_attribute


_install()
