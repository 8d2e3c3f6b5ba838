"""The panel of the Slicer modules, in Qt: what it looks like and what its buttons do.

Everything that is not about widgets lives in ``mrml`` and in the library itself. Written for
PythonQt as Slicer has it, valid with Qt 5.15 and Qt 6.
"""
