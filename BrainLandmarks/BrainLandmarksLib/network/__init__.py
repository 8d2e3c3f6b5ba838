"""HighRes3DNet, its inference form, the decoding of heatmaps, and model files."""
