"""The worker: one process beside Slicer that holds PyTorch and the models, and answers requests.

``server`` is what runs in it (``brainlandmarks serve``); ``client`` starts it, talks to it and
survives its end; ``messages`` is what the two say to each other; ``process`` starts and ends whole
process trees. All but the server's jobs use the standard library alone, so Slicer's own process
never imports PyTorch.
"""
