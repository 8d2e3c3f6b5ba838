"""Scans of people as training samples."""
