"""Automatic detection of anatomical landmarks in head MRI.

Importing the package is cheap: PyTorch, NiBabel and Matplotlib are imported by the modules that
need them, when they need them.

>>> from BrainLandmarksLib.protocol import load_protocol
>>> len(load_protocol("brain88"))
88
"""

__version__ = "0.1.0"

PROGRAM = "brainlandmarks"
"""Name of the command line."""
