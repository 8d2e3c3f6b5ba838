"""How much a worse scan costs, and how far the landmarks move when a head is scanned again.

>>> from BrainLandmarksTrainLib.evaluation.robustness.runner import Plan, measure
>>> results = measure(Plan("brain88", DatasetScans(Path("oasis"), "test")), Path("report"))
>>> print(results.table().markdown())

From what is scanned to what is written: `scans` (held-out heads or a dataset), `contrasts` (other
sequences than T1), `conditions` (what is done to a scan), `runner` (every scan in every
condition, in any number of processes, resumable), `results` (tables and the plot), and `retest`
(one head, again and again).
"""
