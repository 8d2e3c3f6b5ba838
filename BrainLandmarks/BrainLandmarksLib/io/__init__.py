"""Reading image files: one module per family of formats, and what all of them check alike.

`BrainLandmarksLib.images.read_image` is the one way in; everything here serves it.
"""
