"""Where the head is in an image, and where air."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.imaging.volume import Volume


def foreground(volume: Volume) -> npt.NDArray[np.bool_]:
    """Which voxels are head rather than air; (I, J, K).

    Otsu's threshold (IEEE Trans. SMC 9, 1979) on the square root of the intensities, which
    splits air from tissue rather than dark from bright tissue. Expects air near 0
    (`intensity.subtract_background`).
    """
    values = np.sqrt(np.clip(volume.data, 0, None))
    top = float(np.percentile(values, 99.5))
    if top <= 0:
        return np.zeros(volume.data.shape, dtype=bool)
    counts, edges = np.histogram(values, bins=128, range=(0, top))
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
        between = np.where((below > 0) & (above > 0), below * above * gap**2, 0)
    return np.asarray(values > edges[1 + int(between.argmax())])
