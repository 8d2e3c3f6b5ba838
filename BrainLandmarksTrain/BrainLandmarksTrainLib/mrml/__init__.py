"""Where training meets Slicer: commands without a window, and what they need of saved scenes."""
