"""Landmarks in the MRML scene: lists, the session of a review, detection."""
