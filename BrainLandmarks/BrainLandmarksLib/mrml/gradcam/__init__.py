"""Grad-CAM maps in the MRML scene."""
