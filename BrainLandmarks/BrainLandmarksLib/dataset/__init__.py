"""Datasets: scans with their landmarks, splits, checks, import and ratings."""

from .dataset import Dataset, Entry, Sample

__all__ = ["Dataset", "Entry", "Sample"]
