"""Pictures: landmarks on slices, plots, the illustrated annotation guide."""
