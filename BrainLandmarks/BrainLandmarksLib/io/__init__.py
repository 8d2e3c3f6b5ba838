"""Reading image files: one module per family of formats, and what all of them check alike.

`BrainLandmarksLib.io.images.reading.read_image` is the one way in; everything here serves it.
"""
