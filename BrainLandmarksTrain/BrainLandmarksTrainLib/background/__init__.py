"""A training in the background, which outlives Slicer."""
