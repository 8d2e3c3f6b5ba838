"""Grad-CAM: for every landmark, what its position is based on (paper III-F and IV-D).

``layers`` runs the network forwards to a layer and gradients back to it; ``maps`` is the paper's
equations on one cube; ``explanation`` puts the maps into the scan's space; ``output`` and
``figures`` write them down; ``focus`` measures them; ``comparison`` and ``sanity`` are the two
reports. A map shows where evidence for a point came from. It says nothing about how sure or how
right the point is.
"""

TARGETS = ("argmax", "softmax")
"""Where a heatmap is read for y_c: at its highest voxel, as in the paper; or, trilinearly, at the
point of the spatial softmax, which is where the landmark is placed."""

SETS = ("landmark", "group", "4d")
"""How maps are put into files: one 3-D file per landmark; one 3-D file per group, at each voxel the
largest of its landmarks' maps; or one 4-D file, a volume per landmark."""
