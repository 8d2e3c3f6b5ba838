"""Landmark files: one module for each format; `formats` chooses by the suffix."""

from .formats import FORMATS, read_landmarks, write_landmarks

__all__ = ["FORMATS", "read_landmarks", "write_landmarks"]
