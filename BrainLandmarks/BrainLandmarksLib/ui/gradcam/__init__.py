"""The panel of the Grad-CAM module, in Qt, with the same rules as that of Brain Landmarks."""
