"""Grad-CAM: for every landmark, what the network looked at (paper III-F and IV-D).

``layers`` runs the network forwards to a layer and gradients back to it; ``maps`` is the paper's
equations on one cube; ``explanation`` puts the maps into the scan's space; ``output`` and
``figures`` write them down; ``focus`` measures them; ``comparison`` and ``sanity`` are the two
reports. A map shows where evidence for a point came from. It says nothing about how sure or how
right the point is.
"""
