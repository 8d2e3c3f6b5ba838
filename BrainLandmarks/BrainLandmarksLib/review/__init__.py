"""Corrections of landmarks, each on record."""

from .edits import Edit, Review, read_review, write_review

__all__ = ["Edit", "Review", "read_review", "write_review"]
