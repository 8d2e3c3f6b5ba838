"""What the modules use of the extension SlicerDevelopmentToolbox."""
