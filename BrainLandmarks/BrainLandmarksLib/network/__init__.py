"""HighRes3DNet, its inference form, the decoding of heatmaps, and model files."""

PARTS = ("locator", "fine", "refinement")
"""The networks of a model, in the order in which they see a head and are trained."""
