"""The panel of the module Brain Landmarks, one class for each section."""
