"""HighRes3DNet, its inference form, the decoding of heatmaps, and model files."""

PARTS = ("locator", "fine", "refinement")
"""The networks of a model that find landmarks, in the order in which they see a head and are
trained."""

PARCELLATION = "parcellation"
"""The network that names structures; it is trained after them."""

ATTENTION = ("none", "squeeze_excitation")
"""What may weigh the features of the networks' residual blocks."""
