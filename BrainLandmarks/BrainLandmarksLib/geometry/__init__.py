"""Points, planes, curves and grids in space: NumPy only, nothing of images or landmark sets."""
