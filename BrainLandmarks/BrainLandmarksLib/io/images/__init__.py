"""Image files of every kind, read into RAS."""

from .reading import DICOM_SUFFIXES, ITK_SUFFIXES, NIBABEL_SUFFIXES, read_grid, read_image, stem

__all__ = [
    "DICOM_SUFFIXES",
    "ITK_SUFFIXES",
    "NIBABEL_SUFFIXES",
    "read_grid",
    "read_image",
    "stem",
]
