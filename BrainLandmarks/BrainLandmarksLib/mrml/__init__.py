"""Between the library and a Slicer scene: volumes out, landmark lists in. Needs slicer and vtk.

No Qt here, so all of it is tested on the real Slicer core without the application.
"""
