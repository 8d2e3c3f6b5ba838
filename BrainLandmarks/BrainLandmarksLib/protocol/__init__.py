"""Landmark sets: what the landmarks are, where they were put, and the rules they obey."""

from .protocol import (
    Chain,
    Distance,
    Group,
    Landmark,
    Plane,
    Protocol,
    is_shipped,
    load_protocol,
)
from .scan_planes import ScanPlane

__all__ = [
    "Chain",
    "Distance",
    "Group",
    "Landmark",
    "Plane",
    "Protocol",
    "ScanPlane",
    "is_shipped",
    "load_protocol",
]
