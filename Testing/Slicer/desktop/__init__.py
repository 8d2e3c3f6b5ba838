"""A small stand-in for the Slicer desktop: panel, scene and views in one process, without a screen.

Slicer itself cannot be installed by pip. Its C++ core can (`slicer-core`), and so can Qt
(`PySide6-Essentials`). This package puts the two together so that a scripted module can be loaded,
clicked, dragged with the mouse and shown on screenshots. Real are the scene, its nodes, the
logics, the slice and 3D views with their mouse interaction, and `slicer.util`. Imitated are
PythonQt (`pythonqt`, `ui_files`), the widgets of CTK and Slicer (`widgets`), the program (`app`,
`modules`, `input_output`, `dialogs`), and the Python parts of Slicer that the wheel lacks
(`slicer_python`, `sampledata`); those of `slicer_python` give way to the real ones where
HARNESS_SLICER_PYTHON names Base/Python/slicer of a Slicer checkout. Start with `session.Desktop`.
"""

import os

# Read by Qt and VTK when they are loaded: no screen, and enumerations that are numbers.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x2")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
