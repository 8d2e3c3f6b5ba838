"""The panel of the module Brain Landmarks Training."""
