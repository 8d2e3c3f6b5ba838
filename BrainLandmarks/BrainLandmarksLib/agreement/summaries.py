"""Distances as a few numbers: mean, spread, percentiles and detection rates."""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray

DETECTION_RATES_MM = (2.0, 3.0, 4.0)
"""Limits of the successful detection rates (SDR)."""


def summary(distances: FloatArray) -> dict[str, float]:
    """Mean, standard deviation, median, 90th percentile (mm) and detection rates; NaN are left out.

    A detection rate ``sdr_2`` is the share of distances up to 2 mm.
    """
    e = np.ravel(distances)
    e = e[np.isfinite(e)]
    if len(e) == 0:
        return {"count": 0.0}
    values = {
        "count": float(len(e)),
        "mean": float(e.mean()),
        "std": float(e.std()),
        "median": float(np.median(e)),
        "p90": float(np.quantile(e, 0.9)),
    }
    for limit in DETECTION_RATES_MM:
        values[f"sdr_{limit:g}"] = float((e <= limit).mean())
    return {name: round(value, 4) for name, value in values.items()}
