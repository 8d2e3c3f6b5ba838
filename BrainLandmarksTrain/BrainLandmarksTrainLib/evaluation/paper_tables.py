"""Tables III and IV of the paper, for any landmarks and any number of configurations.

The paper reports "Mean Absolute Error between the predicted and ground-truth coordinates" and does
not say over what it is taken. Two readings are possible, and both are given:

``per coordinate``
    A landmark's absolute error is the mean of abs(ΔR), abs(ΔA) and abs(ΔS), its RMSE the root of
    the mean of their squares. Cells are mean ± standard deviation over all landmarks of all scans.
``Euclidean``
    A landmark's error is its distance from the truth. MAE is the mean radial error ± its standard
    deviation over all landmarks of all scans; RMSE is taken over the landmarks of a group in one
    scan, then mean ± standard deviation over the scans.

In Table IV the RMSE is 1.15 to 1.20 times the MAE. Normal errors of equal size along the three axes
give 1.15 per coordinate (0.921 σ over 0.798 σ), so that is the likelier reading; the Euclidean
numbers of the same errors are about twice as large.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol import Protocol

READINGS = ("per coordinate", "Euclidean")
"""The two meanings of MAE."""


def absolute_errors(differences: FloatArray, reading: str) -> FloatArray:
    """The errors whose mean is the MAE: (n, K, 3) mm -> (n, K) mm."""
    if reading not in READINGS:
        raise ValueError(f"{reading!r} is none of {', '.join(READINGS)}")
    if reading == "Euclidean":
        return np.asarray(np.linalg.norm(differences, axis=-1))
    return np.asarray(np.abs(differences).mean(axis=-1))


def root_mean_squares(differences: FloatArray, reading: str) -> FloatArray:
    """The numbers whose mean is the RMSE, NaN left out: (n, K, 3) mm -> (m,) mm."""
    if reading == "per coordinate":
        values = np.sqrt((differences**2).mean(axis=-1)).ravel()
        return np.asarray(values[np.isfinite(values)])
    squares = absolute_errors(differences, reading) ** 2
    known = np.isfinite(squares)
    scans = known.any(axis=1)
    total = np.where(known, squares, 0.0).sum(axis=1)[scans]
    return np.asarray(np.sqrt(total / known.sum(axis=1)[scans]))


def cell(values: FloatArray) -> str:
    """Mean ± standard deviation of all that is finite, as in the paper: ``1.60 ± 1.21``."""
    known = values[np.isfinite(values)]
    return f"{known.mean():.2f} ± {known.std():.2f}" if len(known) else "-"


def table_three(results: Mapping[str, Mapping[str, FloatArray]], reading: str) -> Table:
    """Table III: MAE of configurations (rows) under conditions (columns).

    Args:
        results: configuration -> condition -> differences (n, K, 3) mm. A condition that a
            configuration lacks is left open.
        reading: One of `READINGS`.
    """
    conditions = list(dict.fromkeys(name for row in results.values() for name in row))
    rows = [
        (
            configuration,
            *(
                cell(absolute_errors(row[name], reading)) if name in row else "-"
                for name in conditions
            ),
        )
        for configuration, row in results.items()
    ]
    return Table(("Configurations", *(f"{name} (in mm)" for name in conditions)), rows)


def table_four(protocol: Protocol, differences: FloatArray, reading: str) -> Table:
    """Table IV: MAE and RMSE of each sub-anatomy.

    Args:
        differences: (n, K, 3) mm, NaN where truth or prediction is missing.
        reading: One of `READINGS`.
    """
    rows = []
    for group in protocol.groups:
        chosen = differences[:, group.first - 1 : group.last]
        rows.append(
            (
                group.name,
                cell(absolute_errors(chosen, reading)),
                cell(root_mean_squares(chosen, reading)),
            )
        )
    what = "between ground truth and predicted coordinates (in mm)"
    return Table(("Subanatomy", f"MAE {what}", f"RMSE {what}"), rows)
