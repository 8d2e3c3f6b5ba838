"""Scan planes on a head: where they lie, the slices to take, and how sure they are.

>>> for each in prescribe(landmarks):
...     print(each.plane.name, each.frame.normal if each.frame else each.reason)
"""

from .prescription import Prescription, prescribe

__all__ = ["Prescription", "prescribe"]
