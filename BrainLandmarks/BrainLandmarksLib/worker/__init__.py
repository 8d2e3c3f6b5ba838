"""The worker: one process beside Slicer that holds PyTorch and the models, and answers requests.

``server`` is what runs in it (``brainlandmarks serve``); ``client`` starts it, talks to it and
survives its end; ``messages`` is what the two say to each other.

Commands run in processes of their own as well: ``command_run`` starts one that ends with Slicer,
``background_run`` one that outlives it (a training). All three are started and ended by
``process_tree``, report by ``last_words`` how they ended, and learn by ``launcher`` when the
launcher that started them ends.

All but the server's jobs use the standard library alone, so Slicer's own process never imports
PyTorch.
"""
